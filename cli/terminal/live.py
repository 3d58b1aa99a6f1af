"""What is seen while something runs: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table

from dlbench.loadgen.quantity import latency
from dlbench.proxy.knob import search_values
from dlbench.results.findings import changed, shown
from dlbench.tuner.front import knee
from dlbench.tuner.study_request import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from dlbench.loadgen.control.generator import Progress as LoadProgress
    from dlbench.loadgen.control.rate_search import NextRate, RateTrial
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.proxy.config import ServingConfig
    from dlbench.tuner.front import Outcome
    from dlbench.tuner.point import Point
    from dlbench.tuner.step import Step
    from dlbench.tuner.study_config import StudyConfig
    from dlbench.tuner.twin.predictions import Predictions

# Anything longer than this shows progress; in a pipe a line every so often is enough.
PLAIN_EVERY_S = 2.0


@contextmanager
def load_view(console: Console, profile: LoadProfile) -> Iterator[Callable[[LoadProgress], None]]:
    """Yield a callback that shows the progress of one measurement."""
    if not console.is_terminal:
        yield _PlainLoad(console)
        return
    with Live(console=console, transient=True, refresh_per_second=4) as live:
        yield lambda progress: live.update(_panel(progress, profile))


class _PlainLoad:
    """One line every two seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = PLAIN_EVERY_S

    def __call__(self, progress: LoadProgress) -> None:
        if progress.elapsed_s >= self._next_s:
            self._next_s = progress.elapsed_s + PLAIN_EVERY_S
            self._console.print(_line(progress))


def _line(p: LoadProgress) -> str:
    return (
        f"{p.elapsed_s:5.1f} s  {p.rate_rps:,.0f}/s  p50 {_ms(p.p50_ms, p.longest_ms)}  p99 "
        f"{_ms(p.p99_ms, p.longest_ms)}  "
        f"errors {p.errors}  lateness p99 {_ms(p.lateness_p99_ms)}"
    )


def _panel(p: LoadProgress, profile: LoadProfile) -> Table:
    total_s = profile.warmup_s + profile.duration_s
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    rows = (
        ("elapsed", f"{p.elapsed_s:.1f} of {total_s:g} s"),
        ("rate", f"{p.rate_rps:,.0f}/s"),
        ("p50", _ms(p.p50_ms, p.longest_ms)),
        ("p99", _ms(p.p99_ms, p.longest_ms)),
        ("errors", f"{p.errors}"),
        ("lateness p99", _ms(p.lateness_p99_ms)),
        ("in flight", f"{p.in_flight}"),
    )
    for name, value in rows:
        table.add_row(name, value)
    return table


def _ms(value: float | None, longest_ms: float | None = None) -> str:
    return "-" if value is None else f"{latency(value, longest_ms)} ms"


@contextmanager
def capacity_view(console: Console) -> Iterator[CapacityView]:
    """Yield what shows the search for the highest rate, a line for each run."""
    if not console.is_terminal:
        yield CapacityView(console, lambda _: None)
        return
    with console.status("starting") as status:
        yield CapacityView(console, status.update)


class CapacityView:
    """Shows each step and its result."""

    def __init__(self, console: Console, doing: Callable[[str], None]) -> None:
        self._console, self._doing = console, doing

    def step(self, step: NextRate) -> None:
        self._doing(f"{step.why}: {step.rate_rps:,.0f}/s for {step.duration_s:.0f} s")

    def trial(self, trial: RateTrial) -> None:
        line = f"{trial.rate_rps:>10,.1f}/s  {trial.outcome:<12}  {trial.seen}"
        self._console.print(line)


@contextmanager
def study_view(console: Console, config: StudyConfig) -> Iterator[Observer]:
    """Yield an observer that shows a study's progress on this console."""
    with Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[left]}"),
        console=console,
        expand=True,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        yield StudyView(bar, console, config)


