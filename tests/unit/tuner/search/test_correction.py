"""Predictions corrected by measurements: smoothing, intervals, and twins that are wrong."""

import math

import numpy as np
import pytest

from dlbench.tuner.search.correction import (
    CAPACITY_NOISE,
    Correction,
    Residual,
    for_choice,
    for_report,
    noise,
)
from dlbench.tuner.twin.predictions import MOST_LOAD, Predictions, coordinates
from testbed import made

SHARES = made.SHARES


@pytest.fixture
def space():
    return made.space(repeats_inputs=True)


@pytest.fixture
def twin(space):
    return made.predictions(space)


def study(twin, rows, rng, capacity=lambda row: 1.0, tail=lambda row: 1.0, repeats=1):
    """Measurements that are off the predictions by these factors, with the machine's noise."""
    points = []
    for number, row in enumerate(rows):
        config, name = twin.configs[row], f"c{number}"
        true = twin.capacity_rps[row] * capacity(row)
        probed = true * math.exp(0.07 * rng.normal())
        points.append(made.point(name, "probe", None, config=config, rate=probed))
        for share in SHARES * repeats:
            load = share * probed / true
            p99 = math.exp(twin.log_p99_at(row, load)) * tail(row) * math.exp(0.27 * rng.normal())
            points.append(
                made.point(name, share=share, config=config, rate=share * probed, p99=p99)
            )
    return points


def rows_of(twin, rng, count=12):
    return rng.choice(len(twin.configs), size=count, replace=False).tolist()


def test_coordinates_lie_in_the_unit_cube_and_differ(space):
    configs = list(space.configurations())
    points = coordinates(space, configs)
    assert points.min() == 0
    assert points.max() == 1
    assert len(np.unique(points, axis=0)) == len(configs)


def test_predictions_that_are_no_numbers_are_refused(space):
    for capacity, p99 in ((np.inf, 1.0), (1.0, np.nan), (0.0, 1.0)):
        with pytest.raises(ValueError, match="finite"):
            Predictions.of(space, [made.DEFAULT], (0.5,), np.array([capacity]), np.array([[p99]]))
    with pytest.raises(ValueError, match="one p99 per share"):
        Predictions.of(space, [made.DEFAULT], SHARES, np.ones(1), np.ones((1, 2)))


@pytest.mark.parametrize("share", [0.3, 0.42, 0.9, 0.95])
def test_between_and_beyond_the_loads_p99_grows_as_waiting_does(twin, share):
    expected = math.log(2 * math.sqrt(twin.configs[0].max_batch_size) / (1 - share))
    assert twin.log_p99_at(0, share) == pytest.approx(expected)
    assert twin.log_p99_at(0, 2.0) == twin.log_p99_at(0, MOST_LOAD)


def test_with_nothing_measured_the_predictions_stand(twin):
    throughput, p99 = Correction.of([], twin).curves()
    assert throughput == pytest.approx(twin.capacity_rps[:, None] * np.array(SHARES))
    assert p99 == pytest.approx(twin.p99_ms)


def test_a_common_factor_is_learnt_and_is_not_called_wrong(twin):
    rng = np.random.default_rng(0)
    points = study(twin, rows_of(twin, rng), rng, lambda _: 0.6, lambda _: 1.5)
    correction = Correction.of(points, twin)
    throughput, p99 = correction.curves()
    assert not correction.wrong
    assert np.median(throughput[:, 0] / (0.3 * twin.capacity_rps)) == pytest.approx(0.6, rel=0.1)
    assert np.median(p99 / twin.p99_ms) == pytest.approx(1.5, rel=0.2)


def test_a_twin_that_mistakes_configurations_is_wrong_but_only_after_eight(twin):
    rng = np.random.default_rng(1)
    rows = rows_of(twin, rng, 30)
    off = lambda row: 2.0 if twin.configs[row].max_batch_size > 8 else 0.5  # noqa: E731
    points = study(twin, rows, rng, off)
    early = [p for p in points if p.configuration in {f"c{n}" for n in range(7)}]
    assert Correction.of(early, twin).spread is None
    assert Correction.of(points, twin).wrong
    throughput, _ = Correction.of(points, twin).curves()
    large = np.array([c.max_batch_size > 16 for c in twin.configs])
    ratio = throughput[:, 0] / (0.3 * twin.capacity_rps)
    assert np.median(ratio[large]) > 1.8 * np.median(ratio[~large])


