"""A V2 server whose latency is known exactly: each reply leaves its arrival plus a drawn delay later.

    python known_server.py NAME [SEED]

prints one line of JSON with its URL, ends when its standard input does, and then prints a second
line: how exactly it kept its word (`Timing`). One thread on epoll and a timerfd, because uvloop's
timers round to a millisecond and its writes wait for the end of a round. The delays are independent
of the load, so what a client measures is the distribution itself, plus the machine's own doing.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import count, pairwise
from statistics import NormalDist
from time import monotonic_ns
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dlbench.loadgen.analysis.priority import real_time
from dlbench.loadgen.engine.timerfd import TimerFd
from dlbench.loadgen.null_server import BACKLOG, HEAD_END, CannedReplies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Quantile = Callable[[Floats], Floats]  # shares in (0, 1) -> milliseconds

MS = 1_000_000
NS = 1_000_000_000
CHUNK = 65_536
DRAWS = 4096
# Steps of the numerical parts: integration over the delay, bisection of a quantile.
GRID = (np.arange(20_000) + 0.5) / 20_000
HALVINGS = 60
NEVER_NS = 1 << 62
INPUTS = [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}]


# --- what is known: pure ---------------------------------------------------------------------------


class Stall(NamedTuple):
    """Nothing is answered during the last `for_s` of every `every_s`; what was due leaves then."""

    every_s: float
    for_s: float

    def released_ns(self, due_ns: int, start_ns: int) -> int:
        """When a reply that is due then leaves; stalls count from `start_ns`."""
        every_ns, for_ns = int(self.every_s * NS), int(self.for_s * NS)
        left_ns = every_ns - (due_ns - start_ns) % every_ns
        return due_ns + left_ns if left_ns <= for_ns else due_ns

    def exceeds(self, wait_ms: Floats, busy: float = 0.0) -> Floats:
        """Share of the replies that the stall holds for longer than `wait_ms`.

        Arrivals are spread evenly, R per second. At its end the stall of S seconds leaves R*S
        replies, which leave at M per second while others come; `busy` is R/M. Who was due t after
        its beginning leaves R*t/M after its end, and so has waited S - t*(1 - busy): evenly
        between 0 and S for all with t < S/(1 - busy), and nothing for the others.
        """
        share = self.for_s / (self.every_s * (1 - busy))
        left = 1 - wait_ms / (self.for_s * 1000)
        return np.where(wait_ms < 0, 1.0, share * np.clip(left, 0, 1))


@dataclass(frozen=True)
class Known:
    """A distribution of latency: a delay by its quantile function, and perhaps a stall on top."""

    name: str
    delay: Quantile
    stall: Stall | None = None

    def quantile(self, q: float, busy: float = 0.0) -> float:
        """Milliseconds that a share `q` of all latencies do not exceed.

        Delay and stall are independent of each other, so the latency is their sum.
        """
        if self.stall is None:
            return float(self.delay(np.array([q]))[0])
        delays = self.delay(GRID)
        low, high = 0.0, float(delays[-1]) + self.stall.for_s * 1000
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            over = float(self.stall.exceeds(middle - delays, busy).mean())
            low, high = (middle, high) if over > 1 - q else (low, middle)
        return high


def constant(ms: float) -> Quantile:
    return lambda q: np.full(len(q), ms)


def lognormal(median_ms: float, sigma: float) -> Quantile:
    """exp of a normal distribution with mean ln(median) and standard deviation sigma."""
    normal = np.vectorize(NormalDist().inv_cdf, otypes=[float])
    return lambda q: median_ms * np.exp(sigma * normal(q))


def pareto(least_ms: float, alpha: float) -> Quantile:
    """P[T > t] = (least / t)^alpha: for alpha <= 2 the variance is infinite."""
    return lambda q: least_ms * (1 - q) ** (-1 / alpha)


def bimodal(share: float, low_ms: tuple[float, float], high_ms: tuple[float, float]) -> Quantile:
    """Even in `low_ms` for a `share` of the requests, even in `high_ms`, further up, for the others."""
    return lambda q: np.interp(q, (0, share, share, 1), (*low_ms, *high_ms))


KNOWN = {
    known.name: known
    for known in (
        Known("none", constant(0.0)),
        Known("constant", constant(2.0)),
        Known("slow", constant(1500.0)),
        Known("lognormal", lognormal(median_ms=20.0, sigma=0.6)),
        Known("bimodal", bimodal(0.95, (10.0, 20.0), (60.0, 100.0))),
        Known("pareto", pareto(least_ms=5.0, alpha=2.0)),
        Known("stalls", lognormal(median_ms=10.0, sigma=0.4), Stall(every_s=0.25, for_s=0.025)),
        Known("long stall", constant(2.0), Stall(every_s=10.0, for_s=1.0)),
    )
}


def delays_ns(delay: Quantile, seed: int) -> Iterator[int]:
    """Independent draws, by inversion."""
    rng = np.random.default_rng(seed)
    while True:
        yield from (delay(rng.random(DRAWS)) * MS).astype(np.int64).tolist()


# --- the server ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """How exactly replies left: actual minus meant time, and how fast stalls were worked off."""

    replies: int
    late_p50_ms: float
    late_p99_ms: float
    late_max_ms: float
    drained_rps: float  # 0: nothing was held by a stall

    @classmethod
    def of(cls, late_ns: list[int], held_ns: list[int]) -> Timing:
        """`held_ns`: of replies that a stall held back, which follow one another."""
        p50, p99, most = (np.percentile(late_ns or [0], (50, 99, 100)) / MS).tolist()
        # Within a burst the times rise; where they fall, the next one began.
        ends_ns = [last for last, after in pairwise([*held_ns, 0]) if after < last]
        drained_rps = len(held_ns) / sum(ends_ns) * NS if held_ns else 0.0
        return cls(len(late_ns) + len(held_ns), p50, p99, most, drained_rps)


class Client:
    """One connection: framing only."""

    def __init__(self, accepted: socket.socket, server: Server) -> None:
        self.socket, self._server = accepted, server
        self._pending = b""

    def read(self) -> None:
        try:
            data = self.socket.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            self._server.forget(self)
            return
        now_ns = monotonic_ns()
        self._pending = data = self._pending + data if self._pending else data
        while (cut := data.find(HEAD_END)) >= 0:
            length, answer = self._server.answers.to(data[:cut])
            end = cut + len(HEAD_END) + length
            if len(data) < end:
                break
            self._server.answer_later(self, answer, now_ns, is_inference=data.startswith(b"POST"))
            self._pending = data = data[end:]

    def write(self, answer: bytes) -> None:
        """Short enough for any socket's buffer; who hung up meanwhile misses it."""
        with suppress(OSError):
            self.socket.send(answer)


