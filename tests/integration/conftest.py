"""The HTTP front alone, as a child process, and a client that sends bytes as they are."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ECHO_FRONT = Path(__file__).parents[1] / "fuzz" / "echo_front.py"
PATIENCE_S = 60


@pytest.fixture(scope="session")
def front_client(raw_client):
    """A class: one connection to the front, which echoes what it understood."""

    class FrontClient(raw_client):
        def echo(self):
            """Method, target, headers and body as the front understood them."""
            status, headers, body = self.reply()
            assert status == 200, body
            return *json.loads(headers["x-request"]), body

        def refused(self):
            """Status and text of an error; the connection ends after it."""
            status, headers, body = self.reply()
            assert headers["connection"] == "close"
            assert self.ended()
            return status, json.loads(body)["error"]

    return FrontClient


class Front:
    """The front as a process."""

    def __init__(self, log, client, **options):
        self.log = log
        self._client = client
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(ECHO_FRONT), json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        self.port = int(self.process.stdout.readline())

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def client(self, tls=None):
        connection = self.connect()
        return self._client(
            tls.wrap_socket(connection, server_hostname="localhost") if tls else connection
        )

    def drain(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """End it; nobody may have found anything wrong with it."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            code = self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.stdout.close()
        return code, self.log.read_text()


@pytest.fixture
def start_front(tmp_path_factory, front_client):
    """A function that starts a front; a clean end and an empty log are part of every test."""
    yield from _started(tmp_path_factory, front_client)


@pytest.fixture(scope="module")
def shared_front(tmp_path_factory, front_client):
    """Like start_front, for tests that leave a front as it was."""
    yield from _started(tmp_path_factory, front_client)


def _started(tmp_path_factory, client):
    running = []

    def start(**options):
        log = tmp_path_factory.mktemp("front") / "front.log"
        running.append(Front(log, client, **options))
        return running[-1]

    yield start
    for front in running:
        assert front.stop() == (0, "")


@pytest.fixture(scope="module")
def front(shared_front):
    """A front with the limits of echo_front.py."""
    return shared_front()


@pytest.fixture(scope="module")  # its event loop would be in the way of other files
def browser():
    """A Chromium without a window."""
    program = shutil.which("chromium") or pytest.skip("no chromium on the PATH")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()
