"""`dlbench top` against a real proxy under load: in a pipe, as JSON, and on a terminal."""

import contextlib
import functools
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
from fcntl import ioctl

import httpx
import pytest

from testbed.commands import DLBENCH, dlbench, started
from testbed.messages import X

PATIENCE_S = 60
ALTERNATE_SCREEN, CURSOR = b"\x1b[?1049", b"\x1b[?25"


@pytest.fixture(scope="module")
def busy(models, shared_proxies):
    """A proxy of two workers that has something to do all the time, some of it wrong."""
    proxy = shared_proxies(models.affine("a_model_with_a_long_name"), workers=2, cache_size=8)
    done = threading.Event()

    def ask():
        url = f"{proxy.url}/v2/models/{proxy.name}/infer"
        with httpx.Client() as client:
            number = 0
            while not done.is_set():
                number += 1
                data = [number % 16, 2, 3]
                client.post(url, json={"inputs": [{**X, "data": data}]})

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield proxy
    done.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def top(run_here, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    return functools.partial(run_here, "top")


def test_in_a_pipe_it_is_one_table_of_80_columns(busy):
    for arguments in (["--interval", "0.2s"], ["--interval", "200ms", "--once"]):
        done = dlbench("top", busy.url, *arguments, env={**os.environ, "COLUMNS": "80"})
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert all(len(line) <= 80 for line in lines)
        assert "\x1b" not in done.stdout
        assert lines[0].startswith(busy.url)
        assert any(line.startswith("a_model") for line in lines)
        assert all(f"worker-{n}" in done.stdout for n in range(2))


def test_json_says_what_the_proxy_does(busy, top):
    done = top(busy.url, "--json", "--interval", "0.3s")
    assert (done.returncode, done.stderr) == (0, "")
    view = json.loads(done.stdout)
    assert view["duration_s"] >= 0.3
    assert view["connections"] >= 3
    assert view["server_cpu"] > 0
    assert view["server_rss_mb"] > 10
    (model,) = view["models"]
    assert model["model"] == busy.name
    assert model["throughput_rps"] > 0
    assert 0 < model["p50_ms"] <= model["p99_ms"]
    assert 0 <= model["cache_hit_ratio"] <= 1
    assert model["mean_batch_size"] >= 1
    assert model["errors"] == {}
    workers = model["workers"]
    assert [(worker["name"], worker["up"]) for worker in workers] == [
        ("worker-0", True),
        ("worker-1", True),
    ]
    assert sum(worker["throughput_rps"] for worker in workers) > 0
    assert all(worker["rss_mb"] > 10 for worker in workers)


def test_errors_are_named(models, start_proxy, top):
    proxy = start_proxy(models.picky())
    i = {"name": "i", "datatype": "INT64", "shape": [1], "data": [77]}
    asking = threading.Event()

    def ask():
        with httpx.Client() as client:
            while not asking.is_set():
                client.post(f"{proxy.url}/v2/models/picky/infer", json={"inputs": [i]})

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        done = top(proxy.url, "--interval", "0.3s")
    finally:
        asking.set()
        thread.join()
    assert done.returncode == 0
    assert "100.00%" in done.stdout
    assert "of status 400" in done.stdout


def test_without_models_and_without_workers(models, start_proxy, tmp_path, top):
    empty = start_proxy("", {"repository": str(tmp_path)})
    done = top(empty.url, "--once", "--interval", "0.1s")
    assert (done.returncode, done.stderr) == (0, "")
    view = json.loads(top(empty.url, "--json", "--interval", "0.1s").stdout)
    assert view["models"] == []


class Terminal:
    """A process on a terminal of its own, of 80 columns; `shown` is everything that it wrote."""

    def __init__(self, arguments, rows=24):
        self._ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
        self.shown = b""
        self._theirs = theirs
        self.before = termios.tcgetattr(theirs)
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            arguments,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
            env={**environment, "TERM": "xterm-256color"},
        )

    def wait_for(self, text):
        """Until `text` was shown after all that was waited for before."""
        start = len(self.shown)
        while text not in self.shown[start:]:
            self._read()

    def press(self, keys):
        os.write(self._ours, keys)

    def wait(self):
        """The exit code; whatever it still wrote is shown."""
        code = self.process.wait(PATIENCE_S)
        while select.select([self._ours], [], [], 0)[0]:
            self._read()
        return code

    @property
    def settings(self):
        return termios.tcgetattr(self._theirs)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for descriptor in (self._ours, self._theirs):
            os.close(descriptor)

    def _read(self):
        assert select.select([self._ours], [], [], PATIENCE_S)[0], self.shown
        self.shown += os.read(self._ours, 65536)