def test_smoothed_values_are_nearer_the_truth_and_the_best_of_them_is_no_luck(twin):
    """The raw minimum of noisy p99s is far too good; the smoothed one is not."""
    raw, smoothed, errors = [], [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        points = study(twin, rows_of(twin, rng, 20), rng)
        estimates = Correction.of(points, twin).estimates([p for p in points if p.share])
        truth = {p.name: math.exp(_true(p, twin)) for p in points if p.share == 0.5}
        best = min(truth, key=lambda name: _named(points, name).measurement.p99_ms / truth[name])
        raw.append(math.log(_named(points, best).measurement.p99_ms / truth[best]))
        smoothed.append(math.log(estimates[best].p99_ms / truth[best]))
        errors += [math.log(estimates[name].p99_ms / truth[name]) for name in truth]
    assert np.median(raw) < -0.35
    assert abs(np.median(smoothed)) < 0.15
    assert abs(np.median(errors)) < 0.08


def _named(points, name):
    return next(p for p in points if p.name == name)


def _true(point, twin):
    row = twin.rows[point.config]
    return twin.log_p99_at(row, point.measurement.offered_rps / twin.capacity_rps[row])


def test_intervals_hold_the_truth_about_as_often_as_they_say(twin):
    held = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        quirks = np.exp(0.1 * rng.normal(size=len(twin.configs)))
        points = study(twin, rows_of(twin, rng, 15), rng, tail=quirks.__getitem__)
        ran = [p for p in points if p.share]
        estimates = Correction.of(points, twin).estimates(ran)
        for p in ran:
            truth = math.exp(_true(p, twin)) * quirks[twin.rows[p.config]]
            held.append(estimates[p.name].p99_low_ms <= truth <= estimates[p.name].p99_high_ms)
    assert 0.85 <= np.mean(held) <= 1.0


def test_near_capacity_an_interval_allows_for_a_capacity_that_is_off(twin):
    """A load of 0.9 may be one of 0.84 or 0.97: repeats at the same rate never show which."""
    held = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        points = study(twin, rows_of(twin, rng, 8), rng, repeats=4)
        ran = [p for p in points if p.share == SHARES[-1]]
        estimates = Correction.of(points, twin).estimates(ran)
        held += [
            e.p99_low_ms <= math.exp(_true(_named(ran, name), twin)) <= e.p99_high_ms
            for name, e in estimates.items()
        ]
    assert np.mean(held) >= 0.9


def test_what_was_offered_is_the_throughput_as_far_as_capacity_goes(twin):
    rng = np.random.default_rng(3)
    points = study(twin, [0, 1, 2], rng)
    for name, estimate in Correction.of(points, twin).estimates(points).items():
        offered = _named(points, name).measurement.offered_rps
        assert estimate.throughput_low_rps <= estimate.throughput_rps <= offered * (1 + 1e-9)
        assert estimate.p99_low_ms < estimate.p99_ms < estimate.p99_high_ms


def test_configurations_that_were_not_predicted_are_left_out(twin):
    stranger = made.DEFAULT.model_copy(update={"max_batch_size": 7})
    points = [made.point("x", "probe", None, config=stranger), made.point("x", config=stranger)]
    correction = Correction.of(points, twin)
    assert correction.estimates(points) == {}
    assert correction.curves()[1] == pytest.approx(twin.p99_ms)


def test_noise_is_what_repeats_differ_by():
    rng = np.random.default_rng(4)
    quiet = [Residual(row, 0.5, row + 0.01 * rng.normal()) for row in range(40) for _ in range(5)]
    assert noise(quiet, 0.3) == pytest.approx(0.01, rel=7)
    assert noise(quiet, 0.01) == pytest.approx(0.01, rel=0.2)
    loud = [Residual(0, 0.5, 0.5 * rng.normal()) for _ in range(200)]
    assert noise(loud, 0.07) == pytest.approx(0.5, rel=0.15)


def test_without_repeats_noise_is_what_it_usually_is():
    assert noise([Residual(row, 0.5, row) for row in range(9)], CAPACITY_NOISE) == CAPACITY_NOISE
    assert noise([], CAPACITY_NOISE) == CAPACITY_NOISE


def test_who_chooses_is_not_who_reports():
    probe = made.point("c1", "probe", None)
    chosen, other = made.point("c1", share=0.7), made.point("c1", share=0.5)
    repeats = [made.point("c1", "verify", 0.7, repeat=n) for n in range(1, 7)]
    points = [probe, chosen, other, *repeats]
    choosing, reported = for_choice(points), for_report(points)
    assert [p.repeat for p in choosing] == [0, 0, 0, 2, 4, 6]
    assert [p.repeat for p in reported] == [0, 0, 1, 3, 5]
    assert chosen in choosing
    assert chosen not in reported
    assert for_report([probe, chosen, other]) == for_choice([probe, chosen, other])


def test_a_load_beyond_the_capacity_is_neither_smoothed_nor_learnt_from(twin):
    points = study(twin, [3], np.random.default_rng(0))
    beyond = points[-1].model_copy(update={"share": 1.4})
    found = Correction.of([*points, beyond], twin).estimates([*points, beyond])
    assert found == Correction.of(points, twin).estimates(points)
    assert beyond.name not in found