class Server:
    """All connections, and the replies that are not due yet, the earliest first."""

    def __init__(self, known: Known, seed: int) -> None:
        self.answers = CannedReplies(INPUTS)
        self._stall = known.stall
        self._delays_ns = delays_ns(known.delay, seed)
        self._start_ns = monotonic_ns()
        self._waiting: list[tuple[int, int, int, Client, bytes]] = []
        self._numbers = count()
        self._late_ns: list[int] = []
        self._held_ns: list[int] = []
        self._timer = TimerFd()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._watch(self._timer.fd, self._send_due)
        self._watch(self._listener.fileno(), self._accept)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def serve_until_readable(self, fd: int) -> Timing:
        """Answer until `fd` has something to say, or ends."""
        over: list[bool] = []
        self._watch(fd, partial(over.append, True))
        while not over:
            for ready, _ in self._epoll.poll():
                self._handlers[ready]()
        return Timing.of(self._late_ns, self._held_ns)

    def answer_later(
        self, client: Client, answer: bytes, now_ns: int, *, is_inference: bool
    ) -> None:
        """Metadata is answered at once; it is nobody's latency."""
        due_ns = now_ns + next(self._delays_ns) if is_inference else now_ns
        leaves_ns = self._stall.released_ns(due_ns, self._start_ns) if self._stall else due_ns
        first_ns = self._waiting[0][0] if self._waiting else NEVER_NS
        heappush(self._waiting, (leaves_ns, due_ns, next(self._numbers), client, answer))
        if leaves_ns < first_ns:
            self._timer.arm(leaves_ns)

    def forget(self, client: Client) -> None:
        del self._handlers[client.socket.fileno()]
        client.socket.close()

    def _watch(self, fd: int, handler: Callable[[], None]) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def _accept(self) -> None:
        accepted, _ = self._listener.accept()
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch(accepted.fileno(), Client(accepted, self).read)

    def _send_due(self) -> None:
        waiting = self._waiting
        while waiting and waiting[0][0] <= monotonic_ns():
            leaves_ns, due_ns, _, client, answer = heappop(waiting)
            client.write(answer)
            record = self._late_ns if leaves_ns == due_ns else self._held_ns
            record.append(monotonic_ns() - leaves_ns)
        self._timer.arm(waiting[0][0] if waiting else NEVER_NS)


def main(name: str, seed: str = "0") -> None:
    server = Server(KNOWN[name], int(seed))
    print(json.dumps({"url": f"http://127.0.0.1:{server.port}"}), flush=True)
    gc.freeze()
    gc.disable()
    with real_time():
        timing = server.serve_until_readable(0)
    print(json.dumps(asdict(timing)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