@pytest.fixture
def terminal():
    """A function that starts a command on a terminal."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            return stack.enter_context(contextlib.closing(Terminal([*DLBENCH, "top", *arguments])))

        yield start


@pytest.mark.parametrize("early", [True, False])
def test_on_a_terminal_it_is_drawn_until_ctrl_c_which_leaves_it_as_it_was(busy, terminal, early):
    found = terminal(busy.url, "--interval", "10s" if early else "0.1s")
    found.wait_for(b"watching" if early else b"a_model")
    if not early:
        found.wait_for(b"a_model")  # and again
    found.press(b"\x03")
    assert found.wait() == 0
    for switch in (ALTERNATE_SCREEN, CURSOR):
        on, off = (b"h", b"l") if switch == ALTERNATE_SCREEN else (b"l", b"h")
        assert found.shown.count(switch + on) == found.shown.count(switch + off)
        assert found.shown.rfind(switch + off) >= found.shown.rfind(switch + on)
    assert found.settings == found.before
    assert b"Traceback" not in found.shown
    assert b"Aborted" not in found.shown


def test_on_a_terminal_a_proxy_that_stops_ends_it_in_one_line(models, start_proxy, terminal):
    proxy = start_proxy(models.affine())
    found = terminal(proxy.url, "--interval", "0.1s")
    found.wait_for(b"affine")
    proxy.stop()
    assert found.wait() == 1
    after = found.shown.rpartition(ALTERNATE_SCREEN + b"l")[2]
    assert b"cannot reach" in after
    assert b"Traceback" not in found.shown
    assert found.settings == found.before


def test_a_worker_that_died_is_seen(models, start_proxy, top):
    proxy = start_proxy(models.affine(), workers=2)
    before = proxy.workers()
    os.kill(before[0], signal.SIGKILL)
    while len(after := proxy.workers()) < 2 or before[0] in after:
        pass
    done = top(proxy.url, "--interval", "0.1s")
    (line,) = [line for line in done.stdout.splitlines() if "worker-0" in line]
    assert "restarts 1" in line.partition("worker-1")[0]


@pytest.mark.parametrize("arguments", [[], ["--once"], ["--json"]])
def test_nobody_there(dead_port, arguments, top):
    done = top(f"http://127.0.0.1:{dead_port}", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot reach" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_guarded_proxy(models, start_proxy, tmp_path, top):
    tokens = tmp_path / "tokens"
    tokens.write_text("# ours\nsecret\n")
    proxy = start_proxy(models.affine(), {"token_file": str(tokens)})
    refused = top(proxy.url, "--once", "--interval", "0.1s")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--token-file" in refused.stderr
    done = top(proxy.url, "--once", "--interval", "0.1s", "--token-file", str(tokens))
    assert (done.returncode, done.stderr) == (0, "")


def test_nobody_reads_the_pipe_any_more(busy):
    """As in `dlbench top URL | head -0`."""
    process = started("top", busy.url, "--interval", "0.1s")
    process.stdout.close()
    with process.stderr:
        assert "Traceback" not in process.stderr.read()
    process.wait(PATIENCE_S)
