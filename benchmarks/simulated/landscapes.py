"""Simulated machines: what some 6,000 configurations really do, and what a twin believes of them.

Closed forms of a batching server behind a cache, not the twin's code, so that the twin does not
judge itself. Each machine also has quirks that no formula knows. Sources: waiting after Sakasegawa
(1977) for c servers, an exponential tail of the wait, the cache's hit ratio as the Zipf share of
its most popular entries.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from dlbench.proxy.config import ServingConfig
from dlbench.tuner.space import Space, build_space, naive
from dlbench.tuner.twin.predictions import Predictions, coordinates

CORES = 4
SHARES = (0.3, 0.5, 0.7, 0.9)
# Wait of requests that are dealt out, over that of one shared queue; and how well they keep it busy.
WAIT = {"shared_queue": 1.0, "least_outstanding": 1.15, "round_robin": 1.6, "random": 2.2}
BUSY = {"shared_queue": 1.0, "least_outstanding": 0.99, "round_robin": 0.97, "random": 0.93}
LRU = 0.9  # of the most popular entries' share


@dataclass(frozen=True)
class Machine:
    """A model on a machine. Times in milliseconds, every field may be mistaken by a twin."""

    fixed_ms: float  # of a batch
    row_ms: float
    threadable: float  # share of the work that more threads divide
    units: float  # threads (or batches, on a GPU) that compute at once at full speed
    crowding: float  # slowdown by each further worker: shared memory bandwidth
    front_ms: float
    service_cv: float
    distinct: float
    zipf: float

    def off(self, rng: np.random.Generator, least: float, most: float) -> Machine:
        """The same with every parameter wrong, up or down, by a share between `least` and `most`."""
        signs = rng.choice([-1, 1], size=len(fields(self)))
        errors = signs * np.log1p(rng.uniform(least, most, size=len(signs)))
        named = zip(fields(self), np.exp(errors), strict=True)
        return replace(self, **{f.name: getattr(self, f.name) * e for f, e in named})


class Knobs:
    """Configurations as arrays."""

    def __init__(self, configs: tuple[ServingConfig, ...]) -> None:
        self.batch = np.array([c.max_batch_size for c in configs], float)
        self.delay = np.array([c.max_queue_delay_ms for c in configs])
        self.workers = np.array([c.workers for c in configs], float)
        self.threads = np.array([c.intra_op_threads for c in configs], float)
        self.cache = np.array([c.cache_size for c in configs], float)
        self.wait = np.array([WAIT[c.scheduling_policy] for c in configs])
        self.busy = np.array([BUSY[c.scheduling_policy] for c in configs])

    def take(self, rows: np.ndarray) -> Knobs:
        taken = object.__new__(Knobs)
        taken.__dict__ = {name: values[rows] for name, values in self.__dict__.items()}
        return taken


class Server:
    """The closed forms: a machine with these knobs."""

    def __init__(self, machine: Machine, knobs: Knobs) -> None:
        self.m, self.k = machine, knobs
        threads = knobs.threads if machine.threadable > 0 else 1.0
        slow = np.maximum(1.0, knobs.workers * threads / machine.units)
        slow = slow * (1 + machine.crowding * (knobs.workers - 1))
        threadable = min(machine.threadable, 1.0)
        slow = slow * (1 - threadable + threadable / knobs.threads)
        self.fixed, self.row = slow * machine.fixed_ms, slow * machine.row_ms
        self.miss = 1 - hit_ratio(machine, knobs.cache)

    @cached_property
    def capacity_rps(self) -> np.ndarray:
        """(n,)"""
        k = self.k
        computed = k.busy * k.workers * k.batch / (self.fixed + self.row * k.batch) / self.miss
        return 1000 * (computed**-4 + self.m.front_ms**4) ** -0.25

    def p99_ms(self, share: np.ndarray | float) -> np.ndarray:
        """(n,) at a share of each one's own capacity."""
        k = self.k
        missed = share * self.capacity_rps * self.miss / 1000
        filling = 1 - missed * self.row / k.workers
        unlimited = missed * (self.fixed / k.workers + k.delay) / np.maximum(filling, 1e-9)
        batch = np.clip(np.where(filling > 0, unlimited, np.inf), 1, k.batch)
        service = self.fixed + self.row * batch
        delay = np.minimum(k.delay, k.batch / missed)
        waits = k.wait * share ** (np.sqrt(2 * (k.workers + 1)) - 1)
        mean = service / (k.workers * (1 - share)) * (1 + self.m.service_cv**2) / 2
        late = 0.01 / self.miss
        wait = k.wait * mean * np.log1p(waits / late) + np.where(batch > 1, 0.7 * service, 0.0)
        front = share * self.capacity_rps * self.m.front_ms / 1000
        busy_front = self.m.front_ms * (1 + 2 * front / np.maximum(1 - front, 0.02))
        return busy_front + delay + service * (1 + 2.33 * self.m.service_cv) + wait


