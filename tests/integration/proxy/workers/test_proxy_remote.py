"""Workers that a node lends: real nodes, real fronts, TCP between them."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

import httpx
import numpy as np
import psutil
import pytest

from dlbench.proxy.cache.backend import NoBackend
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.dispatch.dispatcher import Dispatcher, WorkerSlot
from dlbench.proxy.errors import StartError
from dlbench.proxy.http.tls import node_context
from dlbench.proxy.models.model import resolve_model
from dlbench.proxy.request import all_outputs, lay_out, make_request
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.telemetry.stats import ModelStats
from dlbench.proxy.tensors import signature_from
from dlbench.proxy.workers import node as nodes
from dlbench.proxy.workers.frames import BATCH, HEAD, HELLO, RESULT, SIZE, TIMES
from dlbench.proxy.workers.handshake import ANSWER, GREETING_BYTES, KIND, MAGIC, VERSION, FrontHello
from dlbench.proxy.workers.remote import Introduction, NodeAddress, RemoteLink
from dlbench.proxy.workers.start import start_worker, started
from testbed.certificates import certify, found_authority
from testbed.patience import PATIENCE_S, eventually

COMMAND = [sys.executable, "-m", "dlbench.cli.main", "worker"]


class RunningNode:
    """A node as a child process, and what it says."""

    def __init__(self, model, *options, port=0):
        listen = ("--listen", f"127.0.0.1:{port}", "--device", "cpu")
        self.process = subprocess.Popen(
            [*COMMAND, str(model), *listen, *map(str, options)], stderr=subprocess.PIPE, text=True
        )
        self.address = NodeAddress.parse(self.says(r"for fronts at (\S+)")[1])

    def says(self, pattern):
        """Wait until it does."""
        for line in self.process.stderr:
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"it ended and never said {pattern!r}")

    def lent(self):
        """The next worker's process."""
        return int(self.says(r"\(process (\d+)\) is for")[1])

    def connect(self):
        """A connection on which the node has said its greeting."""
        stream = socket.create_connection(self.address, timeout=PATIENCE_S)
        greeting = stream.recv(GREETING_BYTES, socket.MSG_WAITALL)
        assert greeting[: KIND.size] == KIND.pack(MAGIC, VERSION)
        return stream

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.stderr.close()


@pytest.fixture
def start_node():
    """A function that starts a node; whatever was started ends with the test, and cleanly."""
    running = []

    def start(*arguments, **options):
        running.append(RunningNode(*arguments, **options))
        return running[-1]

    yield start
    for node in running:
        assert node.stop() in (0, -signal.SIGKILL)


@pytest.fixture
def start_both(start_node, start_proxy):
    """A node and a front with one worker of its own and one of the node's, connected."""

    def start(model, settings=None, **config):
        node = start_node(model)
        settings = {"remote_workers": [str(node.address)], **(settings or {})}
        proxy = start_proxy(model, settings, workers=1, **config)
        eventually(lambda: up(proxy))
        return node, proxy

    return start


