"""What a batch size is worth on this machine: rows per second and time per batch, five models.

    .venv/bin/python -m benchmarks.tuning.batch_sizes --json FILE [--for 150s] [--only MODEL] [--quick]

The proxy's own worker processes are fed over the proxy's own links with batches of real size, as the
calibration of `tune` does it: without HTTP, queues and cache, so that what is seen is what a batch
costs. Three ways to use two cores take turns: a worker of one thread, a worker of two, two workers
of one thread. Every cell is visited once in every round, in an order drawn anew, so that what drifts
drifts for all; the tables have medians with the lowest and highest visit. A visit during which other
programs used the cores is kept but not counted, and made up for. It has two halves:

- *full*: a batch is always waiting, as under load. It gives rows per second.
- *alone*: the next batch is sent when the last one is back. It gives what a lone batch takes, to the
  worker and back.

Feeding takes a share of a core that computing then lacks, as the front of a proxy would; the last
column has the largest one. Everything is kept in FILE at once; the same command goes on from there.
`python docs/batch_sizes.py FILE` makes the page's tables and picture of it.
"""

from __future__ import annotations

import random
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.harness import in_pieces, report
from benchmarks.harness.measuring import path_of
from dlbench.loadgen.inputs.inputs import random_row
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.models.model import resolve_model
from dlbench.proxy.settings import ServerSettings
from dlbench.tuner.bench import disturbance
from dlbench.tuner.bench.drive import Driven
from dlbench.tuner.targets.own_proxy import OwnProxy
from dlbench.tuner.twin.service_times import Cell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.harness.in_pieces import Kept

# Sizes of the dimensions that a model leaves open, as its own package uses them.
SHAPES = {
    "demo:mlp": {},
    "demo:cnn": {},
    "silero_vad_half": {"input": (1, 576)},
    "magika": {},
    "rapidocr_classifier": {"x": (1, 3, 48, 192)},
}
BATCHES = (1, 2, 4, 8, 16, 32, 64)
# Calm visits of every cell; after so many rounds a machine is not going to be calm.
VISITS, MOST_ROUNDS = 5, 40
VISIT_S = 0.25
ROWS = 64


class Use(NamedTuple):
    """A way to use the cores."""

    workers: int
    threads: int

    def __str__(self) -> str:
        return f"{self.workers}x{self.threads}"


USES = (Use(1, 1), Use(1, 2), Use(2, 1))


class Seen(NamedTuple):
    """One visit: seconds per batch of each worker when full, and of a lone one.

    `driver_share` is the share of a core that feeding took when full, `disturbed` what else went
    on on the machine.
    """

    full_s: float
    alone_s: float
    driver_share: float
    disturbed: Sequence[str] = ()


def main() -> None:
    parser = in_pieces.parser(__doc__)
    parser.add_argument("--only", choices=SHAPES, help="one of the models")
    options = parser.parse_args()
    names = in_pieces.wanted(options, tuple(SHAPES))
    batches, most = (BATCHES[::3], 1) if options.quick else (BATCHES, MOST_ROUNDS)
    with in_pieces.kept(options) as kept:
        for number in range(most):
            visit_all(kept, names, batches, number)
        for name in names:
            show(name, calm_visits(kept, name), batches)


def visit_all(kept: Kept, names: Sequence[str], batches: Sequence[int], number: int) -> None:
    """One round over what is not known yet; a model's workers live for its turn."""
    for name in in_order(names, number):
        seen = calm_visits(kept, name)
        cells = [
            (use, batch) for use in USES for batch in batches if len(seen[use, batch]) < VISITS
        ]
        with Workers(name) as workers:
            for use, batch in in_order(cells, number):
                at = f"{name}/{use}/{batch}/{number}"
                kept.once(at, partial(workers.visit, use, batch))


def in_order(items: Sequence[Any], number: int) -> list[Any]:
    """The order of a round."""
    return random.Random(number).sample(items, len(items))


class Workers:
    """Context manager: workers of all uses of one model, started when the first is visited."""

    def __init__(self, name: str) -> None:
        self._settings = ServerSettings(model=path_of(name), device="cpu")
        self._profile = LoadProfile(shape=SHAPES[name])
        self._driven: dict[Use, Driven] = {}

    def __enter__(self) -> Workers:
        self._stack = ExitStack()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def visit(self, use: Use, batch: int) -> Seen:
        if not self._driven:
            self._start(self._rows())
        driven, cell = self._driven[use], Cell(batch, use.threads, use.workers)
        driven.visit(cell, 0.0, 0.0)  # the first batch of a shape plans memory for it
        before = disturbance.now()
        alone = driven.visit(cell, VISIT_S / 2, 0.0)
        full = driven.visit(cell, VISIT_S, alone.seconds)
        disturbed = disturbance.disturbances(before, disturbance.now())
        return Seen(full.seconds, alone.seconds, full.driver_share, disturbed)

    def _start(self, rows: list[dict[str, Any]]) -> None:
        path = str(resolve_model(self._settings.model).path)
        for use in USES:
            config = ServingConfig(workers=use.workers, intra_op_threads=use.threads)
            driven = Driven(path, self._settings, config, use.workers, rows)
            self._driven[use] = self._stack.enter_context(driven)

    def _rows(self) -> list[dict[str, Any]]:
        """As a load has them: from the metadata of a real server."""
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dlbench-"))
            server = stack.enter_context(OwnProxy(self._settings, Path(folder) / "server.log"))
            url = server.apply(ServingConfig(workers=1))["url"]
            inputs = discover(url, self._profile).inputs
        return [random_row(inputs, [number]) for number in range(ROWS)]


def calm_visits(kept: Kept, name: str) -> dict[tuple[Use, int], list[Seen]]:
    """What counts of a model, by use and batch size."""
    return {
        (use, batch): [
            seen
            for values in kept.beginning(f"{name}/{use}/{batch}/")
            if not (seen := Seen(*values)).disturbed
        ]
        for use in USES
        for batch in BATCHES
    }


def show(name: str, seen: dict[tuple[Use, int], list[Seen]], batches: Sequence[int]) -> None:
    heads = [title for use in USES for title in (f"{use}: rows/s", "lone batch, ms")]
    table = report.table(f"{name} (workers x threads)", "batch", *heads, "feeding, cores")
    for batch in batches:
        own = {use: seen[use, batch] for use in USES}
        if not all(own.values()):
            report.note(f"{name}, batches of {batch}: no calm visit")
            continue
        feeding = max(median(one.driver_share for one in own[use]) for use in USES)
        figures = [cell for use in USES for cell in cells(use, batch, own[use])]
        table.add_row(str(batch), *figures, f"{feeding:.2f}")
    report.console.print(table)


def cells(use: Use, batch: int, own: Sequence[Seen]) -> Iterator[str]:
    yield report.spread([use.workers * batch / one.full_s for one in own], ",.0f")
    yield report.spread([1e3 * one.alone_s for one in own], ".3g")


if __name__ == "__main__":
    main()
