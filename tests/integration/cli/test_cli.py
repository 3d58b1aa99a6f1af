"""The commands as a person runs them: real processes, real sockets, real files."""

import csv
import json
import os
import re
import signal
import tomllib
from contextlib import contextmanager

import httpx
import psutil
import pytest

from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig, physical_cores
from dlbench.tuner.plan import Plan
from dlbench.tuner.space import build_space
from dlbench.tuner.storage.study import Study
from dlbench.tuner.study_config import StudyConfig
from dlbench.tuner.twin.calibration import Calibration
from dlbench.tuner.twin.foresight import foresee, load_of
from testbed.commands import dlbench, started


@contextmanager
def serving(*arguments):
    """A `dlbench serve` in the background; yields its process and its URL once it is ready."""
    process = started("serve", *arguments, "--port", 0, stdout=None)
    try:
        first = process.stderr.readline()
        found = re.search(r"http://\S+", first)
        assert found, first + process.stderr.read()
        yield process, found[0]
    finally:
        ended(process)
        process.stderr.close()


def ended(process):
    """The end that Ctrl-C brings about, and in any case an end; what it still said."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=60)
    finally:
        process.kill()


@pytest.fixture(scope="module")
def mlp_url():
    with serving("demo:mlp") as (_, url):
        yield url


def test_serve_answers_until_ctrl_c_and_then_exits_cleanly():
    with serving("demo:mlp", "--workers", 1, "--name", "mine") as (process, url):
        assert httpx.get(f"{url}/v2/health/ready").status_code == 200
        assert httpx.get(f"{url}/v2/models/mine").json()["name"] == "mine"
    assert process.returncode == 0


def test_a_script_starts_a_quiet_server_and_reads_where_it_is():
    process = started("serve", "demo:mlp", "--workers", 1, "--port", 0, "-q", "--json")
    try:
        said = "".join(iter(process.stdout.readline, "}\n")) + "}"  # the document's last line
        url = json.loads(said)["url"]
        assert httpx.get(f"{url}/v2/health/ready").status_code == 200
    finally:
        rest = ended(process)
    assert rest == ("", "")


def test_load_open_loop_reports_json_and_nothing_else_on_stdout(mlp_url):
    times = ("--duration", "1s", "--warmup", "0.2s", "--calibration", "off")
    done = dlbench("load", mlp_url, "--rate", 200, *times, "--json")
    result = json.loads(done.stdout)
    assert result["latency_from"] == "scheduled"
    assert result["requests"] > 100
    assert result["error_rate"] == 0
    assert result["p50_ms"] <= result["p99_ms"]
    assert done.returncode == (3 if result["verdict"] == "invalid" else 0)


def test_load_closed_loop_as_a_table_and_a_csv(mlp_url, tmp_path):
    path = tmp_path / "runs.csv"
    given = ("--users", 4, "--duration", "0.5s", "--calibration", "off", "--csv", path)
    for _ in range(2):
        done = dlbench("load", mlp_url, *given)
        assert done.returncode in (0, 3), done.stderr
    assert "from the send" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 2
    assert all(float(row["throughput_rps"]) > 0 for row in rows)


def test_load_interrupted_keeps_what_was_measured(mlp_url):
    times = ("--duration", "60s", "--warmup", "0.1s", "--calibration", "off")
    process = started("load", mlp_url, "--rate", 100, *times, "--json")
    try:
        assert any(" p99 " in line for line in process.stderr)  # it is under way
    finally:
        out, _ = ended(process)
    assert process.returncode == 130
    assert json.loads(out)["complete"] is False
    assert json.loads(out)["requests"] > 0


def test_a_terminal_without_some_letter_shows_the_rest(tmp_path):
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = dlbench("serve", "m\u00f6del.onnx", cwd=tmp_path, env=ascii_only)
    assert done.stderr.startswith("error: m?del.onnx: no such file")


def test_cuda_that_is_not_there_is_an_error(run_here):
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("there is an NVIDIA device")
    done = run_here("serve", "demo:mlp", "--device", "cuda")
    assert done.returncode == 1
    assert "--device cuda: no NVIDIA device" in done.stderr


def start_tune(folder, *arguments):
    given = ("--study", "s.db", "--budget", "240s", *arguments)
    return started("tune", "demo:mlp", *given, cwd=folder)


def read_until(process, *beginnings):
    """What is told of points, up to the first line that begins so."""
    found = []
    for line in process.stderr:
        if line.startswith(("probe ", "baseline ", "screen ", "verify ")):
            found.append(tuple(line.split()[:2]))
        if line.startswith(beginnings):
            return found
    raise AssertionError(f"it ended after {found}: {process.wait()}")


def stop(process, how):
    """End it and see that nothing of it is left; returns what it said last."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(how)
    try:
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    _, left = psutil.wait_procs(children, timeout=60)
    assert not left
    return said