class StudyView(Observer):
    """A line for every recorded point, below them what is being done, the best so far, the time left.

    Where something was foreseen, it stands beside what was measured.
    """

    def __init__(self, bar: Progress, console: Console, config: StudyConfig) -> None:
        self._bar, self._console, self._config = bar, console, config
        self._task = bar.add_task("starting", total=config.budget_s, left="")
        self._spent_s = 0.0
        self._doing = ""
        self._predictions: Predictions | None = None
        self._held: list[Outcome] = []
        self._described: set[str] = set()
        self._base: ServingConfig | None = None
        self._round = 0

    def note(self, text: str) -> None:
        self._say(f"note: {text}", style="dim")
        if not self._doing:  # calibrating or predicting: nothing else says what goes on
            self._bar.update(self._task, description=text)

    def foreseen(self, predictions: Predictions) -> None:
        self._predictions = predictions

    def step(self, step: Step, spent_s: float) -> None:
        self._spent_s = spent_s
        if step.configuration not in self._described:
            self._described.add(step.configuration)
            self._say(f"{step.configuration:<8} {self._knobs(step.config)}", style="bold")
        load = "capacity" if step.rate is None else f"{step.rate:,.0f}/s"
        self._doing = f"{step.phase} {step.configuration} {load}"
        self._bar.update(self._task, description=self._doing + self._best())
        self._advance(0.0)

    def progress(self, progress: LoadProgress) -> None:
        self._advance(progress.elapsed_s)

    def point(self, point: Point) -> None:
        if point.outcome:
            self._held.append(point.outcome)
        if point.phase != "verify":
            self._say(point_line(point) + self._expected(point))
        elif point.repeat != self._round:
            self._round = point.repeat
            self._say(f"verify   round {point.repeat}, everything again in a new order")

    def _advance(self, elapsed_s: float) -> None:
        spent_s = self._spent_s + elapsed_s
        self._bar.update(self._task, completed=spent_s, left=_left(self._config.budget_s - spent_s))

    def _knobs(self, config: ServingConfig) -> str:
        """What the first configuration is, and what the others change against it."""
        self._base = self._base or config
        searched = [f"{knob} {shown(getattr(config, knob))}" for knob in search_values()]
        return ", ".join(changed(config, self._base) or searched)

    def _expected(self, point: Point) -> str:
        """What the twin had said of the same figure."""
        known, m = self._predictions, point.measurement
        if known is None or m is None or point.config not in known.rows:
            return ""
        row = known.rows[point.config]
        capacity = float(known.capacity_rps[row])
        if point.share is None:
            return f"  twin {capacity:,.0f}/s"
        share = (m.offered_rps or m.throughput_rps) / capacity
        return f"  twin {_ms(math.exp(known.log_p99_at(row, share)))}"

    def _say(self, text: str, style: str = "") -> None:
        """A line; in a pipe it is never broken."""
        wrap = not self._console.is_terminal
        self._console.print(text, highlight=False, markup=False, soft_wrap=wrap, style=style)

    def _best(self) -> str:
        """As measured, luck included: nothing of it is reported."""
        if not self._held:
            return ""
        at = knee(self._held, self._config.reference_ms)
        best = self._held[at]
        return f"; best {best.throughput_rps:,.0f}/s at {_ms(best.p99_ms)}"


def _left(seconds: float) -> str:
    """What is left of a budget; what is begun may take a little more."""
    if seconds <= 0:
        return "finishing"
    return f"{seconds / 60:.1f} min left" if seconds >= 60 else f"{seconds:.0f} s left"


def point_line(point: Point) -> str:
    """A recorded point in one line."""
    m = point.measurement
    head = f"{point.phase:<8} {point.name:<11}"
    if m is None:
        return (
            f"{head} failed: "
            f"{point.failure.splitlines()[0] if point.failure else 'no reason given'}"
        )
    numbers = f"{m.throughput_rps:>9,.0f}/s  p99 {_ms(m.p99_ms, m.longest_ms):>9}"
    remark = "" if m.verdict == "ok" else f"  {m.verdict}"
    return f"{head} {numbers}{remark}"
