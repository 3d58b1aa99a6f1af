"""V2 over gRPC with the client that has to work unchanged: tritonclient."""

import queue
import shutil
from contextlib import contextmanager

import numpy as np
import psutil
import pytest

from testbed.commands import python
from testbed.patience import eventually

grpcclient = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")

ROWS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
PATIENCE_S = 60


class Client:
    """Tritonclient, with requests of one line."""

    def __init__(self, proxy, **options):
        self.triton = grpcclient.InferenceServerClient(proxy.first["grpc"], **options)

    def infer(self, model, outputs=("y",), headers=None, **inputs):
        reply = self.triton.infer(
            model, given(**inputs), client_timeout=PATIENCE_S, headers=headers
        )
        return [reply.as_numpy(name) for name in outputs]

    def refused(self, *arguments, **inputs):
        """The code and the text of the error that an inference ends with."""
        return refused(lambda: self.infer(*arguments, **inputs))


def given(**inputs):
    kinds = {"float32": "FP32", "int64": "INT64", "float16": "FP16", "bool": "BOOL"}
    found = []
    for name, array in inputs.items():
        found.append(grpcclient.InferInput(name, array.shape, kinds[str(array.dtype)]))
        found[-1].set_data_from_numpy(array)
    return found


def refused(call):
    with pytest.raises(grpcclient.InferenceServerException) as error:
        call()
    return error.value.status().removeprefix("StatusCode."), error.value.message()


