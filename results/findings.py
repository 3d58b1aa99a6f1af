"""A study's findings in plain sentences, for the terminal and the recommended file. Pure."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from dlbench.loadgen.quantity import UNDETERMINED, digits, duration, interval, latency
from dlbench.proxy.config import ServingConfig
from dlbench.tuner.recommend import Option, cost_per_million
from dlbench.tuner.study_config import StudyConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dlbench.tuner.bounds.decision import BoundRow
    from dlbench.tuner.point import Point
    from dlbench.tuner.search.insight import Insight
    from dlbench.tuner.storage.study import Study
    from dlbench.tuner.verify.verification import Verified

BASELINES = ("naive", "default")
# A knob is named if it causes so much of the variance, and not more than so many are.
NAMED_SHARE, NAMED_KNOBS = 0.05, 3
MOST_DOUBTS = 3
# An interval whose ends are further from its middle than this, as a share, is worth a doubt.
WIDE = 0.15
# How people say a knob's value; all others are named.
PHRASES: dict[str, Callable[[object], str]] = {
    "workers": lambda n: f"{n} worker{'s' if n != 1 else ''}",
    "max_batch_size": lambda n: f"batches of up to {n}" if n != 1 else "no batching",
    "intra_op_threads": lambda n: f"{n} threads a worker",
    "cache_size": lambda n: f"a cache of {n:,} results" if n else "no cache",
    "max_queue_delay_ms": lambda ms: f"a queue delay of {ms:g} ms",
}
# Which bound the answer is quoted at, by the rule that chose it.
RULES = {
    "slo": "the highest rate within the bound",
    "balanced": "the least shortfall from the best over all bounds",
}


def findings(result: Verified, config: StudyConfig) -> dict[str, str]:
    """Heading -> sentence: the answer, what limits it, which knobs mattered, and each doubt."""
    said = {
        "answer": answer_sentence(result, config),
        "cost": _cost(result.answer, config),
        "limit": result.limit,
        "knobs": "" if result.insight is None else _knobs(result.insight),
        "doubts": "\n".join(f"- {doubt}" for doubt in islice(doubts(result, config), MOST_DOUBTS)),
    }
    return {heading: text for heading, text in said.items() if text}


def answer(study: Study, result: Verified) -> dict[str, str]:
    """The findings, from the study file alone; empty while the study is under way."""
    return findings(result, asked(study)) if result.points else {}


def asked(study: Study) -> StudyConfig:
    """What the study was asked for when it was last worked on, as far as it keeps that.

    Not validated again: its cores may be ones that the reader's machine does not have.
    """
    sittings = study.sittings
    return StudyConfig.model_construct(**sittings[-1]["study"] if sittings else {})


def answer_sentence(result: Verified, config: StudyConfig) -> str:
    """What to serve with, how much that takes, and how sure that is."""
    row = result.answer
    if row is None:
        return _nothing(result, config)
    how = "as it is" if row.is_default else f"with {phrase(row.config, result)}"
    serve = f"Serve it {how}: {taken(row)}"
    missed = _missed(row, result, config)
    if not result.proved and not (row.is_default and result.compared):
        return f"{missed}Best so far, not proved. {serve}{_against(row)}."
    if row.is_default:
        return f"{missed}{serve}. {_rivals(row, result)}."
    return f"{missed}{serve}{_against(row)}."


def _rivals(row: BoundRow, result: Verified) -> str:
    """What is known of everything but the default, where that is the answer."""
    if not any(p.configuration != row.configuration for p in result.points):
        return "Nothing was compared with it"
    return f"Nothing that was tried takes {'more' if row.decided else 'surely more'}"


def taken(row: BoundRow) -> str:
    """The rate within the bound, with its interval."""
    return f"{_rate(row.rate_rps)} requests/s {_ends(row.low_rps, row.high_rps)} with p99 <= {bound(row)}"


def bound(row: BoundRow) -> str:
    """The bound on p99, with its unit."""
    return duration(row.p99_ms / 1000)


def times(row: BoundRow) -> str:
    """The ratio to the default with its interval; "" where they were not compared."""
    if row.ratio is None or row.ratio_low is None or row.ratio_high is None:
        return ""
    return f"{row.ratio:.2f}x [{row.ratio_low:.2f}-{row.ratio_high:.2f}]"


def _against(row: BoundRow) -> str:
    if row.is_default or not row.default_rps:
        return ""
    ratio = f", so {times(row)}" if row.ratio is not None else ""
    return f"; the default takes {_rate(row.default_rps)}{ratio}"


def _missed(row: BoundRow, result: Verified, config: StudyConfig) -> str:
    """Said first where what was asked for cannot be had."""
    if result.slo != "missed" or config.slo_p99_ms in (None, row.p99_ms):
        return ""
    return f"Nothing that was tried keeps p99 <= {duration((config.slo_p99_ms or 0) / 1000)}. "


def phrase(config: ServingConfig, result: Verified) -> str:
    """The knobs that differ from the default configuration's, as people say them."""
    base = default_config(result)
    differ = {k: v for k, v in config if v != getattr(base, k)}
    return ", ".join(PHRASES.get(k, partial(named, k))(v) for k, v in differ.items())


