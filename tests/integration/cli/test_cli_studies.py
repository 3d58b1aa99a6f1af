"""`dlbench studies` as a person runs it, on folders as they are."""

import functools
import hashlib
import json
import sqlite3
from contextlib import closing

import pytest

from testbed import made
from testbed.commands import dlbench


@pytest.fixture
def folder(tmp_path):
    """A finished study, one under way, somebody else's database, and no database at all."""
    for name, model in (("done", "/models/[a].onnx"), ("new", "demo:mlp")):
        best = made.verified(rate=500, p99=4, recommended=True)
        study = made.study(tmp_path / f"{name}.db", *[best][: name == "done"], model=model)
        study.record(made.point(cost_s=30.0))
        study.record(made.verified("c02", measurement=None, failure="out of memory", cost_s=30.0))
    with closing(sqlite3.connect(tmp_path / "other.db")) as file:
        file.execute("CREATE TABLE mine (x)")
        file.commit()
    (tmp_path / "text.db").write_text("no database")
    (tmp_path / "empty.db").touch()
    return tmp_path


@pytest.fixture
def studies(run_here):
    return functools.partial(run_here, "studies")


def contents(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_studies_are_listed_and_nothing_in_the_folder_changes(folder, studies):
    before = contents(folder)
    found = json.loads(studies(folder, "--json").stdout)
    assert contents(folder) == before
    assert [row["study"] for row in found] == ["done.db", "new.db"]
    done, new = found
    assert (done["model"], done["device"]) == ("[a].onnx", "cpu")
    assert (done["state"], new["state"]) == ("finished", "under way")
    assert done["recommended"] == "c01@0.5: 500/s [476-525] at p99 4 ms [3.81-4.2]"
    assert new["recommended"] == ""
    assert (new["configurations"], new["points"], new["spent_s"]) == (2, 2, 60.0)


def test_the_table_shows_names_as_they_are(folder):
    done = dlbench("studies", folder)
    assert done.returncode == 0
    assert "[a].onnx" in done.stdout
    assert "under way" in done.stdout


def test_a_folder_without_studies_and_no_folder(tmp_path, studies):
    empty = studies(tmp_path)
    assert empty.returncode == 0
    assert empty.stdout == ""
    assert "no study" in empty.stderr
    assert studies(tmp_path, "-q").stderr == ""
    assert json.loads(studies(tmp_path, "--json").stdout) == []
    missing = studies(tmp_path / "missing")
    assert missing.returncode == 2
    assert "no such folder" in missing.stderr
