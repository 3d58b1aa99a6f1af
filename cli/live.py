"""What is seen while something runs: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dlbench.tuner.plan import REPEATS
from dlbench.tuner.run import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from dlbench.loadgen.generator import Progress as LoadProgress
    from dlbench.loadgen.profile import LoadProfile
    from dlbench.loadgen.rate_search import Step as RateStep
    from dlbench.loadgen.rate_search import Trial
    from dlbench.tuner.plan import Step
    from dlbench.tuner.point import Point

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
            self._console.print(_line(progress), highlight=False, markup=False)


def _line(p: LoadProgress) -> str:
    return (
        f"{p.elapsed_s:5.1f} s  {p.rate_rps:,.0f}/s  p50 {_ms(p.p50_ms)}  p99 {_ms(p.p99_ms)}  "
        f"errors {p.errors}  lateness p99 {_ms(p.lateness_p99_ms)}"
    )


def _panel(p: LoadProgress, profile: LoadProfile) -> Table:
    total_s = profile.warmup_s + profile.duration_s
    table = Table.grid(padding=(0, 2))
    rows = (
        ("elapsed", f"{p.elapsed_s:.1f} of {total_s:g} s"),
        ("rate", f"{p.rate_rps:,.0f}/s"),
        ("p50", _ms(p.p50_ms)),
        ("p99", _ms(p.p99_ms)),
        ("errors", f"{p.errors}"),
        ("lateness p99", _ms(p.lateness_p99_ms)),
        ("in flight", f"{p.in_flight}"),
    )
    for name, value in rows:
        table.add_row(f"[bold]{name}[/]", value)
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} ms"


@contextmanager
def capacity_view(console: Console) -> Iterator[CapacityView]:
    """Yield what shows the search for the highest rate, a line for each run."""
    if not console.is_terminal:
        yield CapacityView(console, lambda _: None)
        return
    with console.status("starting") as status:
        yield CapacityView(console, status.update)


class CapacityView:
    """Says what is tried and what came of it."""

    def __init__(self, console: Console, doing: Callable[[str], None]) -> None:
        self._console, self._doing = console, doing

    def step(self, step: RateStep) -> None:
        self._doing(f"{step.why}: {step.rate_rps:,.0f}/s for {step.duration_s:.0f} s")

    def trial(self, trial: Trial) -> None:
        line = f"{trial.rate_rps:>10,.1f}/s  {trial.outcome:<12}  {trial.seen}"
        self._console.print(line, highlight=False, markup=False)


@contextmanager
def study_view(console: Console, budget_s: float) -> Iterator[Observer]:
    """Yield an observer that shows a study's progress on this console."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        yield _StudyView(bar, console, budget_s)


class _StudyView(Observer):
    """A line for every recorded point, below them a bar over the budget with the best so far."""

    def __init__(self, bar: Progress, console: Console, budget_s: float) -> None:
        self._bar = bar
        self._console = console
        self._task = bar.add_task("starting", total=budget_s)
        self._spent_s = 0.0
        self._doing = ""
        self._best: Point | None = None
        self._round = 0

    def note(self, text: str) -> None:
        self._say(f"note: {text}", style="dim")

    def step(self, step: Step, spent_s: float) -> None:
        self._spent_s = spent_s
        load = "capacity" if step.rate is None else f"{step.rate:,.0f}/s"
        self._doing = f"{step.phase} {step.configuration} {load}"
        self._bar.update(self._task, description=self._describe(), completed=spent_s)

    def progress(self, progress: LoadProgress) -> None:
        self._bar.update(self._task, completed=self._spent_s + progress.elapsed_s)

    def point(self, point: Point) -> None:
        outcome, best = point.outcome, self._best.outcome if self._best else None
        if outcome and (best is None or outcome.throughput_rps > best.throughput_rps):
            self._best = point
        if point.phase != "verify":
            self._say(_point_line(point))
        elif point.repeat != self._round:
            self._round = point.repeat
            self._say(
                f"verify   round {point.repeat} of {REPEATS}, everything again in a new order"
            )

    def _say(self, text: str, style: str = "") -> None:
        """A line; in a pipe it is never broken."""
        wrap = not self._console.is_terminal
        self._console.print(text, highlight=False, markup=False, soft_wrap=wrap, style=style)

    def _describe(self) -> str:
        best = self._best.outcome if self._best else None
        so_far = f"; most {best.throughput_rps:,.0f}/s" if best else ""
        return f"{self._doing}{so_far}"


def _point_line(point: Point) -> str:
    m = point.measurement
    head = f"{point.phase:<8} {point.name:<11}"
    if m is None:
        return f"{head} failed: {point.failure.splitlines()[0] if point.failure else 'no reason'}"
    numbers = f"{m.throughput_rps:>9,.0f}/s  p99 {_ms(m.p99_ms):>9}"
    remark = "" if m.verdict == "ok" else f"  {m.verdict}"
    return f"{head} {numbers}{remark}"
