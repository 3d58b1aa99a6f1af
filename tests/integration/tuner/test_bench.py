"""The bench: steps carried out on a real proxy and a real generator, failures included."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlbench.loadgen.analysis.samples import Samples
from dlbench.loadgen.profile import LoadProfile
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.models.demo import demo_path
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.telemetry.resources import GpuUsage
from dlbench.tuner.bench.bench import Bench
from dlbench.tuner.step import Step
from dlbench.tuner.targets import own_proxy as server
from dlbench.tuner.targets.pin import Pinning

CONFIG = ServingConfig(workers=1)


# Children of this process that a test did not begin: proxies that other tests share.
OTHERS = set()


@pytest.fixture(autouse=True)
def _others():
    OTHERS.clear()
    OTHERS.update(child.pid for child in psutil.Process().children())


def ours():
    """The processes that this test began, and theirs."""
    for child in psutil.Process().children():
        if child.pid not in OTHERS:
            with contextlib.suppress(psutil.Error):  # it may just have ended
                yield from (child, *child.children(recursive=True))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    shutil.copy(demo_path("mlp"), path)
    return path


@pytest.fixture
def coupled(tmp_path):
    """y = x minus the mean over the batch."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3]) for n in "xy")
    graph = helper.make_graph(nodes, "coupled", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, tmp_path / "coupled.onnx")
    return tmp_path / "coupled.onnx"


