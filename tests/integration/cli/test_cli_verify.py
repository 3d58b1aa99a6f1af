"""`dlbench verify` as it is called, on studies made by hand and a real proxy."""

import hashlib
import json
import os
import select
import signal
from xml.etree import ElementTree as ET

import psutil
import pytest

from dlbench.loadgen.analysis.machine import processor
from dlbench.proxy.config import ServingConfig
from testbed import made
from testbed.commands import dlbench, started


def study(path, model, p99=None, machine=None, recommended=True):
    """A study that reports the default configuration at 400/s with little doubt; open without a p99."""
    default = {"config": ServingConfig(workers=1), "recommended": recommended, "sure": 0.05}
    points = [made.verified("default", rate=400.0, p99=p99, **default)] if p99 else []
    machine = f"{machine or processor()}, 2 cores"
    made.study(path, *points, model=str(model), pin="auto", machine=machine)
    return path


def unless_the_client_was_the_limit(done):
    if "is invalid" in done.stdout:
        pytest.skip(done.stdout[-200:])
    return done


@pytest.mark.slow
def test_a_recommendation_that_got_slower_ends_with_4(tmp_path, models):
    """A study that says 20 microseconds: whatever is served now is slower."""
    path = study(tmp_path / "s.db", models.affine(), 0.02, machine="Elbrus 8S")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    done = dlbench("verify", "s.db", "--junit", "j.xml", cwd=tmp_path)
    unless_the_client_was_the_limit(done)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "REGRESSION: default@0.5 p50_ms" in done.stdout
    assert "cores, not Elbrus 8S, 2 cores" in " ".join(done.stdout.split())
    assert "default@0.5 at 400/s, round 1 of 3" in done.stderr
    assert ET.parse(tmp_path / "j.xml").find(".//failure") is not None
    assert {p.name for p in tmp_path.iterdir()} == {"s.db", "j.xml"}
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


@pytest.mark.slow
def test_one_that_got_faster_is_none_and_is_pooled_over_three_rounds(tmp_path, models):
    path = study(tmp_path / "s.db", models.affine(), 2000)
    done = unless_the_client_was_the_limit(dlbench("verify", path, "--json"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    verdicts = {change["figure"]: change["verdict"] for change in found["changes"]}
    assert verdicts["p50_ms"] == "better"
    assert "round 3 of 3" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(tmp_path, models, how):
    path = study(tmp_path / "s.db", models.affine(), 2000)
    process = started("verify", path)
    said = ""
    try:
        while "round 1" not in said:
            assert select.select([process.stderr], [], [], 60)[0], said
            said += process.stderr.readline()
        running = psutil.Process(process.pid).children(recursive=True)
        assert running
        os.kill(process.pid, how)
        out, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out == ""
    assert rest.splitlines()[-1] == "interrupted: nothing was compared; the study is unchanged"
    _, alive = psutil.wait_procs(running, timeout=60)
    assert alive == []


def test_what_cannot_be_verified_is_one_line(tmp_path, run_here, models):
    nothing = study(tmp_path / "nothing.db", models.affine(), 9, recommended=False)
    under_way = study(tmp_path / "open.db", models.affine())
    gone = study(tmp_path / "gone.db", tmp_path / "gone.onnx", 9)
    for path, says in (
        (nothing, "recommends nothing; there is nothing to verify"),
        (under_way, "is unfinished; resume it with dlbench tune "),
        (gone, "gone.onnx: no such file"),
        (tmp_path / "none.db", "none.db: no such study file"),
    ):
        done = run_here("verify", path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert says in done.stderr
    done = run_here("verify", gone, "--budget", "soon")
    assert done.returncode == 2
    assert "soon" in done.stderr
