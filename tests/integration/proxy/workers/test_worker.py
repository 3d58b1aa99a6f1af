"""A real worker process over its socket, without the rest of the proxy."""

import asyncio
import os
import signal
import subprocess

import numpy as np
import orjson
import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.errors import DeviceError, ModelError, StartError
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.tensors import signature_from
from dlbench.proxy.workers import frames
from dlbench.proxy.workers import worker as workers
from dlbench.proxy.workers.channel import FIRST_BYTES, Arrival
from dlbench.proxy.workers.link import ProcessLink, meaning, spawn
from dlbench.proxy.workers.start import arguments, start_worker, start_workers

TIMEOUT_S = 60


class Worker:
    """A worker and a blocking end of its socket."""

    def __init__(self, model, config):
        settings = ServerSettings(model=str(model), device="cpu")
        told = arguments(str(model), settings, ServingConfig(**config))
        self.process, self._socket = spawn(told)
        self._socket.settimeout(TIMEOUT_S)
        self._reader = frames.FrameReader()
        self._frames = []
        self.first = self.frame()

    @property
    def hello(self):
        assert self.first.kind == frames.HELLO, bytes(self.first.data)
        return orjson.loads(self.first.data)

    @property
    def signature(self):
        return signature_from(self.hello["signature"])

    def frame(self):
        while not self._frames:
            count = self._socket.recv_into(self._reader.room())
            assert count, "the worker is gone"
            self._frames = self._reader.received(count)
        return self._frames.pop(0)

    def send(self, number, requests):
        """Requests are lists of arrays, one per input."""
        rows, shapes, pieces = [], [], []
        for index, spec in enumerate(self.signature.inputs):
            arrays = [request[index] for request in requests]
            if spec.batch_axis < 0:
                arrays = arrays[:1]
            else:
                rows = [array.shape[spec.batch_axis] for array in arrays]
            shapes.append(
                np.concatenate(arrays, max(spec.batch_axis, 0)).shape if arrays[0].ndim else ()
            )
            pieces += [array.tobytes() for array in arrays]
        rows = rows or [1] * len(requests)
        self._socket.sendall(b"".join(frames.encode_batch(number, rows, shapes, pieces)))
        return rows

    def outputs(self, number, rows):
        """Per request its outputs, or the text of a failure."""
        frame = self.frame()
        assert frame.number == number
        if frame.kind == frames.FAILURE:
            return bytes(frame.data).decode()
        specs = self.signature.outputs
        result = frames.decode_result(frame, tuple(spec.item_size for spec in specs))
        self.times = result[:3]
        found = [[] for _ in rows]
        for spec, tensor in zip(specs, result.tensors, strict=True):
            flat = np.frombuffer(tensor.data, spec.numpy_type)
            axis, start = spec.batch_axis, 0
            for index, count in enumerate(rows):
                shape = list(tensor.shape)
                if axis >= 0:
                    shape[axis] = count
                size = int(np.prod(shape))
                found[index].append(flat[start : start + size].reshape(shape))
                start += size
        return found

    def ask(self, *requests):
        return self.outputs(7, self.send(7, requests))

    def stop(self):
        self._socket.close()
        return self.process.wait(TIMEOUT_S)


@pytest.fixture(scope="module")
def start():
    """A function that gives a worker: one per model and configuration, for all of this file."""
    running = {}

    def start(model, **config):
        key = (str(model), tuple(config.items()))
        if key not in running:
            running[key] = Worker(model, config)
        return running[key]

    yield start
    for worker in running.values():
        assert worker.stop() == 0


def rows_of(random, *counts):
    """Requests for the model second_axis, of so many rows."""
    return [
        [random.random((n, 3), np.float32), random.random((2, n, 4), np.float32)] for n in counts
    ]


