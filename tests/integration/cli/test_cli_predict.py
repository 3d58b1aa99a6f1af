"""`dlbench predict` as a person calls it."""

import functools
import json

import numpy as np
import pytest

from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.models.demo import demo_path
from dlbench.proxy.settings import ServerSettings
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.kept_calibration import KeptCalibration
from testbed.commands import dlbench

SERVICES = (ServiceTime(batch=1, seconds=0.002), ServiceTime(batch=8, seconds=0.004))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A calibration of demo:mlp that is round, so that the twin's answers are known."""
    path = tmp_path_factory.mktemp("kept") / "mlp.json"
    calibration = Calibration(
        services=SERVICES,
        front_s=2e-6,
        hit_s=1e-6,
        cores=8,
        worker_rss_mb=100.0,
        memory_mb=1000.0,
    )
    demo_path("mlp")
    settings = ServerSettings(model="demo:mlp")
    KeptCalibration.of(settings, LoadProfile(), calibration).write(path)
    return path


@pytest.fixture
def predict(run_here):
    return functools.partial(run_here, "predict")


@pytest.fixture
def figures(predict):
    def found(*arguments):
        done = predict(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return found


def test_figures_for_machines(kept, figures):
    found = figures("demo:mlp", "--calibration", kept, "--rate", 100, "--workers", 2)
    assert found["throughput_rps"] == pytest.approx(100, rel=0.05)
    assert found["capacity_rps"] == pytest.approx(2 * 8 / 0.004, rel=0.05)
    assert found["p50_ms"] == pytest.approx(2, rel=0.05)
    assert found["p99_ms"] > found["p50_ms"]
    assert found["limit"].startswith("the workers")
    assert found["configuration"]["workers"] == 2
    assert not found["overloaded"]


def test_what_queueing_theory_says_stands_beside_it(kept, figures):
    found = figures("demo:mlp", "--calibration", kept, "--rate", 250, "--workers", 1)
    theory = found["queueing"]
    assert theory["queue"] == "M/M/1"
    assert theory["mean_ms"] == pytest.approx(4)
    assert theory["in_flight"] == pytest.approx(1)
    assert found["in_flight"] == pytest.approx(250 * found["mean_ms"] / 1000, rel=0.01)
    assert found["mean_ms"] < theory["mean_ms"]
    assert [reason for reason in theory["left_out"] if "vary less" in reason]
    asked = dlbench(
        "predict", "demo:mlp", "--calibration", kept, "--rate", 250, "--workers", 1
    ).stdout
    assert "M/M/1 leaves out: " in asked
    assert all(len(line) <= 80 for line in asked.splitlines())


def test_a_queue_without_batches_may_have_no_steady_state(kept, figures):
    known = ("demo:mlp", "--calibration", kept, "--rate", 700, "--workers", 1)
    assert figures(*known)["queueing"]["p99_ms"] == "Infinity"
    assert "grows" in dlbench("predict", *known).stdout


def test_what_a_person_reads(kept):
    done = dlbench("predict", "demo:mlp", "--calibration", kept, "--rate", 10_000, "--workers", 1)
    assert done.returncode == 0
    for word in ("throughput", "p99", "mean batch", "workers busy", "capacity", "limited by"):
        assert word in done.stdout
    assert "the rate exceeds the capacity" in done.stdout


@pytest.mark.slow
def test_a_cache_is_predicted_with_the_stated_repetition(kept, figures):
    known = ("demo:mlp", "--calibration", kept, "--rate", 100, "--workers", 1)
    assert figures(*known, "--cache-size", 100)["hit_ratio"] == 0
    repeated = figures(*known, "--cache-size", 100, "--distinct", 50)
    assert repeated["hit_ratio"] > 0.9
    assert repeated["p50_ms"] < figures(*known)["p50_ms"]


def test_a_cache_is_predicted_with_the_rows_of_the_data(kept, tmp_path, figures):
    """They come in turn: whoever holds fewer has just let go of the one that comes next."""
    np.save(tmp_path / "rows.npy", np.zeros((40, 3), np.float32))
    known = ("demo:mlp", "--calibration", kept, "--rate", 100, "--data", tmp_path / "rows.npy")
    assert figures(*known, "--cache-size", 30)["hit_ratio"] == 0
    assert figures(*known, "--cache-size", 40)["hit_ratio"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--rate", 10, "--workers", 17], 2, "17 threads on 8 cores"),
        (["--rate", 10, "--workers", 11], 2, "needs 1,100 MB of 1,000 MB"),
        ([], 2, "--rate is missing"),
        (["--rate", 10, "--workers", 300], 2, "--workers 300"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(kept, arguments, code, text, predict):
    done = dlbench("predict", "demo:mlp", "--calibration", kept, *arguments)
    assert done.returncode == code
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_a_calibration_of_other_requests_is_refused(kept, predict):
    done = dlbench("predict", "demo:mlp", "--calibration", kept, "--rate", 10, "--encoding", "json")
    assert done.returncode == 1
    assert "another --encoding" in done.stderr


def test_a_calibration_of_another_model_is_refused(kept, models, predict):
    done = predict(models.affine(), "--calibration", kept, "--rate", 10)
    assert done.returncode == 1
    assert "another model" in done.stderr


@pytest.mark.slow
def test_without_a_calibration_the_machine_is_measured_and_that_is_kept(models, tmp_path, figures):
    path = tmp_path / "affine.json"
    model = models.affine()
    first = figures(model, "--rate", 50, "--workers", 1, "--calibration", path)
    assert first["throughput_rps"] == pytest.approx(50, rel=0.1)
    again = figures(model, "--rate", 50, "--workers", 1, "--calibration", path)
    assert again == first
