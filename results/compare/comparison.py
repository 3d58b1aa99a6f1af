"""Two measured sides, figure by figure: what changed, and what stands against comparing them. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlbench.loadgen.analysis.differences import (
    Figure,
    Runs,
    compare_figures,
    ratio,
    reported,
    widening,
)
from dlbench.loadgen.analysis.statistics import UNDETERMINED
from dlbench.tuner.constraint import wilson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dlbench.loadgen.analysis.statistics import Interval
    from dlbench.loadgen.control.result import LoadResult
    from dlbench.loadgen.measurement import Measurement
    from dlbench.tuner.point import Point

    Figures = Mapping[str, Figure]

ERROR_RATE = "error_rate"
# Of these less is worse; of every other figure more is.
LESS_IS_WORSE = frozenset({"throughput_rps", "hypervolume"})
# It takes these to say that nothing got worse; a p99.9, or that nothing fails, would take more
# requests than most runs have.
DECISIVE = frozenset({"throughput_rps", "hypervolume", "p50_ms", "p99_ms"})
# What may differ between two loads that ask the same of a server: how it is spoken to is its own.
SPOKEN = ("protocol", "encoding", "template")
NOT_THE_LOAD = frozenset(
    {"seed", "duration_s", "warmup_s", "token_file", "tls_ca", "tls_insecure", *SPOKEN}
)
# Of the machine, what changes by itself.
NOT_THE_MACHINE = frozenset({"load_average", "memory_mb", "real_time", "versions"})


@dataclass(frozen=True)
class Change:
    """One figure of both sides, and the 95 % interval that holds for all of a comparison at once.

    The interval is that of second / first. There is no ratio to an error rate of 0: of those it is
    that of second - first. `subject` is what was measured, "" where there is only one thing.
    """

    figure: str
    first: float
    second: float
    interval: Interval
    subject: str = ""
    decides: bool = True  # whether it has to be known before nothing is said to be worse
    # Of each side: what an infinite latency is known to be longer than.
    longest_ms: tuple[float | None, float | None] = (None, None)

    @property
    def ratio(self) -> float | None:
        """Second over first; None of an error rate, where the first is 0, or both are infinite."""
        return None if self.figure == ERROR_RATE else ratio(self.first, self.second)

    @property
    def loss(self) -> Interval:
        """How much worse the second may be, as a share of the first; below 0 is better.

        Of an error rate: by how much more requests failed, as a share of all.
        """
        low, high = self.interval
        if low is None or high is None or self.figure == ERROR_RATE:
            return self.interval
        return (1 - high, 1 - low) if self.figure in LESS_IS_WORSE else (low - 1, high - 1)


@dataclass(frozen=True)
class Compared:
    """All that is known of two sides.

    `notes` are sentences to read first; `senseless` says why nothing may be judged, "" if it may;
    `broken` says what the second side could not do at all, `remedy` what would narrow the intervals.
    `traded` are figures of which one may be given for another: none where both were asked the same.
    """

    sides: tuple[str, str]
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    senseless: str = ""
    broken: tuple[str, ...] = ()
    remedy: str = ""
    traded: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Pair:
    """What one subject gave on both sides."""

    first: Figures
    second: Figures
    errors: tuple[Measurement, Measurement] | None = None
    decides: bool = True

    @property
    def figures(self) -> int:
        """How many both sides have."""
        a, b = (
            {n for n, f in side.items() if f.value is not None}
            for side in (self.first, self.second)
        )
        return len(a & b) + (self.errors is not None)


def changes(pairs: Mapping[str, Pair]) -> tuple[Change, ...]:
    """Every figure that both sides have of each subject; all intervals hold together in 95 %."""
    count = sum(pair.figures for pair in pairs.values())
    return tuple(c for subject, pair in pairs.items() for c in _changes(subject, pair, count))


def _changes(subject: str, pair: Pair, count: int) -> Iterator[Change]:
    for one in compare_figures(pair.first, pair.second, count).differences:
        decides = pair.decides and one.name in DECISIVE
        longest_ms = (pair.first[one.name].longest_ms, pair.second[one.name].longest_ms)
        yield Change(
            one.name, one.first, one.second, one.together, subject, decides, longest_ms=longest_ms
        )
    if pair.errors is not None:
        a, b = pair.errors
        interval = more_errors(a, b, widening(count))
        yield Change(ERROR_RATE, a.error_rate, b.error_rate, interval, subject, decides=False)


def more_errors(first: Measurement, second: Measurement, wider: float = 1.0) -> Interval:
    """95 % interval of the difference of two error rates, recovered from the interval of each.

    (R. G. Newcombe, Interval estimation for the difference between independent proportions,
    Statistics in Medicine 17, 1998, method 10.) Errors come together, so it is rather too narrow.
    """
    (low, high), (low_2, high_2) = wilson(first), wilson(second)
    if low is None or high is None or low_2 is None or high_2 is None:
        return UNDETERMINED
    a, b = first.error_rate, second.error_rate
    down, up = math.hypot(b - low_2, high - a), math.hypot(high_2 - b, a - low)
    return b - a - wider * down, b - a + wider * up


def loads(
    first: LoadResult, second: LoadResult, runs: tuple[Runs | None, Runs | None] = (None, None)
) -> Compared:
    """Two results of `dlbench load`, by the raw samples where both kept them."""
    a, b = runs
    by_samples = (a.figures(), b.figures()) if a and b else (reported(first), reported(second))
    return Compared(
        ("A", "B"),
        changes({"": Pair(*by_samples, (first, second))}),
        tuple(_notes_on_loads(first, second)),
        _senseless(first, second),
        _broken("B", first, second),
        "a longer --duration on both sides",
    )


def rerun(study: Mapping[str, Point], again: Mapping[str, Point], notes: Sequence[str]) -> Compared:
    """Points of a study against the same measured again, at the same rates; both by name."""
    pairs, broken, senseless = {}, [], ""
    for name, point in again.items():
        before, now = study[name].measurement, point.measurement
        if before is None or now is None:
            broken.append(f"{name} can no longer be served: {point.failure or 'nothing measured'}")
            continue
        pairs[name] = Pair(_deciding(before), _deciding(now), (before, now))
        broken += _broken(name, before, now)
        senseless = senseless or _invalid(name, now)
    sides = ("study", "now")
    return Compared(sides, changes(pairs), tuple(notes), senseless, tuple(broken), "more --rounds")


def _deciding(measured: Measurement) -> Figures:
    return {name: figure for name, figure in reported(measured).items() if name in DECISIVE}


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """A phrase for each fact that is not the same on both sides; facts within facts by their own."""
    for fact in dict.fromkeys([*first, *second]):
        a, b = first.get(fact), second.get(fact)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differing(a, b)
        elif a != b:
            yield f"{fact} {shown(a)} and {shown(b)}"


def shown(value: Any) -> str:  # noqa: ANN401 - any fact
    """A fact as people write it."""
    if value in (None, "", [], ()):
        return "none"
    if isinstance(value, (list, tuple)):
        return " ".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def difference(what: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """One sentence about all that differs, none if nothing does."""
    found = ", ".join(differing(first, second))
    return [f"they differ in the {what}: {found}"] if found else []


def the_load(load: Mapping[str, Any]) -> dict[str, Any]:
    """What a load asks of a server: two that differ in it cannot be held against each other."""
    return {fact: value for fact, value in load.items() if fact not in NOT_THE_LOAD}


def _notes_on_loads(first: LoadResult, second: LoadResult) -> Iterator[str]:
    for name, result in (("A", first), ("B", second)):
        if result.verdict != "ok":
            yield f"{name} is {result.verdict}: {result.reason}"
    loads_, machines = (
        [getattr(result, kind).model_dump(mode="json") for result in (first, second)]
        for kind in ("load", "machine")
    )
    yield from difference("load", *map(the_load, loads_))
    yield from difference("server", _server(first), _server(second))
    yield from difference(
        "machine", *({k: m[k] for k in m if k not in NOT_THE_MACHINE} for m in machines)
    )
    yield from difference("versions", *(m["versions"] for m in machines))


def _server(result: LoadResult) -> dict[str, Any]:
    """The server measured and how it was addressed, with the protocol detected."""
    spoken = {fact: getattr(result.load, fact) for fact in SPOKEN}
    return {**spoken, "model": result.model, "protocol": result.protocol}


def _senseless(first: LoadResult, second: LoadResult) -> str:
    a, b = (the_load(result.load.model_dump(mode="json")) for result in (first, second))
    if a != b:
        return "they were measured under different loads"
    return _invalid("A", first) or _invalid("B", second)


def _invalid(name: str, measured: Measurement) -> str:
    """Nothing follows from a measurement that the client spoiled."""
    return f"{name} is invalid: {measured.reason}" if measured.verdict == "invalid" else ""


def _broken(name: str, first: Measurement, second: Measurement) -> tuple[str, ...]:
    if second.verdict != "saturated" or first.verdict == "saturated":
        return ()
    return (f"{name} no longer keeps up: {second.reason}",)
