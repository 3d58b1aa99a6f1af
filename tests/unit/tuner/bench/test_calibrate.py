"""How long a calibration's loops last: enough of what they are to see, within a bound."""

import pytest

from dlbench.tuner.bench.calibrate import LONGEST_S, RUN_S, closed_s, open_s
from dlbench.tuner.errors import TuneError
from dlbench.tuner.twin.calibration import Calibration, ServiceTime


def taking(row_s):
    return Calibration(services=[ServiceTime(batch=1, seconds=row_s)])


def test_quick_models_are_looked_at_as_long_as_ever():
    assert closed_s(taking(1e-3)) == RUN_S
    assert open_s(1000.0) == RUN_S


@pytest.mark.parametrize("row_s", [0.15, 0.5, 1.8])
def test_a_slow_model_answers_while_it_is_looked_at(row_s):
    """Batches of eight: the first of them has to be done before the loop ends, and some more."""
    assert LONGEST_S >= closed_s(taking(row_s)) >= 2 * 8 * row_s
    light_rps = 0.25 / row_s
    assert LONGEST_S >= open_s(light_rps) >= min(LONGEST_S, 15 / light_rps)


def test_a_model_that_is_too_slow_is_refused_with_what_it_takes():
    with pytest.raises(TuneError, match=r"8 rows take 16\.0 s"):
        closed_s(taking(2.0))
