"""The file that `dlbench init` writes is one that the commands take as it is."""

import json
import signal

import httpx
import pytest
from typer.testing import CliRunner

from dlbench.cli.main import app
from dlbench.proxy.errors import ModelError
from testbed.commands import started


@pytest.fixture
def model(models, tmp_path, monkeypatch):
    """A model beside which there is a dlbench.toml that names it."""
    monkeypatch.chdir(tmp_path)
    found = models.affine().rename(tmp_path / "mine.onnx")
    assert CliRunner().invoke(app, ["init", "mine.onnx"]).exit_code == 0
    return found


def test_serve_takes_it_unchanged(model):
    given = ("--config", "dlbench.toml", "--port", 0, "--json", "--quiet")
    process = started("serve", *given, stderr=None)
    try:
        url = json.loads("".join([*iter(process.stdout.readline, "}\n"), "}"]))["url"]
        assert httpx.get(f"{url}/v2/models/mine/ready").status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stdout.close()


def test_tune_takes_it_unchanged(model):
    """As far as the model that the file names, which is not there any more."""
    model.unlink()
    done = CliRunner().invoke(app, ["tune", "--config", "dlbench.toml"])
    assert isinstance(done.exception, ModelError)
    assert "mine.onnx: no such file" in str(done.exception)
