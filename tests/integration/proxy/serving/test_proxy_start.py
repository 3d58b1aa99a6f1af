"""Starts that fail or are called off: the reason in one line, and nothing left running."""

import asyncio
import re
import signal
import subprocess
import sys

import psutil
import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.errors import ModelError
from dlbench.proxy.main import Proxy
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.telemetry import logs
from dlbench.proxy.workers import start as pool
from testbed.patience import PATIENCE_S, eventually

SERVE = [sys.executable, "-m", "dlbench.cli.main", "serve", "--device", "cpu", "--port", "0"]


@pytest.fixture
def serve(tmp_path):
    """A function that starts `dlbench serve` and gives the process; its children end with it."""
    running, workers = [], []

    def start(*words):
        command = [*SERVE, "--workers", "1", *map(str, words)]
        # A group of its own, and signals as a terminal's child has them, however pytest was started.
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        running.append(process)
        return process

    yield start
    for process in running:
        workers += psutil.Process(process.pid).children() if process.poll() is None else []
        process.kill()
        process.wait()
        process.stderr.close()
    psutil.wait_procs(workers, timeout=PATIENCE_S)


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model at all")
    return path


def children(process):
    return psutil.Process(process.pid).children(recursive=True)


def ended(process):
    """Its exit code and what it said."""
    _, said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


@pytest.mark.parametrize("order", [0, 1])
def test_of_two_models_the_broken_one_is_named_in_one_line(models, serve, broken, order):
    process = serve(*[models.affine(), broken][:: 1 - 2 * order])
    eventually(lambda: process.poll() is not None or children(process))
    code, said = ended(process)
    assert code == 1
    assert re.fullmatch(r"error: .*broken\.onnx.*\n", said), said


def test_a_repository_with_a_broken_model_serves_the_others(models, start_proxy, broken):
    proxy = start_proxy(models.affine(), {"repository": str(broken.parent)})
    assert proxy.name == "affine"


def test_a_broken_model_is_said_though_another_still_loads(models, serve, broken):
    process = serve(models.slow(2800), broken)
    code, said = ended(process)
    assert (code, said.count("\n")) == (1, 1), said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_is_called_off_leaves_nothing(models, serve, number):
    process = serve(models.affine(), models.slow(2800))
    eventually(lambda: len(children(process)) == 2)
    workers = children(process)
    process.send_signal(number)
    code, said = ended(process)
    assert "Traceback" not in said
    assert code in (0, 130), said
    _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
    assert not alive


def test_of_starts_at_once_none_is_left_when_one_fails_or_nobody_wants_them():
    async def scenario(called_off):
        undone, ready, never = [], asyncio.Event(), asyncio.Event()

        async def works():
            ready.set()
            return "worker"

        async def fails():
            await ready.wait()
            raise ModelError("no")

        async def undo(found):
            undone.append(found)

        starting = asyncio.ensure_future(
            pool.all_or_none([works(), never.wait(), *([] if called_off else [fails()])], undo)
        )
        if called_off:
            await ready.wait()
            await asyncio.sleep(0)
            starting.cancel()
        with pytest.raises((ModelError, asyncio.CancelledError)):
            await starting
        assert undone == ["worker"]

    for called_off in (False, True):
        asyncio.run(scenario(called_off))


def test_a_model_that_dies_while_another_still_loads_is_why_the_start_failed(monkeypatch):
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)  # it is not our process

    async def scenario():
        proxy = Proxy(ServerSettings(model="x.onnx"), ServingConfig(), lambda _: None)

        async def loads_for_ever(_):
            proxy._give_up(ModelError("its workers died"))
            await asyncio.Event().wait()

        proxy._startup = loads_for_ever
        with pytest.raises(ModelError, match="its workers died"):
            await proxy.run(None)

    asyncio.run(scenario())
