"""What only a GPU can show: run with `-m gpu` where there is one; skipped, with the reason, elsewhere."""

import asyncio

import numpy as np
import pytest

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.errors import DeviceError
from dlbench.proxy.settings import ServerSettings
from dlbench.proxy.workers import frames
from dlbench.proxy.workers.providers import CUDA, TENSORRT, executor_of
from dlbench.proxy.workers.session import PlainRun, Session, UploadedRun
from dlbench.proxy.workers.start import start_worker

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),  # TensorRT builds an engine for every shape
]
PROVIDERS = {"cuda": CUDA, "tensorrt": TENSORRT}
# Of an output's largest value: TF32 on a GPU keeps 10 bits.
TOLERANCE = 2e-3


def open_session(model, **settings):
    settings = ServerSettings(model=str(model), **settings)
    return Session(str(model), executor_of(settings, ServingConfig(), 0))


@pytest.fixture(params=["cuda", "tensorrt"])
def device(request, models):
    try:
        open_session(models.affine(), device=request.param)
    except DeviceError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def cuda(models):
    try:
        open_session(models.affine(), device="cuda")
    except DeviceError as error:
        pytest.skip(str(error))


def test_the_session_is_on_the_device(models, device):
    session = open_session(models.affine(), device=device)
    assert session.device == device
    options = session.session.get_provider_options()[PROVIDERS[device]]
    assert options["device_id"] == "0"


def test_auto_takes_cuda(models, cuda):
    session = open_session(models.affine(), device="auto")
    assert (session.device, session.device_reason) == ("cuda", "CUDA works here")


def inputs_of(session, random, rows):
    return [
        random.random([rows if isinstance(dim, str) else dim for dim in spec.dims]).astype(
            spec.numpy_type
        )
        for spec in session.inputs
    ]


@pytest.mark.parametrize("io_binding", [True, False])
@pytest.mark.parametrize("name", ["affine", "second_axis", "scaled", "kinds", "slow"])
def test_answers_are_those_of_the_cpu(models, device, name, io_binding):
    model = getattr(models, name)()
    cpu = open_session(model, device="cpu")
    gpu = open_session(model, device=device, io_binding=io_binding)
    assert gpu.runs is (UploadedRun if io_binding else PlainRun)
    random = np.random.default_rng(11)
    for rows in (1, 4, 3):
        inputs = inputs_of(cpu, random, rows)
        run = gpu.over(inputs)
        for _ in range(3):
            for array in inputs:
                array[...] = random.random(array.shape)
            for found, expected in zip(run.run(), cpu.run(inputs), strict=True):
                assert found.dtype == expected.dtype
                scale = max(1.0, float(np.abs(expected.astype(np.float64)).max()))
                np.testing.assert_allclose(
                    found.astype(np.float64), expected.astype(np.float64), atol=TOLERANCE * scale
                )


def test_outputs_may_change_their_size(models, cuda):
    x = np.ones(4, np.float32)
    run = open_session(models.positive(), device="cuda").over([x])
    for values in ([1, 2, 3, 4], [-1, 2, 3, 4], [1, -2, -3, -4], [1, 2, 3, 4]):
        x[:] = values
        assert run.run()[0].tolist() == [value for value in values if value > 0]


def test_an_unknown_provider_option_is_named(models, device):
    with pytest.raises(DeviceError, match=r"^--provider-option nonsense: ") as caught:
        open_session(models.affine(), device=device, provider_option={"nonsense": "1"})
    assert "\n" not in str(caught.value)


def test_a_provider_option_arrives(models, cuda):
    option = {"cudnn_conv_algo_search": "HEURISTIC"}
    session = open_session(models.affine(), device="cuda", provider_option=option)
    assert session.session.get_provider_options()[CUDA].items() >= option.items()


def test_a_device_that_is_not_there_is_an_error(models, cuda):
    with pytest.raises(DeviceError, match=r"^--device cuda: "):
        open_session(models.affine(), device="cuda", device_ids=(99,))


def test_a_worker_answers_from_the_gpu(models, device):
    async def scenario():
        settings = ServerSettings(model=str(models.affine()), device=device)
        link = await start_worker(settings.model, settings, ServingConfig())
        assert link.hello.result()["device"] == device
        answer = asyncio.get_running_loop().create_future()
        link.on_result = lambda link, number, result: answer.set_result(result)
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        link.send(frames.encode_batch(1, [1, 1], [(2, 3)], [x[0].tobytes(), x[1].tobytes()]))
        (tensor,) = (await answer).tensors
        found = np.frombuffer(tensor.data, np.float32).reshape(tensor.shape)
        assert found.tolist() == (2 * x + 1).tolist()
        await link.shutdown()

    asyncio.run(scenario())
