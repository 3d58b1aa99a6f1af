"""`dlbench verify` as it is called, on studies made by hand and a real proxy."""

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
from xml.etree import ElementTree as ET

import psutil
import pytest

from dlbench.loadgen.analysis.machine import processor
from dlbench.loadgen.measurement import Measurement
from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig
from dlbench.tuner.point import Point
from dlbench.tuner.storage.study import Identity, Study
from dlbench.tuner.verify.verification import Verified

DLBENCH = [sys.executable, "-m", "dlbench.cli.main"]
RATE = 400.0


def point(p99, recommended=True):
    """The default configuration at 400/s, as a study would report it with little doubt."""
    figures = {"throughput": RATE, "p50": p99 / 2, "p99": p99}
    units = {"throughput": "rps", "p50": "ms", "p99": "ms"}
    values = {}
    for name, value in figures.items():
        stems = {"": 1, "low_": 0.95, "high_": 1.05}
        values |= {f"{name}_{end}{units[name]}": value * by for end, by in stems.items()}
    kept = {"verdict": "ok", "latency_from": "scheduled", "error_rate": 0, "offered_rps": RATE}
    kept |= {"requests": 3000, "duration_s": 7.5, "client_cpu": 0.1, "net_mbps": 1}
    measured = Measurement(started_at="2026-01-01T00:00:00Z", **kept, **values)
    return Point(
        configuration="default",
        phase="verify",
        share=0.5,
        config=ServingConfig(workers=1),
        measurement=measured,
        on_front=True,
        recommended=recommended,
    )


def study(path, model, *points, machine=None):
    load = LoadProfile().model_dump(mode="json", exclude={"seed"})
    about = {"model": str(model), "device": "cpu", "load": load, "pin": "auto"}
    about |= {"machine": f"{machine or processor()}, 2 cores"}
    made = Study.create_or_resume(path, Identity(about))
    if points:
        made.verified = Verified(points, "none").document
    return path


def verify(*arguments, **options):
    return subprocess.run(
        [*DLBENCH, "verify", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=90,
        **options,
    )


def unless_the_client_was_the_limit(done):
    if "is invalid" in done.stdout:
        pytest.skip(done.stdout[-200:])
    return done


@pytest.mark.slow
def test_a_recommendation_that_got_slower_ends_with_4(tmp_path, models):
    """A study that says 20 microseconds: whatever is served now is slower."""
    path = study(tmp_path / "s.db", models.affine(), point(0.02), machine="Elbrus 8S")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    done = verify("s.db", "--junit", "j.xml", cwd=tmp_path)
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
    path = study(tmp_path / "s.db", models.affine(), point(2000))
    done = unless_the_client_was_the_limit(verify(path, "--json"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    verdicts = {change["figure"]: change["verdict"] for change in found["changes"]}
    assert verdicts["p50_ms"] == "better"
    assert "round 3 of 3" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(tmp_path, models, how):
    path = study(tmp_path / "s.db", models.affine(), point(2000))
    process = subprocess.Popen(
        [*DLBENCH, "verify", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
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
    assert rest.splitlines()[-1] == "interrupted: nothing is compared, the study is as it was"
    _, alive = psutil.wait_procs(running, timeout=60)
    assert alive == []


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs a command in this process and gives its code and all that it said."""
    from dlbench.cli.main import main

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["dlbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, "".join(capsys.readouterr())

    return call


def test_what_cannot_be_verified_is_one_line(tmp_path, run, models):
    nothing = study(tmp_path / "nothing.db", models.affine(), point(9, recommended=False))
    under_way = study(tmp_path / "open.db", models.affine())
    gone = study(tmp_path / "gone.db", tmp_path / "gone.onnx", point(9))
    for path, says in (
        (nothing, "recommends nothing; there is nothing to verify"),
        (under_way, "is unfinished; resume it with dlbench tune "),
        (gone, "gone.onnx: no such file"),
        (tmp_path / "none.db", "none.db: no such study file"),
    ):
        code, said = run("verify", path)
        assert (code, len(said.splitlines())) == (1, 1)
        assert says in said
    code, said = run("verify", gone, "--budget", "soon")
    assert code == 2
    assert "soon" in said
