"""What a study found, in a handful of plain sentences: for the terminal and the recommended file. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.loadgen.analysis.differences import compare_figures, excludes_one, reported
from dlbench.loadgen.quantity import (
    HIGHER,
    UNDETERMINED,
    change,
    change_interval,
    digits,
    interval,
    latency,
)
from dlbench.proxy.config import ServingConfig
from dlbench.tuner.constraint import figure
from dlbench.tuner.recommend import Option, cost_per_million
from dlbench.tuner.study_config import StudyConfig
from dlbench.tuner.verify.pool import TRUSTED_REQUESTS, is_indicative

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dlbench.loadgen.analysis.differences import Difference
    from dlbench.loadgen.measurement import Measurement
    from dlbench.tuner.constraint import Demand
    from dlbench.tuner.point import Point
    from dlbench.tuner.search.insight import Insight
    from dlbench.tuner.storage.study import Study
    from dlbench.tuner.verify.verification import Verified

BASELINES = ("naive", "default")
# A knob is named if it causes so much of the variance, and not more than so many are.
NAMED_SHARE, NAMED_KNOBS = 0.05, 3


def findings(result: Verified, config: StudyConfig) -> dict[str, str]:
    """Heading -> sentence: what to use, what it gives, what limits it, what mattered, what is unsure."""
    pick = result.recommended
    said = {
        "use": _nothing(result, config) if pick is None else _use(pick, result, config),
        "gain": "" if pick is None else _gain(pick, result),
        "limit": result.limit,
        "knobs": "" if result.insight is None else _knobs(result.insight),
        "uncertain": "; ".join(_doubts(result, config)),
        "unknown": result.unknown,
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


def _use(pick: Point, result: Verified, config: StudyConfig) -> str:
    held = [o.text for o in config.constraints.objectives if o.standing(pick) == "met"]
    missed = [o.text for o in config.constraints.objectives if o.standing(pick) == "missed"]
    said = [f"{pick.name}, {changes(pick.config, result)}: {numbers(pick)}"]
    said += [f"{' and '.join(held)} met by the whole 95 % interval"] if held else []
    said += [f"{' and '.join(missed)} MISSED by the whole 95 % interval"] if missed else []
    if config.price_per_hour:
        said.append(_cost(pick.measured, config.price_per_hour))
    return "; ".join(said)


def _cost(m: Measurement, price_per_hour: float) -> str:
    """Of a million requests; the most requests per second cost the least."""
    ends = (m.throughput_rps, m.throughput_high_rps, m.throughput_low_rps)
    value, low, high = (
        cost_per_million(Option(end, 0.0), price_per_hour) if end else None for end in ends
    )
    cost = f"{digits(value or 0.0)}{_interval(low, high)}"
    return f"a million requests cost {cost} at {price_per_hour:g} per hour"


def changes(config: ServingConfig, result: Verified) -> str:
    """The knobs that differ from the default configuration's."""
    return ", ".join(changed(config, default_config(result))) or "the default configuration"


def changed(config: ServingConfig, base: ServingConfig) -> list[str]:
    """The knobs that differ between two configurations, each with the value that the first has."""
    return [f"{knob} {shown(value)}" for knob, value in config if value != getattr(base, knob)]


def default_config(result: Verified) -> ServingConfig:
    """What everything else is a change of."""
    default = result.baseline("default")
    return default.config if default else ServingConfig()