def replayed(study):
    """Configuration -> what is proposed from the points before its own, with what the file keeps."""
    kept = study.calibration
    space = build_space(
        ServingConfig().resolved("cpu"), physical_cores(), repeats_inputs=False, batchable=True
    )
    calibration = Calibration.model_validate(kept["calibration"])
    seen = foresee(space, calibration, load_of(LoadProfile(rate=1)), most=kept["foreseen"])
    before_s = kept["calibration_s"] + kept["foresight_s"]
    plan = Plan(space, StudyConfig(budget_s=240), 1e9, seen.predictions, before_s)
    points = study.points()
    probes = [n for n, p in enumerate(points) if p.phase == "probe" and p.configuration[0] == "c"]
    return {points[n].config: plan.proposal(points[:n]) for n in probes}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_killed_anywhere_goes_on_to_the_same_proposals(tmp_path):
    """In calibration, among the baselines, in a curve: what is proposed follows from the file.

    The budget pays for every load whatever the kills cost of it.
    """
    done, given = [], ("--budget", "20m", "--configurations", 2)
    for beginning in ("note: calibrating", "baseline ", "probe    c01", "screen   c01"):
        process = start_tune(tmp_path, *map(str, given))
        done += read_until(process, beginning)
        stop(process, signal.SIGKILL)
    process = start_tune(tmp_path, *map(str, given))
    done += read_until(process, "verify ")
    said = stop(process, signal.SIGINT)
    assert process.returncode == 130
    assert "resume with the same command" in said
    exported = dlbench("export", "s.db", "-", cwd=tmp_path)
    rows = list(csv.DictReader(exported.stdout.splitlines()))
    names = [(row["phase"], row["point"]) for row in rows]
    assert len(set(names)) == len(names)
    assert [name for name in names if name[0] != "verify"] == done[:-1]
    proposals = replayed(Study.open(tmp_path / "s.db"))
    assert proposals
    assert all(config == proposal for config, proposal in proposals.items())


@pytest.mark.slow
def test_a_study_of_another_model_is_refused(tmp_path):
    process = start_tune(tmp_path, "--proposer", "random")  # which needs no calibration
    assert read_until(process, "probe ", "note: calibrating")
    stop(process, signal.SIGTERM)
    assert process.returncode == 130
    done = dlbench("tune", "demo:cnn", "--study", "s.db", cwd=tmp_path)
    assert done.returncode == 1
    assert "s.db is a study with model" in done.stderr
    assert "--fresh" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_tune_from_start_to_a_served_recommendation(tmp_path):
    done = dlbench(
        *("tune", "demo:mlp", "--study", "s.db", "--budget", "120s", "--configurations", 1),
        *("--distinct", 500, "--zipf", 1.1, "--csv", "r.csv", "--recommended", "best.toml"),
        cwd=tmp_path,
        timeout=280,
    )
    assert done.returncode in (0, 3), done.stderr
    assert "Traceback" not in done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 120
    rows = list(csv.DictReader((tmp_path / "r.csv").read_text().splitlines()))
    assert {row["phase"] for row in rows} >= {"probe", "baseline", "verify"}
    verified = {row["point"].split("@")[0] for row in rows if row["phase"] == "verify"}
    assert "default" in verified
    again = dlbench("export", "s.db", "r2.csv", cwd=tmp_path)
    assert again.returncode == 0
    assert (tmp_path / "r2.csv").read_text() == (tmp_path / "r.csv").read_text()
    if done.returncode == 3:
        pytest.skip(
            "the machine was too busy for anything to hold; all but the serving was checked"
        )
    toml = tomllib.loads((tmp_path / "best.toml").read_text())
    chosen = next(row for row in rows if row["recommended"] == "true")
    assert str(toml["max_batch_size"]) == chosen["max_batch_size"]
    with serving("--config", tmp_path / "best.toml") as (_, url):
        assert httpx.get(f"{url}/v2/models/mlp/ready").status_code == 200
