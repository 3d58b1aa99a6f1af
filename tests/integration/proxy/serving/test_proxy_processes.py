"""Starting, stopping and dying: of the proxy, its workers and its parent."""

import json
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from testbed.messages import X, post
from testbed.patience import eventually


@pytest.mark.parametrize("to_all", [False, True])
def test_sigterm_answers_what_was_accepted(models, start_proxy, to_all):
    proxy = start_proxy(models.slow(), workers=2, max_batch_size=2)
    clients = [proxy.client() for _ in range(4)]
    idle = proxy.client()
    for client in clients:
        client.send(post(path="/v2/models/slow/infer") * 3)
    eventually(lambda: proxy.ask("counters")["requests"] >= 12)
    pids = [proxy.process.pid, *(proxy.workers() if to_all else ())]
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    for client in clients:
        with client:
            assert [client.reply()[0] for _ in range(3)] == [200, 200, 200]
            assert client.ended()
    with idle:
        assert idle.ended()
    assert proxy.process.wait(60) == 0


def test_a_large_reply_is_sent_to_its_end_before_the_proxy_stops(models, start_proxy):
    proxy = start_proxy(models.affine())
    x = {**X, "shape": [300_000, 3], "data": [0.1] * 900_000}
    with proxy.client() as client:
        client.send(post({"inputs": [x]}))
        eventually(lambda: proxy.ask("counters")["requests"] >= 1)
        os.kill(proxy.process.pid, signal.SIGTERM)
        status, headers, answer = client.reply()
        assert status == 200
        assert headers["transfer-encoding"] == "chunked"
        assert len(answer) > 1_000_000
    assert proxy.process.wait(60) == 0


@pytest.mark.parametrize("policy", ["shared_queue", "least_outstanding"])
def test_a_killed_worker_is_replaced_and_its_requests_run_again(models, start_proxy, policy):
    proxy = start_proxy(models.slow(), workers=2, max_batch_size=1, scheduling_policy=policy)
    before = proxy.workers()
    with proxy.client() as client:
        client.send(post(path="/v2/models/slow/infer") * 10)
        eventually(lambda: proxy.ask("counters")["requests"] >= 10)
        os.kill(before[0], signal.SIGKILL)
        assert [client.reply()[0] for _ in range(10)] == [200] * 10
    while len(after := proxy.workers()) < 2:
        pass
    assert before[0] not in after
    assert psutil.pid_exists(before[1])
    zombies = [p for p in psutil.Process(proxy.process.pid).children() if p.status() == "zombie"]
    assert not zombies


def test_all_workers_killed_and_requests_wait_for_the_new_one(models, start_proxy):
    proxy = start_proxy(models.affine(), scheduling_policy="round_robin")
    (before,) = proxy.workers()
    os.kill(before, signal.SIGKILL)
    with proxy.client() as client:
        client.send(post())
        assert client.answer()[0] == 200
    assert before not in proxy.workers()


def test_the_control_line(models, shared_proxies):
    proxy = shared_proxies(models.affine())
    for knobs in ({"workers": 3}, {"intra_op_threads": 2}):
        (name,) = knobs
        assert f"{name} needs a restart" in proxy.ask("configure", knobs=knobs)["error"]
    assert "max_batch_size" in proxy.ask("configure", knobs={"max_batch_size": 0})["error"]
    assert "wokers" in proxy.ask("configure", knobs={"wokers": 1})["error"]
    assert "error" in proxy.ask("nonsense")
    assert proxy.ask("configure", knobs={}) == {"ok": True}


def test_stop_on_command_and_when_the_line_ends(models, start_proxy):
    proxy = start_proxy(models.affine())
    assert proxy.ask("stop") == {"ok": True}
    assert proxy.process.wait(60) == 0
    assert start_proxy(models.affine()).stop() == 0


def test_a_line_that_ends_during_start_up_ends_the_proxy(models, tmp_path):
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "dlbench.proxy.main", "--config", '{"workers": 2}']
        settings = json.dumps({"model": str(models.affine()), "port": 0, "device": "cpu"})
        process = subprocess.Popen(
            [*command, "--settings", settings, "--control-fd", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
    ours.close()
    _, log = process.communicate(timeout=60)
    assert (process.returncode, log) == (0, "")


PARENT = """
import json, socket, subprocess, sys
ours, theirs = socket.socketpair()
command = [sys.executable, "-m", "dlbench.proxy.main", "--config", '{"workers": 2}']
command += ["--settings", sys.argv[1], "--control-fd", str(theirs.fileno())]
subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
theirs.close()
print(ours.makefile().readline(), flush=True)
sys.stdin.read()
"""


def test_nothing_survives_the_kill_of_the_parent(models):
    settings = json.dumps({"model": str(models.affine()), "port": 0, "device": "cpu"})
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, settings],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        pids = json.loads(parent.stdout.readline())["pids"]
        processes = [psutil.Process(pid) for pid in (pids["front"], *pids["workers"])]
        assert len(processes) == 3
        parent.kill()
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def start_alone(settings):
    command = [sys.executable, "-m", "dlbench.proxy.main", "--config", '{"workers": 1}']
    return subprocess.run(
        [*command, "--settings", json.dumps({"port": 0, "device": "cpu", **settings})],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("case", ["port", "missing", "corrupt", "cuda", "axis", "shape"])
def test_what_cannot_start_says_so_in_one_line(models, tmp_path, taken, case):
    corrupt = tmp_path / "corrupt.onnx"
    corrupt.write_bytes(b"no model")
    model = str(models.affine())
    settings, text = {
        "port": ({"model": model, "port": taken}, f"port {taken} on 127.0.0.1 is in use"),
        "missing": ({"model": "nowhere.onnx"}, "nowhere.onnx: no such file"),
        "corrupt": ({"model": str(corrupt)}, "corrupt.onnx is an incomplete ONNX model"),
        "cuda": ({"model": model, "device": "cuda"}, "--device cuda: "),
        "axis": ({"model": model, "batch_axis": {"q": 0}}, "--batch-axis q: no such tensor"),
        "shape": ({"model": model, "shape": {"x": [1, 2, 3]}}, "--shape x: give 2 sizes"),
    }[case]
    if case == "cuda" and os.path.exists("/dev/nvidiactl"):
        pytest.skip("CUDA may work here")
    done = start_alone(settings)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
