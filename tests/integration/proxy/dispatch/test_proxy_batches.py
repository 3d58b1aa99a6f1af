"""Many clients at once, batches forming: each gets exactly its own answer, unmodified tritonclient."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

BATCHING = {"max_batch_size": 8, "max_queue_delay_ms": 2.0, "workers": 2}


def ask(proxy, arrays, *, binary=True, wanted=None, **options):
    """One inference over a connection of its own."""
    metadata = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}
    inputs = []
    for name, array in arrays.items():
        inputs.append(triton.InferInput(name, array.shape, metadata[str(array.dtype)]))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    outputs = [triton.InferRequestedOutput(n, binary_data=binary) for n in wanted or ()] or None
    with triton.InferenceServerClient("{}:{}".format(*proxy.address)) as client:
        return client.infer(proxy.name, inputs, outputs=outputs, **options)


def together(function, count, threads=12):
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, range(count)))


def session_of(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def check(proxy, session, arrays, *, exact=False, **options):
    found = ask(proxy, arrays, **options)
    names = [output.name for output in session.get_outputs()]
    for name, expected in zip(names, session.run(None, arrays), strict=True):
        got = found.as_numpy(name)
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        (np.testing.assert_array_equal if exact else np.testing.assert_allclose)(
            got, expected, **({} if exact else {"rtol": 1e-4, "atol": 1e-5})
        )


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
def test_tritonclient_in_every_encoding(models, shared_proxies, binary, encoding):
    path = models.affine()
    proxy = shared_proxies(path)
    options = {"binary": binary, "request_compression_algorithm": encoding}
    check(proxy, session_of(path), {"x": random(1, 4, 3)}, exact=True, **options)


def test_tritonclient_reads_health_and_metadata(models, shared_proxies):
    proxy = shared_proxies(models.second_axis(), **BATCHING)
    with triton.InferenceServerClient("{}:{}".format(*proxy.address)) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("second_axis")
        assert not client.is_model_ready("other")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        assert client.get_model_config("second_axis")["max_batch_size"] == 0  # not the first axis
        assert client.get_inference_statistics("second_axis")["model_stats"]
        described = client.get_model_metadata("second_axis")
        assert [i["shape"] for i in described["inputs"]] == [[-1, 3], [2, -1, 4]]
        assert client.get_model_repository_index()[0]["name"] == "second_axis"


@pytest.mark.parametrize("policy", ["shared_queue", "round_robin", "random", "least_outstanding"])
def test_every_answer_is_its_own_with_the_batch_on_axis_one(models, shared_proxies, policy):
    path = models.second_axis()
    proxy, session = shared_proxies(path, **BATCHING), session_of(path)
    assert "error" not in proxy.ask("configure", knobs={"scheduling_policy": policy})
    before = proxy.ask("counters")

    def one(i):
        rows = 1 + i % 3
        arrays = {"x": random(i, rows, 3), "state": random(i + 999, 2, rows, 4)}
        check(proxy, session, arrays, binary=i % 4 > 0)

    together(one, 80)
    after = proxy.ask("counters")
    assert after["requests"] - before["requests"] == 80
    assert after["batches"] - before["batches"] < 80
    assert after["in_flight"] == 0


@pytest.mark.parametrize("scale_first", [False, True])
def test_requests_with_different_scalars_never_share_a_batch(models, shared_proxies, scale_first):
    path = models.scaled(f"scaled{scale_first}", scale_first)
    proxy, session = shared_proxies(path, **BATCHING), session_of(path)

    def one(i):
        arrays = {"x": random(i, 1, 3), "scale": np.array(i % 3, np.float32)}
        found = (
            ask(proxy, arrays) if not scale_first else ask(proxy, dict(reversed(arrays.items())))
        )
        np.testing.assert_array_equal(found.as_numpy("y"), session.run(None, arrays)[0])

    together(one, 60)
    counts = proxy.ask("counters")
    assert counts["batches"] < 60


@pytest.mark.parametrize("make", ["fixed", "total", "one_row_inside"])
def test_models_that_cannot_batch_are_served_one_by_one(models, shared_proxies, make):
    path = getattr(models, make)()
    proxy, session = shared_proxies(path, **BATCHING), session_of(path)
    assert not proxy.first["batchable"]
    assert any("served with batch 1" in note for note in proxy.first["notes"])
    together(lambda i: check(proxy, session, {"x": random(i, 1, 3)}), 20)


def test_an_output_whose_size_depends_on_the_data_is_not_cut_wrongly(models, shared_proxies):
    path = models.positive()
    proxy, session = shared_proxies(path, **BATCHING), session_of(path)
    together(lambda i: check(proxy, session, {"x": random(i, 2)}), 40)


def test_only_the_request_that_the_model_refuses_fails(models, shared_proxies):
    proxy = shared_proxies(models.picky(), **BATCHING)

    def one(i):
        if i % 5 == 0:
            with pytest.raises(InferenceServerException, match="the model refused the request"):
                ask(proxy, {"i": np.array([77])})
        else:
            assert ask(proxy, {"i": np.array([i % 4])}).as_numpy("y").tolist() == [i % 4]

    together(one, 40)


@pytest.mark.parametrize("binary", [True, False])
def test_booleans_and_half_precision(models, shared_proxies, binary):
    path = models.kinds()
    x = random(3, 4, 3)
    if binary:
        check(shared_proxies(path, **BATCHING), session_of(path), {"x": x}, exact=True)
    else:
        found = ask(shared_proxies(path, **BATCHING), {"x": x}, binary=False, wanted=["positive"])
        np.testing.assert_array_equal(found.as_numpy("positive"), x > 0)


def test_repeated_requests_hit_the_cache_or_join(models, start_proxy):
    path = models.affine()
    proxy, session = start_proxy(path, cache_size=64, **BATCHING), session_of(path)
    together(lambda i: check(proxy, session, {"x": random(i % 4, 1, 3)}, exact=True), 60)
    counts = proxy.ask("counters")
    assert counts["cache_misses"] == 4
    assert counts["cache_hits"] == 56
    assert counts["rows"] == 4
    assert proxy.ask("configure", knobs={"max_batch_size": 4}) == {"ok": True}
    check(proxy, session, {"x": random(0, 1, 3)}, exact=True)
    assert proxy.ask("counters")["cache_misses"] == 5


def test_reconfigured_under_load_without_an_error(models, start_proxy):
    path = models.affine()
    proxy, session = start_proxy(path, **BATCHING), session_of(path)

    lock = threading.Lock()

    def one(i):
        if i % 10 == 0:
            knobs = {
                "max_batch_size": 1 + i % 7,
                "max_queue_delay_ms": i % 3,
                "cache_size": i % 20,
                "scheduling_policy": ("shared_queue", "round_robin", "random")[i % 3],
            }
            with lock:
                assert proxy.ask("configure", knobs=knobs) == {"ok": True}
        check(proxy, session, {"x": random(i % 50, 2, 3)}, exact=True)

    together(one, 200)
    assert proxy.ask("counters")["errors"] == 0


REAL = {
    "silero-vad": {"input": (1, 576), "state": (2, 1, 128)},
    "magika": {"bytes": (1, 2048)},
    "rapidocr-onnxruntime": {"x": (1, 3, 48, 192)},
}


@pytest.mark.parametrize("name", REAL)
def test_real_models_answer_as_onnxruntime_does(real_model, start_proxy, name):
    path = real_model(name)
    session = session_of(path)
    proxy = start_proxy(path, max_batch_size=8, max_queue_delay_ms=2.0)
    assert proxy.first["batchable"]

    def one(i):
        arrays = {}
        for given, shape in zip(session.get_inputs(), REAL[name].values(), strict=True):
            arrays[given.name] = random(i, *shape)
            if given.type == "tensor(int32)":
                arrays[given.name] = np.random.default_rng(i).integers(0, 256, shape, np.int32)
        check(proxy, session, arrays, binary=i % 3 > 0)

    together(one, 12, threads=6)
