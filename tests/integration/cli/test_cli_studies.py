"""`dlbench studies` as a person runs it, on folders as they are."""

import hashlib
import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from dlbench.loadgen.measurement import Measurement
from dlbench.proxy.config import ServingConfig
from dlbench.tuner.point import Point
from dlbench.tuner.storage.study import Identity, Study

DLBENCH = [sys.executable, "-m", "dlbench.cli.main"]


def studies(*arguments):
    return subprocess.run(
        [*DLBENCH, "studies", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def measured():
    return Measurement(
        verdict="ok",
        latency_from="scheduled",
        offered_rps=500,
        throughput_rps=500,
        throughput_low_rps=490,
        throughput_high_rps=510,
        p99_ms=4,
        p99_low_ms=3,
        p99_high_ms=5,
        error_rate=0,
        requests=2000,
        duration_s=4,
        client_cpu=0.1,
        net_mbps=1,
        started_at="2026-01-01T00:00:00Z",
    )


def point(name, workers=1, **changes):
    config = ServingConfig(workers=workers)
    values = {"phase": "screen", "share": 0.5, "cost_s": 30.0, "measurement": measured()}
    return Point(configuration=name, config=config, **{**values, **changes})


@pytest.fixture
def folder(tmp_path):
    """A finished study, one under way, somebody else's database, and no database at all."""
    for name, model in (("done", "/models/[a].onnx"), ("new", "demo:mlp")):
        study = Study.create_or_resume(
            tmp_path / f"{name}.db", Identity({"model": model, "device": "cpu"})
        )
        study.record(point("c01"))
        study.record(point("c02", 2, measurement=None, failure="out of memory"))
        if name == "done":
            best = point("c01", phase="verify", recommended=True).model_dump(mode="json")
            study.verified = {"points": [best], "slo": "none"}
    with closing(sqlite3.connect(tmp_path / "other.db")) as file:
        file.execute("CREATE TABLE mine (x)")
        file.commit()
    (tmp_path / "text.db").write_text("no database")
    (tmp_path / "empty.db").touch()
    return tmp_path


def contents(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_studies_are_listed_and_nothing_in_the_folder_changes(folder):
    before = contents(folder)
    found = json.loads(studies(folder, "--json").stdout)
    assert contents(folder) == before
    assert [row["study"] for row in found] == ["done.db", "new.db"]
    done, new = found
    assert (done["model"], done["device"]) == ("[a].onnx", "cpu")
    assert (done["state"], new["state"]) == ("finished", "under way")
    assert done["recommended"] == "c01@0.5: 500/s [490-510] at p99 4 ms [3-5]"
    assert new["recommended"] == ""
    assert (new["configurations"], new["points"], new["spent_s"]) == (2, 2, 60.0)


def test_the_table_shows_names_as_they_are(folder):
    done = studies(folder)
    assert done.returncode == 0
    assert "[a].onnx" in done.stdout
    assert "under way" in done.stdout


def test_a_folder_without_studies_and_no_folder(tmp_path):
    empty = studies(tmp_path)
    assert empty.returncode == 0
    assert empty.stdout == ""
    assert "no study" in empty.stderr
    assert studies(tmp_path, "-q").stderr == ""
    assert json.loads(studies(tmp_path, "--json").stdout) == []
    missing = studies(tmp_path / "missing")
    assert missing.returncode == 2
    assert "no such folder" in missing.stderr
