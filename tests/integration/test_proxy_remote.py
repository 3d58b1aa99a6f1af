"""Workers that a node lends: real nodes, real fronts, TCP between them."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

import httpx
import psutil
import pytest

from dlbench.proxy import node as nodes
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.errors import StartError
from dlbench.proxy.model import resolve_model
from dlbench.proxy.pool import start_worker, started
from dlbench.proxy.remote import GREETING, HELLO, MAGIC, VERSION, Address, FrontHello, RemoteLink
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.tensors import signature_from

PATIENCE_S = 60
COMMAND = [sys.executable, "-m", "dlbench.cli.main", "worker"]


def wait_until(true, seconds=60):
    """Poll a condition that another process brings about."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        os.sched_yield()


class RunningNode:
    """A node as a child process, and what it says."""

    def __init__(self, model, *options, port=0):
        listen = ("--listen", f"127.0.0.1:{port}", "--device", "cpu")
        self.process = subprocess.Popen(
            [*COMMAND, str(model), *listen, *map(str, options)], stderr=subprocess.PIPE, text=True
        )
        self.address = Address.parse(self.says(r"for fronts at (\S+)")[1])

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
        assert stream.recv(GREETING.size) == GREETING.pack(MAGIC, VERSION)
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
        wait_until(lambda: up(proxy))
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
    wait_until(lambda: up(proxy) and metric(proxy, "dlbench_worker_restarts_total") == 1)
    ask_many(proxy, 20)


@pytest.mark.slow
def test_a_node_that_dies_loses_no_request_and_is_used_again(models, start_both, start_node):
    path = models.slow()
    node, proxy = start_both(path, scheduling_policy="round_robin")
    pid = node.lent()
    with httpx.Client(timeout=60) as client, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, proxy, client, [n, 2, 3]) for n in range(8)]
        wait_until(lambda: metric(proxy, "dlbench_worker_outstanding"))
        node.kill()
        answers = [one.result() for one in asked]
        assert answers == [[n, 2, 3] for n in range(8)]
        wait_until(lambda: gone(pid))
        wait_until(lambda: not up(proxy))
        start_node(path, port=node.address.port)
        wait_until(lambda: up(proxy))
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
    wait_until(lambda: up(proxy))


def test_a_front_serves_while_its_node_is_not_there_yet(models, start_proxy, start_node, free_port):
    path, port = models.affine(), free_port()
    proxy = start_proxy(path, {"remote_workers": [f"127.0.0.1:{port}"]}, workers=1)
    ask_many(proxy, 4)
    assert up(proxy) is None
    start_node(path, port=port)
    wait_until(lambda: up(proxy))


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
    assert proxy.first["error"] == "'somewhere' is no address of a node: write HOST:PORT"


def test_a_public_node_wants_tokens(models):
    command = [*COMMAND, str(models.affine()), "--listen", "0.0.0.0:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert "--listen 0.0.0.0 can be reached from other machines" in done.stderr


def connected(node, model, token=b"", config=None, **settings):
    """How a front's link to the node comes about: None, or why not."""

    async def scenario():
        front = ServerSettings(model=str(model), device="cpu", **settings)
        own = await start_worker(str(model), front, ServingConfig())
        signature = signature_from(own.hello.result()["signature"])
        await own.shutdown()
        hello = FrontHello(8, resolve_model(str(model)).fingerprint(), token)
        try:
            link = await started(RemoteLink(node.address, hello, signature))
        except StartError as error:
            return str(error)
        await link.shutdown()
        return None

    return asyncio.run(scenario())


def test_only_fronts_with_a_token_are_served(models, start_node, tmp_path):
    path, tokens = models.affine(), tmp_path / "tokens"
    tokens.write_text("one\ntwo\n")
    node = start_node(path, "--token-file", tokens)
    for token in (b"", b"on", b"three", b"one\ntwo"):
        why = connected(node, path, token)
        assert why == (f"{node.address}: wrong token: front and node need the same --token-file"), (
            token
        )
        node.says("is refused: wrong token")
    assert connected(node, path, b"two") is None


def test_a_front_that_reads_its_token_from_the_file_is_served(
    models, start_node, start_proxy, tmp_path
):
    path, tokens = models.affine(), tmp_path / "tokens"
    tokens.write_text("one\n")
    node = start_node(path, "--token-file", tokens)
    settings = {"remote_workers": [str(node.address)], "token_file": str(tokens)}
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
    assert "same --batch-axis, --shape and --rows-independent?" in connected(node, models.affine())
    assert "exit code 0" in node.says("worker 0 of").string


def test_what_the_worker_says_of_its_device_arrives(models, start_node):
    node = start_node(models.affine(), "--provider-option", "no_such=option")
    assert "no_such" in connected(node, models.affine())


def test_garbage_is_answered_with_one_line_and_hung_up_on(models, start_node):
    node = start_node(models.affine())
    for data in (b"GET / HTTP/1.1\r\n" * 20, bytes(100), bytes(range(100))):
        with node.connect() as stream:
            stream.sendall(data)
            assert "is refused: this is no dlbench worker" in node.says("is refused").string
    assert connected(node, models.affine()) is None


@pytest.mark.slow
def test_silent_connections_cost_no_more_than_their_share(models, start_node):
    """One too many is turned away at once; those that say too little lose their place in time."""
    node = start_node(models.affine())
    silent = [node.connect() for _ in range(nodes.MOST_CONNECTIONS)]
    try:
        silent[0].sendall(HELLO.pack(MAGIC, VERSION, 1, bytes(64), 100)[:-1])
        with socket.create_connection(node.address, timeout=PATIENCE_S) as late:
            assert late.recv(100) == b""
        assert all(stream.recv(100) == b"" for stream in silent)  # after HELLO_TIMEOUT_S
    finally:
        for stream in silent:
            stream.close()
    assert connected(node, models.affine()) is None


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

    wait_until(sleeps)
    proxy.stop()
    node.says("worker 0 of")
    wait_until(sleeps)
