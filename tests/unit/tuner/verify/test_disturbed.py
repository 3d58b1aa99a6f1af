"""That something else ran is said only where a result moved."""

import pytest

from dlbench.tuner.verify.disturbed import mattered, tally
from testbed import made

NOTE = ("other processes used 0.5 of 2 cores (25 %) meanwhile",)


def repeats(p99s, rates=(), disturbed=(), verdicts=()):
    """The repeats of a point, the disturbed ones by number."""
    rates, found = rates or [100] * len(p99s), []
    for number, (p99, rate) in enumerate(zip(p99s, rates, strict=True), 1):
        figures = {"rate": rate, "p99": p99, "verdict": dict(verdicts).get(number, "ok")}
        figures |= {"disturbances": NOTE if number in disturbed else ()}
        found.append(made.point("c01", "verify", repeat=number, **figures))
    return found


def test_all_disturbed_and_none_moved_is_not_worth_a_word():
    points = repeats([10, 11, 9, 10, 12], disturbed={1, 2, 3, 4, 5})
    assert mattered(points) == []
    assert tally(points) == ""


@pytest.mark.parametrize(
    ("changed", "number"),
    [
        ({"p99s": [10, 11, 40, 10, 9]}, 3),
        ({"p99s": [10] * 5, "rates": [100, 100, 100, 60, 100]}, 4),
        ({"p99s": [10] * 5, "verdicts": {2: "unsteady"}}, 2),
    ],
)
def test_the_one_that_moved_is_named(changed, number):
    points = repeats(**changed, disturbed={1, 2, 3, 4, 5})
    assert [p.repeat for p in mattered(points)] == [number]
    assert tally(points) == (
        "1 of 5 measurements were disturbed and gave different results, such as c01@0.5: " + NOTE[0]
    )


def test_what_moved_by_itself_is_no_disturbance():
    assert mattered(repeats([10, 11, 40, 10, 9], disturbed={1, 2})) == []


def test_a_search_s_look_is_not_compared_with_verification():
    """One look at a p99, of other length, says nothing of the others."""
    look = made.point("c01", p99=50, disturbances=NOTE)
    assert mattered([look, *repeats([10, 11, 9])]) == []