def shown(value: object) -> str:
    """A knob's value as people write it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _gain(pick: Point, result: Verified) -> str:
    others = [other for name in BASELINES if (other := result.baseline(name))]
    return "; ".join(_against(other, pick) for other in others)


def _against(other: Point, pick: Point) -> str:
    name = other.configuration
    if other.config == pick.config:
        return f"{name} is the same configuration"
    if other.outcome is None:
        return f"{name} failed re-measurement"
    found = compare_figures(reported(other.measured), reported(pick.measured))
    more, longer = found["throughput_rps"], found["p99_ms"]
    sure = excludes_one(more.interval) or excludes_one(longer.interval)
    unsure = "" if sure else ", no significant difference"
    return f"against {name}: throughput {_changed(more)}, p99 {_changed(longer)}{unsure}"


def _changed(times: Difference) -> str:
    """The larger over the smaller, and the interval of that."""
    low, high = times.interval
    ends = change_interval(low, high, HIGHER)
    return f"{change(times.ratio or 1.0, HIGHER)} [{ends}]"


def _nothing(result: Verified, config: StudyConfig) -> str:
    if not any(p.measurement for p in result.points):
        return "No recommendation: nothing was measured again"
    if not result.front:
        return "No recommendation: every candidate failed re-measurement"
    if not config.constraints.objectives:
        return f"No recommendation: the figure that --recommend {config.rule} uses was not measured"
    best = min(result.front, key=lambda p: p.measured.p99_ms or 0.0)
    return (
        "No recommendation: no operating point meets every bound; the lowest p99 is that of "
        f"{best.name}, {numbers(best)}"
    )


def _knobs(insight: Insight) -> str:
    of_capacity, of_p99 = map(_named, insight.importances)
    return f"{of_capacity} of the variation in capacity; {of_p99} of the variation in p99"


def _named(shares: Mapping[str, float]) -> str:
    """The knobs that cause most; the rest is what several do together."""
    named = [(k, s) for k, s in shares.items() if s >= NAMED_SHARE][:NAMED_KNOBS]
    return (
        ", ".join(f"{knob} {share:.0%}" for knob, share in named) or "no single knob matters much"
    )


def _doubts(result: Verified, config: StudyConfig) -> Iterator[str]:
    pick = result.recommended
    about = [pick] if pick else result.front
    for objective in config.constraints.objectives:
        yield from _undecided(objective, about)
    if pick is not None:
        yield from _doubts_about(pick, result)
    if len(result.front) == 1:
        yield "the front is a single point: no other load or configuration is a useful trade-off"
    if result.insight is not None:
        yield from _about_twin(result.insight)
    yield from filter(None, (result.drift, result.disturbed))


def _undecided(objective: Demand, about: list[Point]) -> Iterator[str]:
    """Which way a bound looks, for the point that is nearest to it."""
    open_ones = [p for p in about if objective.standing(p) == "undecided"]
    if not open_ones:
        return
    nearest = min(open_ones, key=lambda p: objective.violation(figure(p, objective.field)))
    seems = "met" if objective.violation(figure(nearest, objective.field)) <= 0 else "missed"
    yield f"{objective.text} is UNDECIDED: probably {seems}, the 95 % interval crosses it"


def _doubts_about(pick: Point, result: Verified) -> Iterator[str]:
    m = pick.measured
    if is_indicative(pick):
        yield f"p99 is indicative, from {m.requests:,} requests and not {TRUSTED_REQUESTS:,}"
    if m.p99_low_ms is None:
        yield (
            "the interval of p99 is undetermined: too few usable repeats, or too little data "
            "in them"
        )
    if pick.name in result.smoothed:
        yield "the interval of p99 is smoothed over the study: its own samples cannot determine it"
    if m.verdict == "unsteady":
        yield f"{pick.name} was unsteady: {m.reason}"


def _off(error: float) -> str:
    """An error, which is 1 for half and for double, as people say it."""
    return f"{error:.0%}" if error < 1 else f"{digits(1 + error, 2)} times"


def _about_twin(insight: Insight) -> Iterator[str]:
    if insight.error is not None:
        throughput, p99 = insight.error
        yield (
            f"the twin was off by {_off(throughput.median)} in throughput and {_off(p99.median)} "
            "in "
            f"p99 in the median, {_off(throughput.p90)} and {_off(p99.p90)} at the 90th percentile"
        )
    if insight.wrong:
        yield (
            f"the twin is WRONG here, its errors spread by {insight.spread:.2f}: measurements were "
            "trusted more, and every third proposal did not come from it"
        )