def hit_ratio(machine: Machine, entries: np.ndarray) -> np.ndarray:
    """LRU's share of the requests, from the popularity of what it holds."""
    weights = np.arange(1, max(2, int(machine.distinct)) + 1) ** -machine.zipf
    popular = np.concatenate([[0.0], weights.cumsum() / weights.sum()])
    return LRU * popular[np.minimum(entries, len(weights)).astype(int)]


class Landscape:
    """A machine with its quirks: the truth that a search can only measure."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.name, self.machine = name, machine
        default = ServingConfig(workers=CORES, cache_size=0)
        self.space: Space = build_space(default, CORES, repeats_inputs=True, batchable=True)
        baselines = (naive(default), default)
        self.configs = tuple(dict.fromkeys([*baselines, *self.space.configurations()]))
        self.rows = {config: row for row, config in enumerate(self.configs)}
        self.knobs = Knobs(self.configs)
        self._server = Server(machine, self.knobs)
        rng = np.random.default_rng(list(name.encode()))
        points = coordinates(self.space, self.configs)
        self._capacity_quirk = np.exp(quirk(rng, points, 0.04, 0.03))
        self._p99_quirk = np.exp(quirk(rng, points, 0.08, 0.05))
        self.capacity_rps = self._server.capacity_rps * self._capacity_quirk

    def p99_ms(self, row: int, share: float) -> float:
        """The truth for one configuration at a share of its true capacity."""
        one = Server(self.machine, self.knobs.take(np.array([row])))
        return float(one.p99_ms(share)[0] * self._p99_quirk[row])

    def curves(self) -> tuple[np.ndarray, np.ndarray]:
        """True throughput and p99 (n, s) at the usual shares."""
        p99 = np.stack([self._server.p99_ms(s) * self._p99_quirk for s in SHARES], axis=1)
        return self.capacity_rps[:, None] * np.array(SHARES), p99

    def predicted(self, believed: Machine) -> Predictions:
        """What a twin of another machine expects here."""
        server = Server(believed, self.knobs)
        p99 = np.stack([server.p99_ms(share) for share in SHARES], axis=1)
        return Predictions.of(self.space, self.configs, SHARES, server.capacity_rps, p99)


def quirk(rng: np.random.Generator, points: np.ndarray, smooth: float, own: float) -> np.ndarray:
    """A random function of the knobs and of each two of them, and what is each one's own; sds."""
    centred = points - points.mean(axis=0)
    pairs = (centred[:, :, None] * centred[:, None, :]).reshape(len(points), -1)
    field = np.concatenate([centred, pairs], axis=1)
    values = field @ rng.normal(size=field.shape[1])
    return smooth * values / values.std() + own * rng.normal(size=len(points))


MACHINES = {
    # Batching hardly pays: a convnet on four cores.
    "cpu": Machine(0.3, 2.0, 0.8, CORES, 0.04, 0.03, 0.15, 100_000, 0.5),
    # Batching pays 8x, a second worker hides copies, threads change nothing.
    "gpu": Machine(2.0, 0.22, 0.0, 1.6, 0.02, 0.02, 0.08, 100_000, 0.4),
    # Nearly everything has been asked before.
    "cache": Machine(1.0, 6.0, 0.6, CORES, 0.05, 0.04, 0.2, 20_000, 1.1),
    # Workers and threads wait for the same memory.
    "memory": Machine(0.6, 0.8, 0.3, CORES, 0.35, 0.03, 0.25, 50_000, 0.7),
    # Never tuned on: a recurrent net where everything matters a little and the front is in the way.
    "held_out": Machine(0.45, 0.16, 0.4, CORES, 0.15, 0.06, 0.3, 30_000, 0.9),
}


def right_twin(machine: Machine, rng: np.random.Generator) -> Machine:
    """Off by 10 to 20 % in every parameter."""
    return machine.off(rng, 0.1, 0.2)


def wrong_twin(name: str, rng: np.random.Generator) -> Machine:
    """Believes in another machine, scaled to the right time for one row."""
    others = sorted(set(MACHINES) - {name, "held_out"})
    other, own = MACHINES[str(rng.choice(others))], MACHINES[name]
    scale = (own.fixed_ms + own.row_ms) / (other.fixed_ms + other.row_ms)
    scaled = replace(other, fixed_ms=other.fixed_ms * scale, row_ms=other.row_ms * scale)
    return scaled.off(rng, 0.1, 0.2)
