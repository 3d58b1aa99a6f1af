"""A bench whose points are kept, and which is only started when one of them has to be measured."""

from __future__ import annotations

import math
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks.harness import models
from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.settings import ServerSettings
from dlbench.tuner.bench.bench import Bench
from dlbench.tuner.point import Point

if TYPE_CHECKING:
    from benchmarks.harness.in_pieces import Kept
    from dlbench.tuner.step import Step

# Of a p99 that is worth anything (MLPerf early stopping).
LEAST_REQUESTS = 459


class Measuring:
    """Steps of a plan carried out on one model whose inputs are all distinct."""

    def __init__(self, kept: Kept, model: str) -> None:
        self._kept = kept
        self._settings = ServerSettings(model=model, device="cpu")
        self._bench: Bench | None = None

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        made = tempfile.TemporaryDirectory(prefix="dlbench-measuring-")
        self._folder = Path(self._stack.enter_context(made))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def point(self, name: str, step: Step, seed: int) -> Point:
        """What was kept under `name`, else measured now; raises OutOfTime."""
        return Point.model_validate(self._kept.once(name, lambda: self._measure(step, seed)))

    def _measure(self, step: Step, seed: int) -> Any:
        point = self._started().measure(step, seed, lambda _: None, self._folder / "samples.npz")
        return point.model_dump(mode="json")

    def _started(self) -> Bench:
        if self._bench is None:
            bench = Bench(self._settings, LoadProfile(), self._folder / "server.log")
            self._bench = self._stack.enter_context(bench)
            self._bench.start(ServingConfig(workers=1))
        return self._bench


def open_s(rate: float, least_s: float) -> float:
    """Long enough for a p99 at this rate."""
    return max(least_s, math.ceil(10 * LEAST_REQUESTS / rate) / 10)


def path_of(model: str) -> str:
    """A model by the name that a benchmark has for it."""
    return str(models.fetch(model)) if model in models.SOURCES else model
