"""Models and studies of every name that a file system allows."""

import shutil

import pytest

from testbed.commands import dlbench


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_model_of_such_a_name_is_tuned_and_its_study_read(models, tmp_path):
    """All of them in one name: blank, hash, question mark, per cent, quotes, newline."""
    model = tmp_path / "a b#c?d%2F'e'\"f\"\n.onnx"
    shutil.copy(models.affine(), model)
    command = ("tune", model, "--budget", "60s", "--proposer", "random")
    done = dlbench(*command, cwd=tmp_path, timeout=380)
    assert done.returncode in (0, 1, 3), done.stderr
    assert "Traceback" not in done.stderr
    assert model.with_suffix(".db").exists(), done.stderr
    report = dlbench("report", model.with_suffix(".db"))
    assert report.returncode == 0, report.stderr
    assert model.with_suffix(".html").exists()
