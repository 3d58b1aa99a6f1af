"""The promises of `dlbench tune` on real processes: its time, its lock, and that it goes on."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from dlbench.tuner.storage.lock import locked
from dlbench.tuner.storage.study import Identity, Study
from testbed.commands import dlbench, started

# The longest measurement of so short a study, with what comes before and after it.
WINDOW_S = 1.5 + 3.0


def tune(folder, model, *arguments):
    return started("tune", model, "--study", "s.db", *arguments, cwd=folder)


def again(folder, model, *arguments):
    return dlbench("tune", model, "--study", "s.db", *arguments, cwd=folder, timeout=300)


def read_until(process, *beginnings):
    for line in process.stderr:
        if line.startswith(beginnings):
            return line
    raise AssertionError(f"it ended before it said {beginnings}: {process.wait()}")


def end(process):
    """Kill it; what it started ends by itself."""
    children = (
        psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    )
    process.kill()
    process.communicate()
    _, left = psutil.wait_procs(children, timeout=30)
    assert not left


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("model", "budget_s"), [("demo:mlp", 20), ("slow", 60)])
def test_a_study_ends_in_time_and_just_reports_when_it_is_asked_again(
    models, tmp_path, model, budget_s
):
    """At most the budget, a window and the start of the server, whatever else the machine does."""
    model = models.slow() if model == "slow" else model
    began = time.monotonic()
    process = tune(tmp_path, model, "--budget", f"{budget_s}s")
    try:
        read_until(process, "note:", "error:")
        start_s = time.monotonic() - began
        out, said = process.communicate(timeout=500)
    finally:
        process.kill()
    took_s = time.monotonic() - began
    assert "Traceback" not in said
    assert took_s <= max(budget_s, start_s) + start_s + WINDOW_S + budget_s / 20
    if process.returncode == 1:  # a machine so busy that the start took it all
        assert "leaves no time to measure anything" in said
        return
    assert "the budget left no time" in " ".join(out.split())
    study = Study.open(tmp_path / "s.db")
    assert study.spent_s <= took_s
    assert not (tmp_path / "s.db.lock").exists()
    done = again(tmp_path, model, "--budget", f"{budget_s}s")
    assert done.stdout.splitlines()[:-1] == out.splitlines()[:-1]
    assert "nothing is measured again" in done.stderr
    assert Study.open(tmp_path / "s.db").points() == study.points()


@pytest.mark.parametrize("arguments", [[], ["--fresh"], ["--budget", "20s"]])
def test_a_second_one_is_refused_with_who_holds_the_study(tmp_path, arguments):
    study = Study.create_or_resume(tmp_path / "s.db", Identity({"model": "a", "device": "cpu"}))
    with locked(study.path, "dlbench tune a.onnx --budget 5m"):
        second = again(tmp_path, "demo:mlp", *arguments)
        kept = Study.open(study.path).identity
        seen = dlbench("report", "s.db", cwd=tmp_path)
    assert second.returncode == 1
    assert second.stdout == ""
    assert f"is in use by process {os.getpid()}, since " in second.stderr
    assert "(dlbench tune a.onnx --budget 5m)" in second.stderr
    assert second.stderr.count("\n") == 1
    assert kept == study.identity
    assert seen.returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_calibration_that_was_killed_goes_on_with_the_parts_that_were_kept(models, tmp_path):
    model, path = models.affine(), tmp_path / "s.db"
    process = tune(tmp_path, model, "--budget", "600s")
    try:
        read_until(process, "note: calibrating")
        while not Study.open(path).calibration.get("parts"):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    finally:
        end(process)
    kept = Study.open(path)
    first = next(iter(kept.calibration["parts"].values()))["times"]
    assert kept.spent_s > 0
    process = tune(tmp_path, model, "--budget", "600s")
    try:
        read_until(process, "note: predicting")
    finally:
        end(process)
    times = Study.open(path).calibration["calibration"]["services"]
    assert all(one in times for one in first)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_ctrl_c_in_the_calibration_takes_one_line(models, tmp_path):
    process = tune(tmp_path, models.affine(), "--budget", "600s")
    try:
        read_until(process, "note: calibrating")
        while not Study.open(tmp_path / "s.db").calibration.get("parts"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=300)
    finally:
        end(process)
    assert process.returncode in (130, -signal.SIGINT)
    assert out == ""
    lines = [line for line in said.splitlines() if not line.startswith("note: ")]
    assert lines == ["interrupted: s.db keeps what was measured; resume with the same command"]


def test_a_folder_that_may_not_be_written_to_is_refused_before_anything_starts(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    done = again(tmp_path, "demo:mlp")
    assert done.returncode == 2
    assert "cannot write a file there" in done.stderr
    assert list(Path(tmp_path).iterdir()) == []