def named(knob: str, value: object) -> str:
    """A knob and its value."""
    return f"{knob} {shown(value)}"


def numbers(point: Point) -> str:
    """Throughput and p99 of a point, each with its 95 % interval."""
    m, p99_ms = point.measured, point.measured.p99_ms
    assert p99_ms is not None
    rate = _interval(m.throughput_low_rps, m.throughput_high_rps, 1)
    p99 = _interval(m.p99_low_ms, m.p99_high_ms, longest_ms=m.longest_ms)
    return f"{m.throughput_rps:,.0f}/s{rate} at p99 {latency(p99_ms, m.longest_ms)} ms{p99}"


def _interval(
    low: float | None, high: float | None, count: int = 3, longest_ms: float | None = None
) -> str:
    found = interval(low, high, longest_ms, count, "-")
    return " [undetermined]" if found == UNDETERMINED else f" {found}"


def _rate(rps: float) -> str:
    return digits(rps, 3)


def _ends(low: float, high: float) -> str:
    return f"[{_rate(low)}-{_rate(high)}]"


def _cost(row: BoundRow | None, config: StudyConfig) -> str:
    """Of a million requests; the most requests per second cost the least."""
    if row is None or not config.price_per_hour:
        return ""
    ends = (row.rate_rps, row.high_rps, row.low_rps)
    value, low, high = (
        cost_per_million(Option(end, 0.0), config.price_per_hour) if end else None for end in ends
    )
    cost = f"{digits(value or 0.0)}{_interval(low, high)}"
    return f"a million requests cost {cost} at {config.price_per_hour:g} per hour"


def changes(config: ServingConfig, result: Verified) -> str:
    """The knobs that differ from the default configuration's."""
    return ", ".join(changed(config, default_config(result))) or "the default configuration"


def changed(config: ServingConfig, base: ServingConfig) -> list[str]:
    """The knobs that differ between two configurations, each with the value that the first has."""
    return [named(knob, value) for knob, value in config if value != getattr(base, knob)]


def default_config(result: Verified) -> ServingConfig:
    """What everything else is a change of."""
    default = result.baseline("default")
    return default.config if default else ServingConfig()


def shown(value: object) -> str:
    """A knob's value as people write it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _nothing(result: Verified, config: StudyConfig) -> str:
    if not any(p.measurement for p in result.points):
        return "No recommendation: nothing could be measured"
    if config.constraints.objectives[1:] or config.slo:
        return "No recommendation: nothing that was measured keeps every bound"
    return f"No recommendation: what --recommend {config.rule} goes by was not measured"


def _knobs(insight: Insight) -> str:
    of_capacity, of_p99 = map(_named, insight.importances)
    return f"{of_capacity} of the variation in capacity; {of_p99} of the variation in p99"


def _named(shares: Mapping[str, float]) -> str:
    """The knobs that cause most; the rest is what several do together."""
    named = [(k, s) for k, s in shares.items() if s >= NAMED_SHARE][:NAMED_KNOBS]
    return (
        ", ".join(f"{knob} {share:.0%}" for knob, share in named) or "no single knob matters much"
    )


def doubts(result: Verified, config: StudyConfig) -> Iterator[str]:
    """What makes the answer unsure, the worst first, each with what to do about it."""
    row = result.answer
    if result.unknown:
        yield result.unknown
    if row is not None:
        yield from _doubts_about(row)
    yield from _undecided(result, config)
    if result.disturbed:
        yield f"{result.disturbed}; close other programs and run again"
    if result.drift:
        yield result.drift


def _doubts_about(row: BoundRow) -> Iterator[str]:
    if not row.measured:
        yield (
            f"no load came near {_rate(row.rate_rps)}/s: that is what the measured ones let expect; "
            "check it with dlbench load"
        )
    if row.rate_rps and (row.high_rps - row.low_rps) > 2 * WIDE * row.rate_rps:
        yield "the rate is known within a wide interval; a larger --budget narrows it"


def _undecided(result: Verified, config: StudyConfig) -> Iterator[str]:
    """Bounds other than that on p99, for the point that is nearest to the answer."""
    pick = result.recommended
    for demand in config.constraints.objectives if pick else ():
        if demand.field != "p99_ms" and pick and demand.standing(pick) == "undecided":
            yield f"{demand.text} is undecided: its 95 % interval crosses the bound; a larger --budget narrows it"