@pytest.fixture
def connect():
    """A function that makes clients of proxies; all are closed when the test ends."""
    clients = []

    def make(proxy, **options):
        clients.append(Client(proxy, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.triton.close()


@pytest.fixture
def start(start_proxy):
    """Like start_proxy, with the gRPC service on a free port."""

    def start(model, settings=None, **config):
        return start_proxy(model, {"grpc_port": 0, **(settings or {})}, **config)

    return start


def test_health_metadata_and_configuration(start, connect, models):
    triton = connect(start(models.affine(), max_batch_size=16)).triton
    assert triton.is_server_live()
    assert triton.is_server_ready()
    ready = [triton.is_model_ready("affine", version) for version in ("", "1", "2")]
    assert ready == [True, True, False]
    server = triton.get_server_metadata()
    assert server.name == "dlbench"
    assert "statistics" in server.extensions
    model = triton.get_model_metadata("affine")
    assert (model.name, list(model.versions)) == ("affine", ["1"])
    (x,) = model.inputs
    assert (x.name, x.datatype, list(x.shape)) == ("x", "FP32", [-1, 3])
    config = triton.get_model_config("affine").config
    assert (config.name, config.max_batch_size) == ("affine", 16)
    assert list(config.input[0].dims) == [3]
    assert refused(lambda: triton.get_model_metadata("other"))[0] == "NOT_FOUND"
    assert refused(lambda: triton.get_system_shared_memory_status())[0] == "UNIMPLEMENTED"


def test_inference(start, connect, models):
    client = connect(start(models.affine()))
    np.testing.assert_array_equal(client.infer("affine", x=ROWS), [2 * ROWS + 1])
    reply = client.triton.infer("affine", given(x=ROWS), model_version="1", request_id="7")
    message = reply.get_response()
    assert (message.id, message.model_name, message.model_version) == ("7", "affine", "1")
    assert message.raw_output_contents
    (stats,) = client.triton.get_inference_statistics("affine").model_stats
    assert (stats.inference_count, stats.inference_stats.success.count) == (4, 2)
    assert len(client.triton.get_inference_statistics().model_stats) == 1
    assert client.refused("other", x=ROWS) == (
        "NOT_FOUND",
        "unknown model 'other'; served here: affine (version 1)",
    )
    code, text = client.refused("affine", x=ROWS[:, :2])
    assert (code, "'x'" in text) == ("INVALID_ARGUMENT", True)
    code, text = client.refused("affine", z=ROWS)
    assert (code, "'x' is missing" in text) == ("INVALID_ARGUMENT", True)


def test_other_datatypes_and_a_batch_on_another_axis(start, connect, models):
    kinds = connect(start(models.kinds()))
    positive, half = kinds.infer("kinds", outputs=("positive", "half"), x=ROWS - 3)
    np.testing.assert_array_equal(positive, ROWS > 3)
    np.testing.assert_array_equal(half, (ROWS - 3).astype(np.float16))
    client = connect(start(models.second_axis()))
    state = np.ones((2, 2, 4), np.float32)
    y, after = client.infer("second_axis", outputs=("y", "next"), x=ROWS, state=state)
    np.testing.assert_array_equal(y, ROWS + ROWS)
    np.testing.assert_array_equal(after, state + ROWS.sum(axis=1)[:, None])


def test_a_stream_answers_in_order_and_outlives_an_error(start, connect, models):
    client = connect(start(models.affine(), workers=2))
    replies = queue.Queue()
    client.triton.start_stream(lambda result, error: replies.put((result, error)))
    for i in range(200):
        rows = ROWS[:, :2] if i == 100 else ROWS + i
        client.triton.async_stream_infer("affine", given(x=rows), request_id=str(i))
    for i in range(200):
        result, error = replies.get(timeout=PATIENCE_S)
        if i == 100:
            assert "'x'" in error.message()
            continue
        assert error is None
        assert result.get_response().id == str(i)
        np.testing.assert_array_equal(result.as_numpy("y"), 2 * (ROWS + i) + 1)
    client.triton.stop_stream()
    assert client.triton.is_server_ready()


@contextmanager
def held(proxy):
    """Nothing is computed meanwhile."""
    (worker,) = map(psutil.Process, proxy.workers())
    worker.suspend()
    try:
        yield
    finally:
        worker.resume()


def ask(client, count=1, **more):
    """Ask and go on; a queue of (result, error)."""
    outcomes = queue.Queue()
    for _ in range(count):
        client.triton.async_infer(
            "affine",
            given(x=ROWS),
            callback=lambda result, error: outcomes.put((result, error)),
            client_timeout=PATIENCE_S,
            **more,
        )
    return outcomes


def test_a_stream_cut_short_leaves_the_proxy_as_it_was(start, connect, models):
    proxy = start(models.affine())
    client = connect(proxy)
    with held(proxy):
        client.triton.start_stream(lambda result, error: None)
        for _ in range(100):
            client.triton.async_stream_infer("affine", given(x=ROWS))
        client.triton.stop_stream(cancel_requests=True)
    np.testing.assert_array_equal(client.infer("affine", x=ROWS), [2 * ROWS + 1])


def test_overload_and_deadlines_have_codes_of_their_own(start, connect, models):
    """The worker is stopped, so that the queue fills and time-outs pass."""
    proxy = start(models.affine(), max_queue_size=2)
    client = connect(proxy)
    with held(proxy):
        outcomes = ask(client, 12)
        _, full = outcomes.get(timeout=PATIENCE_S)
        assert full.status() == "StatusCode.UNAVAILABLE"
    errors = [full, *(outcomes.get(timeout=PATIENCE_S)[1] for _ in range(11))]
    assert None in errors
    assert {error.status() for error in errors if error} == {"StatusCode.UNAVAILABLE"}


def test_a_request_is_not_run_after_its_timeout(start, connect, models):
    proxy = start(models.affine())
    client = connect(proxy)
    with held(proxy):
        outcomes = ask(client, 12, timeout=1000)
        _, late = outcomes.get(timeout=PATIENCE_S)
        assert late.status() == "StatusCode.DEADLINE_EXCEEDED"
    for _ in range(11):
        outcomes.get(timeout=PATIENCE_S)


def test_a_killed_worker_is_replaced_beside_grpc(start, connect, models):
    proxy = start(models.affine())
    client = connect(proxy)
    for _ in range(3):
        before = proxy.workers()
        psutil.Process(before[0]).kill()
        np.testing.assert_array_equal(client.infer("affine", x=ROWS), [2 * ROWS + 1])
        assert proxy.workers() != before


def test_models_come_and_go(start, connect, models, tmp_path):
    shutil.copy(models.affine(), tmp_path / "other.onnx")
    client = connect(start(models.fixed(), {"repository": str(tmp_path)}))
    states = {m.name: m.state for m in client.triton.get_model_repository_index().models}
    assert states == {"fixed": "READY", "other": "UNAVAILABLE"}
    assert client.refused("other", x=ROWS)[0] == "NOT_FOUND"
    client.triton.load_model("other", config='{"max_batch_size": 4}')
    np.testing.assert_array_equal(client.infer("other", x=ROWS), [2 * ROWS + 1])
    assert client.triton.get_model_config("other").config.max_batch_size == 4
    client.triton.unload_model("other")
    assert client.refused("other", x=ROWS)[0] == "NOT_FOUND"
    code, text = refused(lambda: client.triton.load_model("third"))
    assert (code, "third" in text) == ("INVALID_ARGUMENT", True)


def test_a_token_opens_everything_but_the_probes_which_are_open(start, connect, models, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    client = connect(start(models.affine(), {"token_file": str(tokens)}))
    assert client.triton.is_server_live()
    assert client.triton.is_server_ready()
    assert client.refused("affine", x=ROWS)[0] == "UNAUTHENTICATED"
    wrong = {"authorization": "Bearer wrong"}
    assert client.refused("affine", headers=wrong, x=ROWS)[0] == "UNAUTHENTICATED"
    assert refused(client.triton.get_server_metadata)[0] == "UNAUTHENTICATED"
    right = {"authorization": "Bearer secret"}
    np.testing.assert_array_equal(client.infer("affine", headers=right, x=ROWS), [2 * ROWS + 1])
    outcomes = queue.Queue()
    client.triton.start_stream(lambda result, error: outcomes.put(error))
    assert outcomes.get(timeout=PATIENCE_S).status() == "StatusCode.UNAUTHENTICATED"
    client.triton.stop_stream()


def test_tls(start, connect, models, certificate):
    ours, key = (f"{certificate}/localhost.{suffix}" for suffix in ("pem", "key"))
    files, authority = {"tls_cert": ours, "tls_key": key}, {"ssl": True, "root_certificates": ours}
    client = connect(start(models.affine(), files), **authority)
    np.testing.assert_array_equal(client.infer("affine", x=ROWS), [2 * ROWS + 1])
    demanding = start(models.affine(), {**files, "tls_client_ca": ours})
    stranger = connect(demanding, **authority)
    assert stranger.refused("affine", x=ROWS)[0] == "UNAVAILABLE"
    known = connect(demanding, **authority, private_key=key, certificate_chain=ours)
    np.testing.assert_array_equal(known.infer("affine", x=ROWS), [2 * ROWS + 1])


def test_a_message_over_the_limit_is_refused(start, connect, models):
    client = connect(start(models.affine(), {"max_body_mb": 1}))
    large = np.zeros((1 << 17, 3), np.float32)
    assert client.refused("affine", x=large)[0] == "RESOURCE_EXHAUSTED"
    np.testing.assert_array_equal(client.infer("affine", x=ROWS), [2 * ROWS + 1])


def test_a_request_under_way_is_answered_when_the_proxy_stops(start, connect, models):
    proxy = start(models.affine())
    client = connect(proxy)
    with held(proxy):
        outcomes = ask(client)
        eventually(lambda: proxy.ask("counters")["in_flight"])
        assert proxy.ask("stop") == {"ok": True}
    result, error = outcomes.get(timeout=PATIENCE_S)
    assert error is None
    np.testing.assert_array_equal(result.as_numpy("y"), 2 * ROWS + 1)


def test_a_port_in_use_is_named(start, models):
    first = start(models.affine())
    port = int(first.first["grpc"].rpartition(":")[2])
    second = start(models.affine(), {"grpc_port": port})
    assert f"127.0.0.1:{port}" in second.first["error"]
    assert "--grpc-port" in second.first["error"]


def test_without_the_extra_the_error_says_how_to_get_it():
    code = "import sys; sys.modules['grpc'] = None; import dlbench.proxy.protocols.grpc.server"
    done = python(code)
    assert "StartError: --grpc-port needs grpc: pip install 'dlbench[grpc]'" in done.stderr


def test_health_as_a_kubelet_asks_for_it(start, models):
    """grpc.health.v1, byte for byte: field 1 is the model's name, and then the status."""
    import grpc

    proxy = start(models.affine())
    with grpc.insecure_channel(proxy.first["grpc"]) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=PATIENCE_S) == b"\x08\x01"
        assert check(b"\x0a\x06affine", timeout=PATIENCE_S) == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as error:
            check(b"\x0a\x05other", timeout=PATIENCE_S)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        assert "affine (version 1)" in error.value.details()