@pytest.mark.parametrize(
    "counts", [(1,), (3,), (1, 1), (1,) * 8, (2, 2, 2), (1, 2, 1), (3, 1, 1, 2), (4, 4, 1)]
)
def test_every_request_gets_its_own_rows_on_any_axis(models, start, counts):
    worker, random = start(models.second_axis(), max_batch_size=16), np.random.default_rng(5)
    for _ in range(3):  # the first run allocates, the others go over the same memory
        requests = rows_of(random, *counts)
        for (x, state), (y, following) in zip(requests, worker.ask(*requests), strict=True):
            assert np.array_equal(y, x + x)
            expected = state + x.sum(1, keepdims=True)[None]
            assert np.allclose(following, expected, atol=1e-6)


def test_batches_of_changing_shapes_do_not_disturb_each_other(models, start):
    worker, random = start(models.second_axis(), max_batch_size=16), np.random.default_rng(6)
    for _ in range(40):
        requests = rows_of(random, *random.integers(1, 4, random.integers(1, 5)))
        for (x, _), (y, _) in zip(requests, worker.ask(*requests), strict=True):
            assert np.array_equal(y, x + x)


def test_a_frame_larger_than_the_room_makes_room(models, start):
    worker, random = start(models.affine()), np.random.default_rng(7)
    rows = FIRST_BYTES // 4
    for count in (2, rows, 2, 2 * rows, 1):
        x = random.random((count, 3), np.float32)
        ((y,),) = worker.ask([x])
        assert np.array_equal(y, x * 2 + 1)


def test_a_tensor_without_a_batch_axis_and_a_scalar(models, start):
    worker = start(models.scaled(scale_first=True))
    for scale in (2, 3):
        x = np.ones((2, 3), np.float32)
        found = worker.ask([np.float32(scale), x], [np.float32(scale), x])
        assert [y.tolist() for (y,) in found] == [(x * scale).tolist()] * 2


def test_booleans_and_half_precision(models, start):
    ((positive, half),) = start(models.kinds()).ask([np.array([[1, -2, 3]], np.float32)])
    assert positive.tolist() == [[True, False, True]]
    assert half.tolist() == [[1, -2, 3]]


def test_an_output_whose_size_depends_on_the_data(models, start):
    worker = start(models.positive())
    for values in ([1, 2, 3], [1, 2, 3], [-1, 2, 3], [1, -2, -3], [1, 2, 3]):
        x = np.array(values, np.float32)
        worker.send(1, [[x]])
        result = frames.decode_result(worker.frame(), (4,))
        assert np.frombuffer(result.tensors[0].data, np.float32).tolist() == x[x > 0].tolist()


def test_what_the_model_refuses_is_an_error_of_its_batch_alone(models, start):
    worker = start(models.picky())
    good, bad = np.array([1, 3]), np.array([1, 9])
    for _ in range(2):
        ((y,),) = worker.ask([good])
        assert y.tolist() == [1, 3]
        assert "indices element out of data bounds" in worker.ask([bad])


def test_running_out_of_memory_is_an_error_of_the_batch_and_not_a_death(tmp_path, start):
    worker = start(growing(tmp_path))
    exbibyte = np.array([[1 << 58]])
    assert "alloc" in worker.ask([exbibyte])
    ((y,),) = worker.ask([np.array([[3]])])
    assert y.tolist() == [0]


def growing(folder):
    """Sums as many zeros as the input says."""
    return saved(
        folder / "growing.onnx",
        [
            ("Reshape", ["n", "one"], ["size"], {}),
            ("ConstantOfShape", ["size"], ["zeros"], {}),
            ("ReduceSum", ["zeros"], ["sum"], {"keepdims": 1}),
        ],
        [("n", "INT64", [1, 1])],
        [("sum", "FLOAT", [1])],
        {"one": np.array([1])},
    )