def metric(proxy, name, worker="worker-1"):
    """What /metrics says of a worker, None if it is not there."""
    with urlopen(f"{proxy.url}/metrics") as reply:
        text = reply.read().decode()
    found = re.search(rf'^{name}{{.*worker="{worker}"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else None


def up(proxy):
    return metric(proxy, "dlbench_worker_up")


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def ask(proxy, client, values):
    """One inference of a model with one input x, checked to the bit."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": values}
    reply = client.post(f"{proxy.url}/v2/models/{proxy.name}/infer", json={"inputs": [tensor]})
    assert reply.status_code == 200, reply.text
    return reply.json()["outputs"][0]["data"]


def ask_many(proxy, count, threads=8):
    def one(number):
        expected = [2 * number + 1, 5, 7]
        assert ask(proxy, client, [number, 2, 3]) == expected

    with httpx.Client(timeout=60) as client, ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(count)))


def test_answers_are_exact_wherever_they_are_computed(models, start_both):
    _, proxy = start_both(models.affine(), max_batch_size=4)
    # shared_queue gives the remote one what the other has no time for, which may be nothing.
    for policy in ["round_robin", "random", "consistent_hash", "least_outstanding", "shared_queue"]:
        assert "error" not in proxy.ask("configure", knobs={"scheduling_policy": policy})
        before = metric(proxy, "dlbench_worker_requests_total")
        ask_many(proxy, 60)
        if policy not in ("least_outstanding", "shared_queue"):
            assert metric(proxy, "dlbench_worker_requests_total") > before, policy


def test_its_weight_is_the_one_after_the_local_ones(models, start_both):
    weights = {"scheduling_policy": "weighted_round_robin", "worker_weights": [1, 3]}
    _, proxy = start_both(models.affine(), **weights)
    ask_many(proxy, 40, threads=1)
    requests = [metric(proxy, "dlbench_worker_requests_total", f"worker-{n}") for n in range(2)]
    assert requests == [10, 30]


def test_processes_elsewhere_are_not_taken_for_ours(models, start_both):
    _, proxy = start_both(models.affine())
    assert len(proxy.workers()) == 1
    memory = "dlbench_process_resident_memory_bytes"
    assert metric(proxy, memory, "worker-0") > 0
    assert metric(proxy, memory, "worker-1") is None


def test_a_worker_that_dies_on_its_node_is_replaced_there(models, start_both):
    node, proxy = start_both(models.affine(), scheduling_policy="round_robin")
    os.kill(node.lent(), signal.SIGKILL)
    assert "killed by SIGKILL" in node.says("worker 0 of").string
    ask_many(proxy, 20)
    # What the node says of the next one may come before what it says of the death.
    eventually(lambda: up(proxy) and metric(proxy, "dlbench_worker_restarts_total") == 1)
    ask_many(proxy, 20)


@pytest.mark.slow
def test_a_node_that_dies_loses_no_request_and_is_used_again(models, start_both, start_node):
    path = models.slow()
    node, proxy = start_both(path, scheduling_policy="round_robin")
    pid = node.lent()
    with httpx.Client(timeout=60) as client, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, proxy, client, [n, 2, 3]) for n in range(8)]
        eventually(lambda: metric(proxy, "dlbench_worker_outstanding"))
        node.kill()
        answers = [one.result() for one in asked]
        assert answers == [[n, 2, 3] for n in range(8)]
        eventually(lambda: gone(pid))
        eventually(lambda: not up(proxy))
        start_node(path, port=node.address.port)
        eventually(lambda: up(proxy))
        before = metric(proxy, "dlbench_worker_requests_total")
        for n in range(4):
            ask(proxy, client, [n, 2, 3])
        assert metric(proxy, "dlbench_worker_requests_total") == before + 2


@pytest.mark.slow
def test_a_hung_worker_is_given_up_and_its_node_ends_it(models, start_both):
    node, proxy = start_both(models.affine(), scheduling_policy="round_robin", worker_timeout_s=1)
    pid = node.lent()
    os.kill(pid, signal.SIGSTOP)
    ask_many(proxy, 4)
    assert "killed by SIGKILL" in node.says("worker 0 of").string
    assert gone(pid)
    eventually(lambda: up(proxy))


def test_a_front_serves_while_its_node_is_not_there_yet(models, start_proxy, start_node, free_port):
    path, port = models.affine(), free_port()
    proxy = start_proxy(path, {"remote_workers": [f"127.0.0.1:{port}"]}, workers=1)
    ask_many(proxy, 4)
    assert up(proxy) is None
    start_node(path, port=port)
    eventually(lambda: up(proxy))


def test_nothing_is_left_of_a_front_that_goes_nor_of_a_node(models, start_both, start_proxy):
    node, proxy = start_both(models.affine())
    first = node.lent()
    proxy.process.kill()
    assert "exit code 0" in node.says("worker 0 of").string
    assert gone(first)
    start_proxy(models.affine(), {"remote_workers": [str(node.address)]}, workers=1)
    second = node.lent()
    assert node.stop() == 0
    assert gone(second)


def test_an_address_that_is_none_is_said_at_the_start(models, start_proxy):
    proxy = start_proxy(models.affine(), {"remote_workers": ["somewhere"]})
    assert proxy.first["error"] == "'somewhere' is not the address of a node; use HOST:PORT"


def test_a_public_node_wants_tokens(models):
    command = [*COMMAND, str(models.affine()), "--listen", "0.0.0.0:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert "--listen 0.0.0.0 can be reached from other machines" in done.stderr


def connected(node, model, secret=b"", host="", ca="", **settings):
    """How a front's link to the node comes about: None, or why not."""

    async def scenario():
        front = ServerSettings(model=str(model), device="cpu", **settings)
        own = await start_worker(str(model), front, ServingConfig())
        signature = signature_from(own.hello.result()["signature"])
        await own.shutdown()
        hello = FrontHello(8, resolve_model(str(model)).fingerprint())
        introduction = Introduction(hello, secret, node_context(ca))
        address = NodeAddress(host or node.address.host, node.address.port)
        try:
            link = await started(RemoteLink(address, introduction, signature))
        except StartError as error:
            return str(error)
        await link.shutdown()
        return None

    return asyncio.run(scenario())


def test_only_fronts_that_know_a_secret_are_served(models, start_node, tmp_path):
    path, secrets = models.affine(), tmp_path / "secrets"
    secrets.write_text("one\ntwo\n")
    node = start_node(path, "--node-token-file", secrets)
    for secret in (b"", b"on", b"three", b"one\ntwo"):
        why = connected(node, path, secret)
        assert why == (
            f"{node.address}: wrong secret: front and node need the same --node-token-file"
        ), secret
        node.says("is refused: wrong secret")
    assert connected(node, path, b"two") is None


def test_a_front_does_not_take_work_from_a_node_that_does_not_know_its_secret(models, start_node):
    node = start_node(models.affine())
    assert "wrong secret" in connected(node, models.affine(), b"one")


def test_a_front_that_reads_its_secret_from_the_file_is_served(
    models, start_node, start_proxy, tmp_path
):
    path, secrets = models.affine(), tmp_path / "secrets"
    secrets.write_text("one\n")
    node = start_node(path, "--node-token-file", secrets)
    settings = {"remote_workers": [str(node.address)], "node_token_file": str(secrets)}
    start_proxy(path, settings, workers=1)
    node.lent()


def test_a_node_of_another_model_file_is_not_used(models, start_node):
    node = start_node(models.affine())
    why = connected(node, models.scaled())
    assert why == f"{node.address}: affine.onnx or its weights differ between front and node"


def test_a_node_with_other_weights_is_not_used(weighted, start_node):
    """The same file, but not the file that its weights are in."""
    here, there = weighted("here", 2), weighted("there", 3)
    assert here.read_bytes() == there.read_bytes()
    node = start_node(there)
    assert "or its weights differ between front and node" in connected(node, here)
    assert connected(node, there) is None


def test_a_node_that_understands_the_model_otherwise_is_not_used(models, start_node):
    node = start_node(models.affine(), "--batch-axis", "x=-1", "--batch-axis", "y=-1")
    assert "use the same --batch-axis, --shape and --rows-independent" in connected(
        node, models.affine()
    )
    assert "exit code 0" in node.says("worker 0 of").string


def test_what_the_worker_says_of_its_device_arrives(models, start_node):
    node = start_node(models.affine(), "--provider-option", "no_such=option")
    assert "no_such" in connected(node, models.affine())


def test_garbage_is_answered_with_one_line_and_hung_up_on(models, start_node):
    node = start_node(models.affine())
    for data in (b"GET / HTTP/1.1\r\n" * 20, bytes(100), bytes(range(100))):
        with node.connect() as stream:
            stream.sendall(data)
            assert "is refused: the other side does not speak" in node.says("is refused").string
    assert connected(node, models.affine()) is None


def test_silent_strangers_keep_no_front_out(models, start_node):
    """The next one takes the place of the oldest; who has proved itself keeps its own."""
    node, path = start_node(models.affine()), models.affine()
    silent = []
    try:
        silent += [node.connect() for _ in range(nodes.MOST_STRANGERS)]
        assert connected(node, path) is None
        silent += [node.connect() for _ in range(nodes.MOST_STRANGERS + 1)]
        assert connected(node, path) is None
        assert silent[0].recv(100) == b""
        assert all(stream.recv(100) == b"" for stream in silent)  # after PROOF_TIMEOUT_S
    finally:
        for stream in silent:
            stream.close()


def test_strangers_cost_a_front_nothing_that_is_served_already(models, start_both):
    node, proxy = start_both(models.affine(), scheduling_policy="round_robin")
    pid = node.lent()
    strangers = [node.connect() for _ in range(nodes.MOST_STRANGERS + 10)]
    ask_many(proxy, 20)
    for stranger in strangers:
        stranger.close()
    assert not gone(pid)
    assert metric(proxy, "dlbench_worker_restarts_total") == 0


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with an authority, another one, and a certificate for localhost of the first."""
    folder = tmp_path_factory.mktemp("node-tls")
    for name in ("ca", "other"):
        found_authority(folder, name)
    certify(folder, "node")
    return folder


@pytest.fixture
def tls_node(start_node, certificates):
    def start(model):
        pair = ("--tls-cert", certificates / "node.pem", "--tls-key", certificates / "node.key")
        return start_node(model, *pair)

    return start


def test_over_tls_answers_are_as_exact_and_a_lost_front_ends_its_worker(
    models, tls_node, start_proxy, certificates
):
    node = tls_node(models.affine())
    settings = {
        "remote_workers": [f"localhost:{node.address.port}"],
        "node_tls_ca": str(certificates / "ca.pem"),
    }
    config = {"workers": 1, "scheduling_policy": "round_robin", "max_batch_size": 512}
    proxy = start_proxy(models.affine(), settings, **config)
    pid = node.lent()
    eventually(lambda: up(proxy))
    ask_many(proxy, 40)
    # Frames of many records, which fill every buffer on the way.
    rows = np.arange(3 * 200_000, dtype=np.float32).reshape(-1, 3)
    tensor = {
        "name": "x",
        "datatype": "FP32",
        "shape": [*rows.shape],
        "data": rows.ravel().tolist(),
    }
    with httpx.Client(timeout=60) as client:
        for _ in range(2):
            reply = client.post(f"{proxy.url}/v2/models/affine/infer", json={"inputs": [tensor]})
            found = np.array(reply.json()["outputs"][0]["data"], np.float32)
            np.testing.assert_array_equal(found, 2 * rows.ravel() + 1)
    assert metric(proxy, "dlbench_worker_requests_total") >= 20
    proxy.process.kill()
    assert "exit code 0" in node.says("worker 0 of").string
    assert gone(pid)


def test_a_worker_that_dies_behind_tls_is_replaced(models, tls_node, start_proxy, certificates):
    node = tls_node(models.affine())
    settings = {
        "remote_workers": [f"localhost:{node.address.port}"],
        "node_tls_ca": str(certificates / "ca.pem"),
    }
    proxy = start_proxy(models.affine(), settings, workers=1, scheduling_policy="round_robin")
    pid = node.lent()
    eventually(lambda: up(proxy))
    os.kill(pid, signal.SIGKILL)
    assert "killed by SIGKILL" in node.says("worker 0 of").string
    ask_many(proxy, 20)
    eventually(lambda: up(proxy) and metric(proxy, "dlbench_worker_restarts_total") == 1)


def test_a_node_that_others_have_signed_is_told_nothing(models, tls_node, certificates):
    node, path = tls_node(models.affine()), models.affine()
    ca, other = certificates / "ca.pem", certificates / "other.pem"
    assert connected(node, path, host="localhost", ca=str(ca)) is None
    assert "certificate verify failed" in connected(node, path, host="localhost", ca=str(other))
    assert "certificate" in connected(node, path, ca=str(ca)), "it is not for 127.0.0.1"


def test_where_one_side_speaks_tls_and_the_other_does_not_it_is_said(
    models, tls_node, start_node, certificates
):
    path = models.affine()
    assert "requires TLS" in connected(tls_node(path), path)
    assert "SSL" in connected(start_node(path), path, ca=str(certificates / "ca.pem"))


# A node that sends what no worker sends


class Spoiler:
    """A relay before a node that changes what its workers answer, once there is a batch to answer."""

    def __init__(self, node, spoil):
        self._node, self._spoil = node.address, spoil
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = NodeAddress(*self._listener.getsockname())
        self.spoilt = 0
        self._streams = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                front, _ = self._listener.accept()
                node = socket.create_connection(self._node)
                self._streams += [front, node]
                threading.Thread(target=self._forward, args=(front, node), daemon=True).start()
                threading.Thread(target=self._answer, args=(node, front), daemon=True).start()

    def _forward(self, front, node):
        with contextlib.suppress(OSError):
            while data := front.recv(1 << 16):
                node.sendall(data)
            node.shutdown(socket.SHUT_WR)

    def _answer(self, node, front):
        with contextlib.suppress(OSError), node.makefile("rb") as answers:
            for size in (GREETING_BYTES, ANSWER.size):
                front.sendall(answers.read(size))
            while head := answers.read(HEAD.size):
                size, number, layout_size, kind = HEAD.unpack(head)
                rest = answers.read(size + SIZE.size - HEAD.size)
                if kind == RESULT:
                    self.spoilt += 1
                    front.sendall(self._spoil(number, rest[:layout_size], rest[layout_size:]))
                else:
                    front.sendall(head + rest)
            front.shutdown(socket.SHUT_WR)

    def close(self):
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            stream.close()


def framed(number, layout, data, kind=RESULT, size=None):
    """A frame, whatever its parts; `size` as its head has it."""
    true = HEAD.size - SIZE.size + len(layout) + len(data)
    return HEAD.pack(true if size is None else size, number, len(layout), kind) + layout + data


SPOILT = {
    "an output more": lambda n, layout, data: framed(n, layout + b"\x01\x01\0\0\0", data + bytes(4)),
    "no output": lambda n, layout, data: framed(n, layout[: TIMES.size], b""),
    "no layout": lambda n, layout, data: framed(n, b"", data),
    "half a layout": lambda n, layout, data: framed(n, layout[:-1], data),
    "too few bytes": lambda n, layout, data: framed(n, layout, data[:-1]),
    "too many bytes": lambda n, layout, data: framed(n, layout, data + b"x"),
    "another rank": lambda n, layout, data: framed(
        n, layout[: TIMES.size] + b"\x01" + (len(data) // 4).to_bytes(4, "little"), data
    ),
    "another width": lambda n, layout, data: framed(
        n, layout[:-4] + (1).to_bytes(4, "little"), data[: len(data) // 3]
    ),
    "other rows": lambda n, layout, data: framed(
        n, layout[:-8] + (9).to_bytes(4, "little") + layout[-4:], (data * 9)[: 9 * 12]
    ),
    "huge sizes": lambda n, layout, data: framed(n, layout[:-8] + b"\xff" * 8, data),
    "a huge frame": lambda n, layout, data: framed(n, layout, data, size=1 << 62),
    "a frame of nothing": lambda n, layout, data: framed(n, layout, data, size=0),
    "a layout longer than its frame": lambda n, layout, data: HEAD.pack(20, n, 1 << 31, RESULT) + data,
    "another number": lambda n, layout, data: framed(n ^ 0xFFFF, layout, data),
    "another kind": lambda n, layout, data: framed(n, layout, data, kind=77),
    "a batch": lambda n, layout, data: framed(n, layout, data, kind=BATCH),
    "a hello": lambda n, layout, data: framed(n, b"", b"{}", kind=HELLO),
    "two answers": lambda n, layout, data: 2 * framed(n, layout, data),
    "zeros": lambda n, layout, data: bytes(1000),
}  # fmt: skip


def test_what_no_worker_sends_is_no_answer_and_no_requests_fault(models, start_node):
    """Its request is run by another worker, and is not suspected of having killed the first one."""
    path = models.affine()
    node = start_node(path)

    async def scenario():
        settings = ServerSettings(model=str(path), device="cpu")
        own = await start_worker(str(path), settings, ServingConfig())
        signature = signature_from(own.hello.result()["signature"])
        dispatcher = Dispatcher(signature, b"", ServingConfig(), NoBackend(), ModelStats())
        introduction = Introduction(FrontHello(8, resolve_model(str(path)).fingerprint()))
        shape = (1, 3)
        layout = lay_out(signature, (shape,), all_outputs(signature, binary=True))
        ours = WorkerSlot(0, 1.0, own)
        for how, spoil in SPOILT.items():
            spoiler = Spoiler(node, spoil)
            lost, answered = asyncio.Event(), asyncio.get_running_loop().create_future()
            dispatcher.on_lost = lambda _, lost=lost: lost.set()
            try:
                link = await started(RemoteLink(spoiler.address, introduction, signature))
                dispatcher.join(WorkerSlot(1, 1.0, link))
                x = np.array([[1, 2, 3]], np.float32)
                job = dispatcher.submit(
                    make_request(signature, layout, (x.tobytes(),)), answered.set_result
                )
                async with asyncio.timeout(PATIENCE_S):
                    await lost.wait()
                await link.shutdown()
                if how != "two answers":  # the first of them is one
                    assert not answered.done(), how
                assert link.broken, how
                assert "it sent an invalid message" in link.death, how
                assert job.deaths == 0
                dispatcher.join(ours)
                ((_, data),) = await answered
                np.testing.assert_array_equal(np.frombuffer(data, np.float32), [3, 5, 7], how)
                dispatcher.leave(ours)
            finally:
                spoiler.close()
        dispatcher.shutdown()
        await own.shutdown()

    asyncio.run(scenario())


def test_a_node_that_sends_nonsense_costs_a_proxy_no_request(models, start_node, start_proxy):
    spoiler = Spoiler(start_node(models.affine()), SPOILT["other rows"])
    try:
        proxy = start_proxy(
            models.affine(),
            {"remote_workers": [str(spoiler.address)]},
            workers=1,
            scheduling_policy="round_robin",
        )
        eventually(lambda: up(proxy))
        ask_many(proxy, 12)  # each answered, and right
        assert spoiler.spoilt
    finally:
        spoiler.close()


def context_switches(pid):
    """Of all threads of a process and its children: it runs whenever that grows."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    total = 0
    for process in processes:
        for thread in process.threads():
            with open(f"/proc/{process.pid}/task/{thread.id}/status") as status:
                counts = [int(line.split()[1]) for line in status if "ctxt_switches" in line]
            total += sum(counts)
    return total


def test_a_node_with_nothing_to_do_sleeps(models, start_both):
    node, proxy = start_both(models.affine())
    node.lent()

    def sleeps():
        before = context_switches(node.process.pid)
        time.sleep(0.3)  # there is no event for nothing
        return context_switches(node.process.pid) == before

    eventually(sleeps)
    proxy.stop()
    node.says("worker 0 of")
    eventually(sleeps)
