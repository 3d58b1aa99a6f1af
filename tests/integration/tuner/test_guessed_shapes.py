"""Sizes that nobody stated: said wherever a figure rests on them, and too little to tune for."""

import json

import pytest

from dlbench.loadgen.inputs.sizes import guess_notes
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover
from dlbench.proxy.settings import ServerSettings
from dlbench.tuner.errors import ShapeMissing
from dlbench.tuner.run import check_stated
from dlbench.tuner.twin.calibration import Calibration, ServiceTime
from dlbench.tuner.twin.kept_calibration import KeptCalibration
from testbed.commands import dlbench

GUESS = {"x": (1, 128)}


@pytest.fixture(scope="module")
def open_model(models):
    return models.affine("open", dims=("batch", "length"))


def test_the_client_knows_what_it_guessed(open_model, shared_proxies):
    url = shared_proxies(open_model).url
    assert discover(url, LoadProfile()).guessed == GUESS
    assert discover(url, LoadProfile(shape={"x": (1, 5)})).guessed == {}


def test_load_says_it_and_keeps_it(open_model, shared_proxies):
    load = ("load", shared_proxies(open_model).url, "--users", 1, "--duration", "200ms")
    common = (*load, "--warmup", "0s", "--calibration", "off", "--json")
    done = dlbench(*common)
    assert "is a guess" in done.stderr
    assert "--shape x=1,128" in done.stderr
    assert json.loads(done.stdout)["guessed"] == {"x": [1, 128]}
    done = dlbench(*common, "--shape", "x=1,3")
    assert "guess" not in done.stderr
    assert json.loads(done.stdout)["guessed"] == {}


def test_tune_spends_no_minutes_on_one(open_model, tmp_path, monkeypatch, run_here):
    monkeypatch.chdir(tmp_path)
    done = run_here("tune", open_model)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    for part in ("input 'x'", "[1, 128] would be a guess", "--shape x=1,128", "--guess-shapes"):
        assert part in done.stderr
    assert not list(tmp_path.glob("*.db"))


def test_a_name_with_blanks_is_quoted():
    with pytest.raises(ShapeMissing, match="--shape 'input ids=1,16', or add --guess-shapes"):
        check_stated({"input ids": (1, 16)})
    check_stated({})
    (note,) = guess_notes({"x": (1, 3, 224, 224)})
    assert "[1, 3, 224, 224] is a guess" in note


def test_predict_says_it_of_a_kept_calibration_too(open_model, tmp_path, run_here):
    path = tmp_path / "open.json"
    known = Calibration(services=(ServiceTime(batch=1, seconds=0.002),), cores=8, guessed=GUESS)
    KeptCalibration.of(ServerSettings(model=str(open_model)), LoadProfile(), known).write(path)
    command = ("predict", open_model, "--rate", 10, "--workers", 1, "--calibration", path)
    assert "--shape x=1,128" in run_here(*command).stderr
    assert json.loads(run_here(*command, "--json").stdout)["guessed"] == {"x": [1, 128]}


@pytest.mark.slow
def test_a_study_of_a_guess_says_so_to_the_end(open_model, tmp_path):
    done = dlbench("tune", open_model, "--guess-shapes", "--budget", "45s", cwd=tmp_path)
    assert done.returncode in (0, 3), done.stderr
    assert "guessed" in done.stdout
    page = dlbench("report", "open.db", "--json", cwd=tmp_path)
    assert page.returncode == 0
    assert "1, 128" in (tmp_path / "open.html").read_text()
