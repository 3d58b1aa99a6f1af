"""`dlbench export` as a person runs it, on a small study made in code."""

import csv
import functools
import json
import re
import shlex
import tomllib

import pytest
import yaml

from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.models.model import resolve_model
from dlbench.tuner.point import Resources
from dlbench.tuner.storage.study import Identity, Study
from testbed import made
from testbed.commands import dlbench

FILES = {
    "toml": "dlbench-affine.toml",
    "triton": "config.pbtxt",
    "kserve": "dlbench-affine.kserve.yaml",
    "docker": "Dockerfile",
    "compose": "compose.yaml",
    "k8s": "dlbench-affine.k8s.yaml",
    "systemd": "dlbench-affine.service",
}

COMPANIONS = {"kserve": "triton", "systemd": "toml", "compose": "docker", "k8s": "docker"}


def point(name, workers, rate):
    ends = {"throughput_low_rps": rate - 10, "throughput_high_rps": rate + 10}
    ends |= {"p99_low_ms": 3, "p99_high_ms": 5}
    used = Resources(server_cpu=0.8, server_rss_mb=100)
    config = ServingConfig(workers=workers)
    return made.point(name, config=config, resources=used, rate=rate, p99=4, **ends)


@pytest.fixture(scope="module")
def study(tmp_path_factory, models):
    """A finished study of a model beside it."""
    folder, model = tmp_path_factory.mktemp("export"), models.affine()
    (folder / "affine.onnx").write_bytes(model.read_bytes())
    facts = {
        "model": str(folder / "affine.onnx"),
        "model_hash": resolve_model(str(model)).fingerprint().hex(),
        "device": "cpu",
        "machine": "a machine, 2 cores",
        "load": LoadProfile().model_dump(mode="json"),
    }
    study = Study.create_or_resume(folder / "affine.db", Identity(facts))
    default, best = point("default", 1, rate=300), point("c01", 2, rate=500)
    study.record(default)
    study.record(best)
    verified = [
        default.model_copy(update={"phase": "verify", "on_front": True}),
        best.model_copy(update={"phase": "verify", "on_front": True, "recommended": True}),
    ]
    study.verified = {"points": [p.model_dump(mode="json") for p in verified], "slo": "none"}
    return study.path


@pytest.fixture
def export(study, tmp_path, monkeypatch, run_here):
    """Runs the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return functools.partial(run_here, "export", study)


def test_it_is_a_command(study):
    done = dlbench("export", study, "-")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 5


def test_points_go_to_a_file_by_its_suffix_and_to_a_pipe_by_a_format(export, tmp_path):
    done = export("points.csv")
    assert (done.returncode, done.stdout) == (0, "")
    assert "points.csv written" in done.stderr
    rows = list(csv.DictReader((tmp_path / "points.csv").read_text().splitlines()))
    found = json.loads(export("-", "--format", "json").stdout)
    assert [row["point"] for row in found["points"]] == [row["point"] for row in rows]
    assert [row["recommended"] for row in rows] == ["false", "false", "false", "true"]
    assert found["bounds"] == []
    plain = export("-")
    assert list(csv.DictReader(plain.stdout.splitlines())) == rows
    assert plain.stderr == ""


def test_every_target_is_written_under_its_usual_name_and_never_over_another(export, tmp_path):
    for target, name in FILES.items():
        assert export("--to", target).returncode == 0
        assert "500/s [490-510] at p99 4 ms [3-5]" in (tmp_path / name).read_text()
    again = export("--to", "docker")
    assert again.returncode == 2
    assert "Dockerfile already exists" in again.stderr


def test_what_was_written_is_told_to_scripts_too(export, tmp_path):
    told = json.loads(export("points.csv", "--json").stdout)
    size = (tmp_path / "points.csv").stat().st_size
    assert told == {"file": "points.csv", "format": "csv", "bytes": size}
    told = json.loads(export("--to", "toml", "--json").stdout)
    size = (tmp_path / FILES["toml"]).stat().st_size
    here = {"file": FILES["toml"], "target": "toml", "point": "c01@0.5"}
    assert told == {**here, "bytes": size}


def test_another_point_and_more_settings(export, tmp_path):
    (tmp_path / "more.toml").write_text('access_log = true\nname = "other"\nworkers = 7\n')
    done = export("--to", "k8s", "-", "--point", "default@0.5", "--config", "more.toml")
    config, deployed, _ = yaml.safe_load_all(done.stdout)
    assert deployed["metadata"]["name"] == "dlbench-other"
    served = tomllib.loads(config["data"]["serve.toml"])
    # The knobs are the point's, whatever the file says.
    assert (served["workers"], served["access_log"], served["name"]) == (1, True, "other")


def test_the_command_that_a_file_prints_writes_its_companion(export, tmp_path):
    """Of the same point and settings: another would be another configuration, or another image."""
    (tmp_path / "more set.toml").write_text('name = "other"\n')
    given = ["--point", "default@0.5", "--config", "more set.toml"]
    for target, companion in COMPANIONS.items():
        text = export("--to", target, "-", *given).stdout
        (line,) = re.findall(r"dlbench export affine\.db (.+)", text)
        words = [word for word in shlex.split(line) if not word.startswith("/")]
        assert export(*words, "-").stdout == export("--to", companion, "-", *given).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a.xlsx",), ".parquet, .md"),
        ((), "name a FILE"),
        (("-", "--format", "xml"), "--format xml: choose one of csv"),
        (("--to", "nomad"), "--to nomad: choose one of toml"),
        (("a.csv", "--point", "c01@0.5"), "need --to"),
        (("--to", "toml", "--format", "csv"), "--format cannot be combined with --to"),
        (("-", "--format", "csv", "--json"), "--json needs a FILE"),
        (("--to", "toml", "-", "--json"), "--json needs a FILE"),
        (("missing/a.csv",), "No such file"),
    ],
)
def test_wrong_usage_is_told_in_a_line(export, arguments, said):
    done = export(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_point_or_a_model_that_is_not_there(export, tmp_path):
    unknown = export("--to", "toml", "-", "--point", "c99")
    assert unknown.returncode == 1
    assert "c01@0.5" in unknown.stderr
    missing = export("--to", "toml", "-", "--model", "missing.onnx")
    assert missing.returncode == 1
    assert "--model missing.onnx: no such file" in missing.stderr
    (tmp_path / "other.onnx").write_bytes(b"another model")
    other = export("--to", "toml", "-", "--model", "other.onnx")
    assert other.returncode == 1
    assert "other.onnx is not the model" in other.stderr
