import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dlbench.tuner.twin.calibration import Calibration, ServiceTime

SERVICES = st.lists(
    st.builds(
        ServiceTime,
        batch=st.integers(1, 64),
        threads=st.sampled_from((1, 2, 4)),
        busy=st.integers(1, 6),
        seconds=st.floats(1e-5, 1.0),
    ),
    min_size=1,
    max_size=20,
)


def service(batch, threads, busy, seconds):
    return ServiceTime(batch=batch, threads=threads, busy=busy, seconds=seconds)


def measured(seconds, cores=2):
    """A calibration of {(batch, threads, busy): seconds}."""
    services = [service(*cell, took) for cell, took in seconds.items()]
    return Calibration(services=services, cores=cores)


def test_between_batch_sizes_it_is_linear_and_beyond_along_the_last_slope():
    calibration = measured({(1, 1, 1): 1.0, (4, 1, 1): 4.0, (8, 1, 1): 6.0})
    assert calibration.service_s(2) == pytest.approx(2.0)
    assert calibration.service_s(6) == pytest.approx(5.0)
    assert calibration.service_s(16) == pytest.approx(10.0)


def test_what_is_below_the_smallest_batch_measured_takes_as_long_as_that():
    assert measured({(4, 1, 1): 1.0, (8, 1, 1): 2.0}).service_s(1) == 1.0


def test_one_batch_size_alone_promises_nothing_of_larger_ones():
    assert measured({(2, 1, 1): 1.0}).service_s(8) == pytest.approx(4.0)


def test_a_batch_not_measured_on_a_busy_machine_is_slowed_down_as_its_neighbours_are():
    calibration = measured({(1, 1, 1): 1.0, (3, 1, 1): 2.0, (8, 1, 1): 3.0, (1, 1, 3): 2.0})
    assert calibration.service_s(8, busy=3) == pytest.approx(6.0)
    assert calibration.service_s(8, busy=2) == pytest.approx(4.5)


def test_more_workers_than_were_measured_share_the_cores():
    calibration = measured({(1, 1, 1): 1.0, (1, 1, 2): 1.1}, cores=2)
    assert calibration.service_s(1, busy=4) == pytest.approx(2.2)
    spare = measured({(1, 1, 1): 1.0, (1, 1, 2): 1.1}, cores=8)
    assert spare.service_s(1, busy=8) == pytest.approx(1.1)


def test_another_number_of_threads_is_taken_for_the_nearest_that_was_measured():
    calibration = measured({(1, 1, 1): 3.0, (1, 4, 1): 1.0}, cores=8)
    assert calibration.service_s(1, threads=2) == 3.0
    assert calibration.service_s(1, threads=8) == 1.0


@settings(max_examples=40)
@example([service(1, 4, 1, 0.5), service(1, 4, 2, 1.0), service(2, 4, 2, 1.0)], 1)
@given(SERVICES, st.integers(1, 16))
def test_noise_never_makes_a_larger_batch_or_a_busier_machine_quicker(services, cores):
    calibration = Calibration(services=services, cores=cores)
    for threads in (1, 2, 4):
        table = calibration.services_s(80, threads, 8)
        assert table.shape == (8, 80)
        slack = 1 + 1e-9
        assert (table[:, 1:] * slack >= table[:, :-1]).all()
        assert (table[1:] * slack >= table[:-1]).all()
        assert table[3, 17] == pytest.approx(calibration.service_s(18, threads, 4))


@given(SERVICES)
def test_a_calibration_survives_being_stored(services):
    calibration = Calibration(services=services, client_rps=1000.0)
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


def test_nothing_measured_is_no_calibration():
    with pytest.raises(ValidationError, match="service time"):
        Calibration(services=())


def test_a_client_may_be_asked_for_less_than_it_can_do():
    services = (ServiceTime(batch=1, seconds=1.0),)
    assert Calibration(services=services, client_rps=1000.0).drivable_rps == 800.0
    assert Calibration(services=services).drivable_rps == float("inf")
