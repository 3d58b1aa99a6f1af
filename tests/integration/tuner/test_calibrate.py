"""A calibration of real models on their real parts; nothing here knows how fast this machine is."""

import os
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import psutil
import pytest

from dlbench.loadgen.control.generator import Generator
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover
from dlbench.proxy.config import ServingConfig
from dlbench.proxy.errors import ProxyError
from dlbench.proxy.models.model import resolve_model
from dlbench.proxy.settings import ServerSettings
from dlbench.tuner.bench.calibrate import (
    PLAIN,
    Subject,
    calibrate,
    client_rps,
    observed,
    processor_s,
    services,
)
from dlbench.tuner.bench.drive import Driven
from dlbench.tuner.errors import TuneError
from dlbench.tuner.targets.own_proxy import OwnProxy
from dlbench.tuner.twin.calibration import Calibration
from dlbench.tuner.twin.service_times import Cell

ONE = Cell(batch=1, threads=1, busy=1)


@contextmanager
def subject(model, tmp_path):
    profile = LoadProfile()
    settings = ServerSettings(model=str(model))
    with Generator() as generator, OwnProxy(settings, tmp_path / "server.log") as server:
        target = discover(server.apply(PLAIN)["url"], profile)
        yield Subject(settings, profile, server, generator, target)


@pytest.fixture
def driven():
    """A function that starts real workers of a model, fed with these rows."""

    def start(model, *rows, count=1, threads=1):
        config = ServingConfig(workers=1, intra_op_threads=threads)
        settings = ServerSettings(model=str(model))
        return Driven(str(resolve_model(str(model)).path), settings, config, count, rows)

    return start


@pytest.mark.slow
def test_demo_mlp(tmp_path):
    notes = []
    with subject("demo:mlp", tmp_path) as mlp:
        found = calibrate(mlp, notes.append, services_s=3.0)
        assert found.client_rps == pytest.approx(client_rps(mlp.generator, mlp.target, mlp.profile), rel=0.9)  # fmt: skip
    assert found.result_bytes == 256 * 4
    assert found.worker_rss_mb > 2048 * 2048 * 4 / 2**20  # its largest matrix
    assert found.memory_mb > found.worker_rss_mb
    assert 0 < found.hit_s < found.front_s
    assert found.client_s > 0
    alone = {s.batch: s.seconds for s in found.services if (s.threads, s.busy) == (1, 1)}
    assert 1 in alone
    assert alone[max(alone)] < max(alone) * alone[1]  # batching pays


def test_a_tiny_model_is_measured_whole(models, tmp_path):
    with subject(models.affine(), tmp_path) as affine:
        found = services(affine, 4.0, lambda _: None)
    assert found.result_bytes == 3 * 4
    assert {1, 64} <= {time.batch for time in found.times}
    assert max(time.busy for time in found.times if time.threads == 1) > 1
    times = Calibration(services=tuple(found.times))
    assert times.service_s(64) < 64 * times.service_s(1)


def test_a_client_on_cores_of_its_own_costs_the_server_s_nothing(models, tmp_path):
    with subject(models.affine(), tmp_path) as affine:
        load = {"users": 2, "duration_s": 0.2}
        shared, apart = (
            observed(replace(affine, apart=own), PLAIN, affine.profile, **load)
            for own in (False, True)
        )
    assert shared.client_s > 0
    assert apart.client_s == 0
    assert apart.front_s > 0


def test_a_model_of_one_row_is_measured_with_one(models, tmp_path):
    with subject(models.fixed(), tmp_path) as fixed:
        found = services(fixed, 0.5, lambda _: None)
    assert {time.batch for time in found.times} == {1}


def test_batches_are_what_the_front_would_send(models, driven):
    """Refused they would be if their shapes or bytes did not fit."""
    x = np.ones((1, 3), np.float32)
    with driven(models.second_axis(), {"x": x, "state": np.ones((2, 1, 4), np.float32)}) as workers:
        assert workers.visit(ONE._replace(batch=5), 0.01, 0.0).seconds > 0
        assert workers.result_bytes == (3 + 2 * 4) * 4
    with driven(models.scaled(), {"x": x, "scale": np.array(2, np.float32)}) as workers:
        assert workers.visit(ONE._replace(batch=5), 0.01, 0.0).seconds > 0


@pytest.mark.parametrize("expected_s", [0.0, 1e-4, 1.0], ids=["unknown", "short", "long"])
def test_all_workers_are_kept_busy_at_once(models, driven, expected_s):
    with driven(models.affine(), {"x": np.ones((1, 3), np.float32)}, count=3) as workers:
        found = workers.visit(ONE._replace(busy=3), 0.05, expected_s)
    assert found.seconds > 0
    assert found.cv >= 0
    assert found.driver_share > 0


def test_the_way_is_what_a_lone_batch_takes_beside_its_computing(models, driven):
    with driven(models.affine(), {"x": np.ones((1, 3), np.float32)}) as workers:
        way_s, no_way_s = (workers.way_s(ONE, 0.1, service_s) for service_s in (0.0, 4e-3))
    assert way_s > no_way_s >= 0


def test_a_model_that_refuses_its_batch(models, driven):
    with (
        driven(models.picky(), {"i": np.array([99], np.int64)}) as workers,
        pytest.raises(TuneError, match="the model rejects a batch of 2"),
    ):
        workers.visit(ONE._replace(batch=2), 0.01, 0.0)


def test_a_worker_that_died(models, driven):
    with driven(models.affine(), {"x": np.ones((1, 3), np.float32)}) as workers:
        for child in psutil.Process().children():
            if "dlbench.proxy.workers.worker" in child.cmdline():
                child.kill()
        with pytest.raises(TuneError, match="a worker died"):
            workers.visit(ONE, 60.0, 0.0)


def test_a_model_that_cannot_be_loaded(tmp_path, driven):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(ProxyError, match="is an incomplete ONNX model"), driven(broken):
        pass


def test_processor_time_is_that_of_the_process():
    before_s, ours_s = processor_s(os.getpid()), time.process_time()
    while time.process_time() < ours_s + 0.3:
        pass
    assert processor_s(os.getpid()) - before_s == pytest.approx(0.3, abs=0.05)
