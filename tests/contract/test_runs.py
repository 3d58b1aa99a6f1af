"""What every way to run a session over the same memory promises: the answers of a fresh run."""

import numpy as np
import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.errors import DeviceError, ModelError
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.workers import session as sessions
from dlbench.proxy.workers.providers import executor_of
from dlbench.proxy.workers.session import BoundRun, PlainRun, Session, UploadedRun


def open_session(model, **settings):
    settings = ServerSettings(model=str(model), **{"device": "cpu", **settings})
    return Session(str(model), executor_of(settings, ServingConfig(), 0))


@pytest.fixture(params=[PlainRun, BoundRun, UploadedRun])
def kind(request):
    return request.param


def test_a_cpu_session_keeps_its_memory(models):
    assert open_session(models.affine()).runs is BoundRun


def test_runs_see_what_the_inputs_hold_now(models, kind):
    session = open_session(models.second_axis())
    random = np.random.default_rng(3)
    inputs = [np.zeros((4, 3), np.float32), np.zeros((2, 4, 4), np.float32)]
    run = kind(session, inputs)
    for _ in range(4):
        for array in inputs:
            array[:] = random.random(array.shape)
        outputs = [array.copy() for array in run.run()]
        for found, expected in zip(outputs, session.run(inputs), strict=True):
            assert np.array_equal(found, expected)


def test_runs_of_several_sizes_take_turns(models, kind):
    session = open_session(models.affine())
    inputs = [np.full((rows, 3), rows, np.float32) for rows in (1, 5, 2)]
    runs = [kind(session, [array]) for array in inputs]
    for _ in range(3):
        for array, run in zip(inputs, runs, strict=True):
            array += 1
            assert np.array_equal(run.run()[0], 2 * array + 1)


def test_scalars_and_every_item_size(models, kind):
    run = kind(open_session(models.kinds()), [np.array([[1, -2, 3]], np.float32)])
    for _ in range(2):
        positive, half = run.run()
        assert positive.tolist() == [[True, False, True]]
        assert half.tolist() == [[1, -2, 3]]
    scale = np.array(3, np.float32)
    run = kind(open_session(models.scaled()), [np.ones((1, 3), np.float32), scale])
    assert run.run()[0].tolist() == [[3, 3, 3]]
    scale[...] = 4
    assert run.run()[0].tolist() == [[4, 4, 4]]


def test_a_refused_run_says_why_and_the_next_one_works(models, kind):
    session = open_session(models.picky())
    index = np.array([1])
    run = kind(session, [index])
    for _ in range(3):
        index[0] = 9
        with pytest.raises(Exception, match="indices element out of data bounds"):
            run.run()
        index[0] = 2
        assert run.run()[0].tolist() == [2]


def test_outputs_may_change_their_size(models, kind):
    x = np.ones(4, np.float32)
    run = kind(open_session(models.positive()), [x])
    for values in ([1, 2, 3, 4], [1, 2, 3, 4], [-1, 2, 3, 4], [1, -2, -3, -4], [1, 2, 3, 4]):
        x[:] = values
        assert run.run()[0].tolist() == [value for value in values if value > 0]


def test_memory_is_not_kept_for_outputs_that_change_their_size(models):
    session = open_session(models.positive())
    x = np.ones(4, np.float32)
    run = session.over([x])
    run.run()
    x[0] = -1
    run.run()
    assert session.runs is PlainRun


def test_no_rows_at_all(models, kind):
    run = kind(open_session(models.affine()), [np.zeros((0, 3), np.float32)])
    for _ in range(2):
        assert run.run()[0].shape == (0, 3)


# The libraries of CUDA and TensorRT are not installed with the tests. Where there is a device and
# someone has them, tests/integration/proxy/workers/test_gpu.py has its say.
def without_libraries(monkeypatch):
    monkeypatch.setattr(sessions, "_has_gpu", lambda: True)
    monkeypatch.setattr(sessions, "got", lambda device, providers: device == "cpu")


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_device_that_is_named_and_not_got_is_an_error(models, monkeypatch, device, capfd):
    without_libraries(monkeypatch)
    with pytest.raises(DeviceError, match=f"^--device {device}: ") as caught:
        open_session(models.affine(), device=device)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_auto_says_what_it_got_and_why(models, monkeypatch, capfd):
    without_libraries(monkeypatch)
    session = open_session(models.affine(), device="auto")
    assert session.device == "cpu"
    assert session.device_reason.startswith("onnxruntime could not start cuda here; ")
    assert capfd.readouterr() == ("", "")


def test_the_model_is_blamed_for_a_model_that_is_broken(tmp_path, monkeypatch):
    without_libraries(monkeypatch)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    for device in ("auto", "cpu", "cuda", "tensorrt"):
        with pytest.raises(ModelError, match=r"is an incomplete ONNX model; .*INVALID_PROTOBUF"):
            open_session(broken, device=device)
