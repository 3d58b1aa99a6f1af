"""What a study found, in plain sentences: for the terminal and for the recommended file. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlbench.tuner.verify import TRUSTED_REQUESTS, is_indicative

if TYPE_CHECKING:
    from dlbench.tuner.config import StudyConfig
    from dlbench.tuner.point import Point
    from dlbench.tuner.verify import Verified

BASELINES = ("naive", "default")


def findings(result: Verified, config: StudyConfig) -> list[str]:
    """The recommendation, how it compares with the baselines, and what is uncertain about it."""
    pick = result.recommended
    if pick is None:
        return [_nothing(result, config)]
    return [
        f"recommended: {numbers(pick)} ({pick.name})",
        *(_against(name, pick, result) for name in BASELINES if result.baseline(name)),
        *_slo(result, config),
        *_doubts(result, pick),
    ]


def numbers(point: Point) -> str:
    """Throughput and p99 of a point, each with its 95 % interval."""
    m = point.measurement
    assert m is not None
    rate = _interval(m.throughput_low_rps, m.throughput_high_rps, "{:,.0f}")
    p99 = _interval(m.p99_low_ms, m.p99_high_ms, "{:.3g}")
    return f"{m.throughput_rps:,.0f}/s{rate} at p99 {m.p99_ms:.3g} ms{p99}"


def _interval(low: float | None, high: float | None, form: str) -> str:
    if low is None or high is None:
        return " [undetermined]"
    return f" [{form.format(low)}-{form.format(high)}]"


def _against(name: str, pick: Point, result: Verified) -> str:
    other = result.baseline(name)
    assert other is not None
    if other.config == pick.config:
        return f"{name} is the same configuration"
    ours, theirs = pick.measurement, other.measurement
    assert ours is not None
    assert theirs is not None
    factor = ours.throughput_rps / theirs.throughput_rps if theirs.throughput_rps else 0.0
    return f"{name}: {numbers(other)}; the recommendation takes {factor:.2g}x its throughput"


def _nothing(result: Verified, config: StudyConfig) -> str:
    if config.slo_p99_ms is not None and result.front:
        best = min(p.measurement.p99_ms or 0.0 for p in result.front if p.measurement)
        return (
            f"nothing holds p99 <= {config.slo_p99_ms:g} ms: the lowest p99 on the front is "
            f"{best:.3g} ms"
        )
    return "nothing can be recommended: no operating point held up when it was measured again"


def _slo(result: Verified, config: StudyConfig) -> list[str]:
    bound = f"p99 <= {config.slo_p99_ms or 0:g} ms"
    texts = {
        "met": f"{bound} is met: the whole 95 % interval lies below it",
        "undecided": f"{bound} is undecided: the 95 % interval crosses it; a longer --budget decides",
    }
    return [texts[result.slo]] if result.slo in texts else []


def _doubts(result: Verified, pick: Point) -> list[str]:
    found = []
    if is_indicative(pick):
        found.append(
            f"its p99 rests on fewer than {TRUSTED_REQUESTS:,} requests: indicative; "
            "a longer --budget measures it better"
        )
    if pick.measurement and pick.measurement.p99_low_ms is None:
        found.append(
            "its interval is undetermined: too few of its repeats could be used, or they say too "
            "little; a longer --budget tells more"
        )
    if pick.measurement and pick.measurement.verdict == "unsteady":
        found.append(f"it was unsteady: {pick.measurement.reason}")
    if len(result.front) == 1:
        found.append("the front is a single point: no other load or configuration trades well")
    return found