@pytest.fixture
def bench(model, tmp_path):
    with started(model, tmp_path) as bench:
        yield bench


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A bench for tests that harm neither its server nor its model."""
    with started(demo_path("mlp"), tmp_path_factory.mktemp("bench")) as bench:
        yield bench


@contextlib.contextmanager
def started(model, folder):
    profile = LoadProfile(distinct=200, zipf=1.0)
    with Bench(ServerSettings(model=str(model)), profile, folder / "server.log") as bench:
        bench.start(CONFIG)
        yield bench


def measure(bench, tmp_path, config=CONFIG, on_progress=lambda _: None, duration_s=0.5):
    step = Step("c01", config, "screen", duration_s, 0.5, 100.0)
    return bench.measure(step, 1, on_progress, tmp_path / "samples.npz")


def test_a_step_becomes_a_point_with_resources_and_samples(sound, tmp_path):
    point = measure(sound, tmp_path)
    assert point.failure == ""
    assert point.measurement.requests > 20
    assert point.measurement.offered_rps == pytest.approx(100, rel=0.5)
    assert 0 < point.resources.server_cpu < 64
    assert point.resources.server_rss_mb > 50
    assert point.resources.mean_batch_size >= 1
    assert point.resources.cache_hit_ratio is None
    assert point.cost_s > 0.5
    assert (tmp_path / "samples.npz").exists()
    assert isinstance(point.disturbances, tuple)
    assert not sound.gpu_figures
    assert (point.resources.gpu_util, point.resources.gpu_mem_mb) == (None, None)


def test_gpus_are_looked_at_while_they_are_loaded(sound, tmp_path, monkeypatch):
    """There is none here: what a driver would say of one stands in for it."""
    seen = [GpuUsage(0, 0.5, 2_000_000_000, 80_000_000_000)]
    monkeypatch.setattr(server, "gpus_of", lambda _: SimpleNamespace(usage=lambda: seen))
    assert sound.gpu_figures
    resources = measure(sound, tmp_path, duration_s=1.0).resources
    assert (resources.gpu_util, resources.gpu_mem_mb) == (0.5, 2000)


def test_a_measurement_keeps_what_else_ran_meanwhile(sound, tmp_path):
    """Two processes of somebody else, each with all that it can get."""
    shell = 'exec 3<&0; for i in 1 2; do timeout 60 "$0" -c "$1" <&3 & echo $!; done'
    command = ["sh", "-c", shell, sys.executable, "while True: pass"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as started:
        pids = [int(started.stdout.readline()) for _ in range(2)]
        started.wait()
        try:
            point = measure(sound, tmp_path)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGTERM)
    assert any("other processes used" in note for note in point.disturbances)


def test_a_client_whose_latencies_are_too_short_is_found(sound, tmp_path, monkeypatch):
    """Our own generator, made to say that everything took two thirds of the time it took."""
    whole = Samples.load

    def shortened(path):
        found = whole(path)
        spent = (found.done_ns - found.sent_ns) * 2 // 3
        return replace(found, done_ns=found.sent_ns + spent)

    probe = Step("c01", CONFIG, "probe", 0.5)
    measured = sound.measure(probe, 1, lambda _: None, tmp_path / "s.npz").measurement
    assert "Little's law" not in measured.reason
    assert measured.duration_s < 1  # as long as the step says
    monkeypatch.setattr(Samples, "load", shortened)
    measured = sound.measure(probe, 1, lambda _: None, tmp_path / "s.npz").measurement
    assert measured.verdict == "invalid"
    assert "Little's law" in measured.reason


def test_a_cache_is_warm_before_anything_counts(sound, tmp_path):
    point = measure(sound, tmp_path, CONFIG.model_copy(update={"cache_size": 1000}))
    assert point.resources.cache_hit_ratio > 0.95


def test_a_configuration_that_cannot_start_is_a_point_that_says_why(bench, model, tmp_path):
    model.write_bytes(b"no longer a model")
    point = measure(bench, tmp_path, ServingConfig(workers=2))
    assert point.measurement is None
    assert "is an incomplete ONNX model" in point.failure
    assert "is an incomplete ONNX model" in point.log_tail
    assert measure(bench, tmp_path).failure != ""  # nothing is left of the one before


def test_a_configuration_that_answers_otherwise_is_a_failed_point(bench, model, tmp_path):
    """The same model with other weights, as a restart finds it."""
    assert measure(bench, tmp_path).failure == ""
    assert bench.notes == ()
    changed = onnx.load(model)
    weights = changed.graph.initializer[0]
    weights.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(weights), weights.name))
    onnx.save(changed, model)
    point = measure(bench, tmp_path, ServingConfig(workers=2))
    assert point.measurement is None
    assert re.fullmatch(
        r"answers differ from the default configuration's: output \w+, row 0: \S+ against \S+",
        point.failure,
    )


def test_answers_of_a_model_with_coupled_rows_are_not_compared(tmp_path, coupled):
    """Whoever says that its rows are independent is believed; answers depend on who else asks."""
    settings = ServerSettings(model=str(coupled), rows_independent=True)
    with Bench(settings, LoadProfile(), tmp_path / "server.log") as bench:
        bench.start(CONFIG)
        assert any("not compared" in note for note in bench.notes)
        assert measure(bench, tmp_path).failure == ""


def test_a_worker_that_dies_at_its_start_is_a_failed_point(bench, tmp_path):
    assert measure(bench, tmp_path).failure == ""
    over = threading.Event()
    killer = threading.Thread(target=kill_workers, args=(over,))
    killer.start()
    try:
        point = measure(bench, tmp_path, ServingConfig(workers=2))
    finally:
        over.set()
        killer.join()
    assert point.measurement is None
    assert "worker" in point.failure
    assert measure(bench, tmp_path).failure == ""


@pytest.mark.slow
def test_workers_that_die_under_load_make_a_failed_point_with_the_proxy_s_words(bench, tmp_path):
    """They are killed while they are measured, and as often as they come back."""
    over = threading.Event()
    killers: list[threading.Thread] = []

    def kill(_: object) -> None:
        if not killers:
            killers.append(threading.Thread(target=kill_workers, args=(over,)))
            killers[0].start()

    try:
        point = measure(bench, tmp_path, on_progress=kill, duration_s=3.0)
    finally:
        over.set()
        killers[0].join()
    assert point.measurement is None
    assert point.failure == "a worker died during the measurement"
    assert "worker" in point.log_tail
    assert measure(bench, tmp_path).failure == ""


def kill_workers(over):
    """As a system does that has run out of memory."""
    while not over.wait(0.01):
        for process in ours():
            with contextlib.suppress(psutil.Error):
                if "dlbench.proxy.workers.worker" in process.cmdline():
                    process.kill()


def test_a_server_that_takes_too_long_to_start_is_a_failed_point(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "START_TIMEOUT_S", 0.001)
    point = measure(bench, tmp_path, ServingConfig(workers=2))
    assert point.measurement is None
    assert point.failure == "the proxy did not answer within 0.001 s"
    monkeypatch.undo()
    assert measure(bench, tmp_path).failure == ""


def test_a_server_that_dies_is_a_failed_point_and_the_study_goes_on(bench, tmp_path):
    """The proxy is killed while it is measured; the next configuration gets a new one."""
    killed = threading.Event()

    def kill_once(_: object) -> None:
        for child in [] if killed.is_set() else ours():
            with contextlib.suppress(psutil.Error):  # another child may just have ended
                if "dlbench.proxy.main" in child.cmdline():
                    child.kill()
                    killed.set()

    point = measure(bench, tmp_path, on_progress=kill_once, duration_s=2.0)
    assert point.measurement is None
    assert point.failure == "the proxy died"
    assert killed.is_set()
    assert measure(bench, tmp_path).measurement is not None


def test_knobs_change_in_place_and_workers_by_a_restart(bench, tmp_path):
    def front():
        alive = [c for c in ours() if c.status() != psutil.STATUS_ZOMBIE]
        return [c.pid for c in alive if "dlbench.proxy.main" in c.cmdline()]

    before = front()
    measure(bench, tmp_path, CONFIG.model_copy(update={"max_batch_size": 2}))
    assert front() == before
    measure(bench, tmp_path, CONFIG.model_copy(update={"workers": 2}))
    assert front() != before


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity here")
def test_a_pinned_server_runs_on_its_cores_with_all_its_processes(model, tmp_path):
    mine = os.sched_getaffinity(0)
    first, last = {min(mine)}, {max(mine)}
    pinning = Pinning((min(mine),), (max(mine),))
    parts = (ServerSettings(model=str(model)), LoadProfile(), tmp_path / "server.log", pinning)
    with Bench(*parts) as bench:
        bench.start(CONFIG)
        assert bench.cores == 1
        for config in (CONFIG, CONFIG.model_copy(update={"workers": 2})):
            assert measure(bench, tmp_path, config).failure == ""
            assert affinities("dlbench.proxy.main") == [first]
            workers = affinities("dlbench.proxy.workers.worker")
            assert len(workers) >= config.workers
            assert all(cores == first for cores in workers)
            assert affinities("dlbench.loadgen.locust.main") == [last]
    assert os.sched_getaffinity(0) == mine


def affinities(module):
    """Cores of our processes that run this module, with all their threads."""
    alive = [c for c in ours() if c.status() != psutil.STATUS_ZOMBIE]
    children = [c for c in alive if module in c.cmdline()]
    found = [{frozenset(os.sched_getaffinity(t.id)) for t in c.threads()} for c in children]
    return [set().union(*cores) for cores in found]


@pytest.mark.slow
def test_calibrating_leaves_no_configuration_that_is_taken_for_warm(bench, tmp_path):
    """The knobs are others afterwards: the same configuration is applied and warmed again."""
    config = CONFIG.model_copy(update={"cache_size": 1000})
    assert measure(bench, tmp_path, config).failure == ""
    said: list[str] = []
    calibration = bench.calibrate(said.append)
    assert calibration.service_s(1) > 0
    assert calibration.client_rps == pytest.approx(bench.client_rps(), rel=1.0)
    point = measure(bench, tmp_path, config)
    assert point.failure == ""
    assert point.resources.cache_hit_ratio > 0.95