def saved(path, nodes, inputs, outputs, constants):
    from onnx import TensorProto, helper, numpy_helper

    def values(described):
        return [
            helper.make_tensor_value_info(name, getattr(TensorProto, kind), dims)
            for name, kind, dims in described
        ]

    graph = helper.make_graph(
        [helper.make_node(op, taken, given, **how) for op, taken, given, how in nodes],
        path.stem,
        values(inputs),
        values(outputs),
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_inputs_and_constants_that_are_outputs_are_not_mixed_up(tmp_path, start):
    """What goes straight through has no memory of its own in onnxruntime."""
    path = saved(
        tmp_path / "through.onnx",
        [("Identity", ["x"], ["same"], {}), ("Identity", ["c"], ["constant"], {})],
        [("x", "FLOAT", [1, 3])],
        [("same", "FLOAT", [1, 3]), ("constant", "FLOAT", [2])],
        {"c": np.array([5, 6], np.float32)},
    )
    worker = start(path)
    for value in range(4):
        x = np.full((1, 3), value, np.float32)
        ((same, constant),) = worker.ask([x])
        assert same.tolist() == x.tolist()
        assert constant.tolist() == [5, 6]


def test_a_tensor_at_an_odd_address(tmp_path, start):
    path = saved(
        tmp_path / "masked.onnx",
        [("Where", ["mask", "x", "zero"], ["y"], {})],
        [("mask", "BOOL", ["batch", 3]), ("x", "FLOAT", ["batch", 3])],
        [("y", "FLOAT", ["batch", 3])],
        {"zero": np.float32(0)},
    )
    worker, random = start(path), np.random.default_rng(9)
    for _ in range(3):
        requests = [[random.random((1, 3)) > 0.5, random.random((1, 3), np.float32)] for _ in "123"]
        for (mask, x), (y,) in zip(requests, worker.ask(*requests), strict=True):
            assert np.array_equal(y, np.where(mask, x, 0))


def test_memory_kept_for_other_shapes_is_let_go(models, monkeypatch):
    monkeypatch.setattr(workers, "KEPT_BYTES", 100)
    path = str(models.affine())
    worker = workers.Worker(
        **arguments(path, ServerSettings(model=path, device="cpu"), ServingConfig())
    )
    room = np.ones(1000, np.float32).view(np.uint8)
    for rows in (1, 7, 2, 8, 1):
        layout = frames.encode_batch(1, [rows], [(rows, 3)], [])[0][frames.HEAD.size :]
        answer = worker.answer(Arrival(1, layout, room, rows * 12))
        assert b"".join(answer[1:]) == np.full(rows * 3, 3, np.float32).tobytes()
        assert sum(batch.kept_bytes for batch in worker._prepared.values()) <= 100 + rows * 12


def test_a_batch_of_the_wrong_size_is_refused(models, start):
    worker = start(models.affine())
    worker._socket.sendall(b"".join(frames.encode_batch(3, [1], [(1, 3)], [bytes(8)])))
    assert worker.outputs(3, [1]) == "8 bytes received for a batch of 12"
    ((y,),) = worker.ask([np.ones((1, 3), np.float32)])
    assert y.tolist() == [[3, 3, 3]]


def test_a_result_says_where_its_time_went(models, start):
    worker = start(models.slow())
    worker.ask([np.ones((1, 3), np.float32)])
    input_ns, compute_ns, output_ns = worker.times
    assert compute_ns > input_ns > 0
    assert compute_ns > output_ns > 0


def test_batches_sent_ahead_are_answered_in_order(models, start):
    worker = start(models.affine())
    for number in range(20):
        worker.send(number, [[np.full((1, 3), number, np.float32)]])
    for number in range(20):
        (((value, *_),),) = worker.outputs(number, [1])[0]
        assert value == 2 * number + 1


@pytest.mark.parametrize("level", ["disabled", "basic", "extended", "all"])
def test_the_answers_do_not_depend_on_how_it_runs(models, start, level):
    options = {"memory_arena": level == "all", "allow_spinning": level == "basic"}
    worker = start(models.affine(), graph_optimization=level, intra_op_threads=2, **options)
    ((y,),) = worker.ask([np.array([[1, 2, 3]], np.float32)])
    assert y.tolist() == [[3, 5, 7]]


SHADOWS = ("json.py", "numpy.py", "orjson.py", "dlbench/__init__.py", "proxy/__init__.py")


def test_files_in_the_users_folder_are_not_imported(models, start, tmp_path, monkeypatch):
    for name in SHADOWS:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise SystemExit('the wrong file')")
    model = models.affine()
    monkeypatch.chdir(tmp_path)
    worker = Worker(model, {})
    assert worker.hello["device"] == "cpu"
    assert worker.stop() == 0


def link_of(model, **config):
    settings = ServerSettings(model=str(model), device="cpu")
    return start_worker(str(model), settings, ServingConfig(**config))


def batch(number=1):
    return frames.encode_batch(number, [1], [(1, 3)], [np.ones((1, 3), np.float32).tobytes()])


@pytest.mark.parametrize(
    ("how", "death"),
    [
        (signal.SIGKILL, "killed by SIGKILL (out of memory?)"),
        (signal.SIGSEGV, "killed by SIGSEGV (a crash in native code)"),
    ],
)
def test_a_dead_worker_says_how_it_died(models, how, death):
    async def scenario():
        link = await link_of(models.affine())
        lost = asyncio.get_running_loop().create_future()
        link.on_lost = lost.set_result
        os.kill(link.pid, how)
        assert await lost is link
        assert not link.alive
        await link.shutdown()
        assert link.death == death

    asyncio.run(scenario())


def test_a_killed_worker_is_reaped_without_waiting_for_it(models):
    async def scenario():
        link = await link_of(models.slow())
        lost = asyncio.get_running_loop().create_future()
        link.on_lost = lost.set_result
        os.kill(link.pid, signal.SIGSTOP)  # hangs, and cannot be asked to end
        link.send(batch())
        link.kill("ran one batch for over 1 s")
        await lost
        await link.shutdown()
        assert link.death == "ran one batch for over 1 s"
        with pytest.raises(ProcessLookupError):
            os.kill(link.pid, 0)

    asyncio.run(scenario())


def test_large_results_arrive_whole(models):
    async def scenario():
        link = await link_of(models.affine())
        results = asyncio.Queue()
        link.on_result = lambda link, number, result: results.put_nowait(result)
        for rows in (5, 400_000, 5):
            x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
            link.send(frames.encode_batch(1, [rows], [x.shape], [x.tobytes()]))
            result = await results.get()
            assert result.tensors[0].shape == x.shape
            assert result.tensors[0].data == (x * 2 + 1).tobytes()
        await link.shutdown()

    asyncio.run(scenario())


def failing(model, error, match, **settings):
    async def scenario():
        told = ServerSettings(model=str(model), **{"device": "cpu", **settings})
        with pytest.raises(error, match=match):
            await start_workers(str(model), told, ServingConfig(), range(2))

    asyncio.run(scenario())


def test_a_model_that_cannot_be_loaded(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    failing(broken, ModelError, "is an incomplete ONNX model")


def test_the_cpu_takes_no_provider_options(models):
    option = {"gpu_mem_limit": "1"}
    failing(
        models.affine(), DeviceError, "^--provider-option gpu_mem_limit", provider_option=option
    )


def test_a_worker_that_dies_while_it_loads(models, monkeypatch):
    async def scenario():
        link = ProcessLink({"path": "", "no": "such argument"})
        with pytest.raises(StartError, match=r"died while loading.*exit code 1"):
            await link.startup()
        await link.shutdown()

    monkeypatch.setattr(subprocess, "Popen", silent(subprocess.Popen))
    asyncio.run(scenario())


def silent(popen):
    """The traceback is the worker's last word; the test's output does without it."""
    return lambda *args, **options: popen(*args, **options, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-15, "killed by SIGTERM"),
        (-7, "killed by SIGBUS (a crash in native code)"),
        (-40, "killed by signal 40"),
    ],
)
def test_return_codes_in_words(code, text):
    assert meaning(code) == text
