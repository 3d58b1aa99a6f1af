"""Models and studies of every name that a file system allows."""

import json
import shutil
import subprocess
import sys

import pytest

from dlbench.tuner.study import Identity, Study

DLBENCH = [sys.executable, "-m", "dlbench.cli.main"]
NAMES = [
    "a#b",
    "a?b",
    "100%",
    "a b",
    "a'b",
    'a"b',
    "a\nb",
    "a{b}",
    "a;b",
    "a&b=c",
    "模型",
    "[red]",
    "-x",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_study_is_kept_in_the_file_of_its_name(build, tmp_path, name):
    path = tmp_path / f"{name}.db"
    Study.create_or_resume(path, Identity({"model": name, "device": "cpu"})).record(build.point())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert len(Study.open(path).points()) == 1
    listed = subprocess.run(
        [*DLBENCH, "studies", str(tmp_path), "--json"], capture_output=True, text=True, timeout=100
    )
    assert [row["study"] for row in json.loads(listed.stdout)] == [path.name]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_model_of_such_a_name_is_tuned_and_its_study_read(models, tmp_path):
    """All of them in one name: blank, hash, question mark, per cent, quotes, newline."""
    model = tmp_path / "a b#c?d%2F'e'\"f\"\n.onnx"
    shutil.copy(models.affine(), model)
    command = ["tune", str(model), "--budget", "60s", "--proposer", "random"]
    done = subprocess.run(
        [*DLBENCH, *command], cwd=tmp_path, capture_output=True, text=True, timeout=380
    )
    assert done.returncode in (0, 1, 3), done.stderr
    assert "Traceback" not in done.stderr
    assert model.with_suffix(".db").exists(), done.stderr
    report = subprocess.run(
        [*DLBENCH, "report", str(model.with_suffix(".db"))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert report.returncode == 0, report.stderr
    assert model.with_suffix(".html").exists()
