"""The load generator's targets against the real proxy: discovered, asked once, and judged."""

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest

from dlbench.loadgen.errors import TargetError
from dlbench.loadgen.profile import LoadProfile
from dlbench.loadgen.protocols.discovery import discover
from dlbench.loadgen.protocols.judge import judge_of
from dlbench.loadgen.protocols.payloads import requests_of
from dlbench.loadgen.protocols.table import PROTOCOLS

HTTP = {
    "V2 JSON": ("/v2/models/{}", {"encoding": "json"}),
    "V2 binary": ("/v2/models/{}", {"encoding": "binary"}),
    "TensorFlow Serving": ("/v1/models/{}", {}),
    "TorchServe JSON": ("/predictions/{}", {"shape": {"x": (3,)}}),
    "TorchServe raw": ("/predictions/{}", {"shape": {"x": (3,)}, "encoding": "binary"}),
    "plain JSON": ("/predict", {"shape": {"x": (1, 3)}, "template": '{"input": $x}'}),
}


def ask(url, profile, number=0, context=True):
    """Discover, send one request as the generator would, and return its reply and the verdict."""
    target = discover(url, profile)
    requests = requests_of(target, profile, 1)
    judge = judge_of(target, profile, requests)
    head, _, body = bytes(requests.at(number)).partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    reply = httpx.request(
        "POST",
        target.url + line.split(" ")[1],
        content=body,
        headers=headers,
        timeout=60,
        verify=context,
        trust_env=False,
    )
    assert reply.status_code == 200, reply.text
    return target, reply, judge


@pytest.mark.parametrize("case", HTTP)
def test_nan_and_infinity_go_in_and_come_out(shared_proxies, models, tmp_path, case):
    """log(0) is -inf, log(-1) is NaN, log(inf) is inf; log(1) is 0."""
    path, options = HTTP[case]
    options = {name: given for name, given in options.items() if name != "shape"}
    rows = [[0, -1], [np.inf, np.nan], [1, 1]]
    np.savez(tmp_path / "data.npz", x=np.array(rows, np.float32))
    expected = [[-np.inf, np.nan], [np.inf, np.nan], [0, 0]]
    np.savez(tmp_path / "expected.npz", y=np.array(expected, np.float32))
    profile = LoadProfile(
        data=str(tmp_path / "data.npz"), check=str(tmp_path / "expected.npz"), **options
    )
    url = shared_proxies(models.log()).url + path.format("log")
    for number in range(3):
        _, reply, judge = ask(url, profile, number)
        assert judge(reply.content, number) == "", reply.content
        assert judge(reply.content, (number + 1) % 3) == "wrong_output"


@pytest.mark.parametrize("case", HTTP)
def test_every_protocol_is_answered_and_judged(shared_proxies, models, case):
    path, options = HTTP[case]
    url = shared_proxies(models.affine()).url + path.format("affine")
    target, reply, judge = ask(url, LoadProfile(**options))
    assert judge(reply.content, 0) == judge(reply.content, 1) == ""
    assert judge(reply.content[:-1], 0) != ""
    assert judge(b'{"error": "none"}', 0) == "wrong_shape"
    (spec,) = target.inputs
    assert (spec.name, spec.datatype) == ("x", "FP32")


@pytest.mark.parametrize("case", ["V2 JSON", "V2 binary", "TensorFlow Serving"])
@pytest.mark.parametrize("model", ["difference", "second_axis", "kinds", "scaled"])
def test_models_of_several_tensors_and_types(shared_proxies, models, case, model):
    path, options = HTTP[case]
    url = shared_proxies(getattr(models, model)()).url + path.format(model)
    _, reply, judge = ask(url, LoadProfile(**options))
    assert judge(reply.content, 0) == ""


@pytest.mark.parametrize("case", HTTP)
def test_another_model_of_the_same_name_has_the_wrong_shape(shared_proxies, models, case):
    """As if what is served were exchanged under load: what was right is wrong from then on."""
    path, options = HTTP[case]
    shape = {"shape": {"x": (4,) if "Torch" in case else (1, 4)}} if "shape" in options else {}
    narrow = shared_proxies(models.affine()).url
    wide = shared_proxies(models.affine("wide", ("batch", 4))).url
    _, right, judge = ask(narrow + path.format("affine"), LoadProfile(**options))
    _, wrong, _ = ask(wide + path.format("wide"), LoadProfile(**{**options, **shape}))
    assert judge(right.content, 0) == ""
    assert judge(wrong.content, 1) == "wrong_shape"


@pytest.mark.parametrize("case", HTTP)
def test_expected_outputs_are_compared(shared_proxies, models, tmp_path, case):
    path, options = HTTP[case]
    options = {name: value for name, value in options.items() if name != "shape"}
    rows = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    shaped = rows[:, None] if case == "plain JSON" else rows
    np.savez(tmp_path / "data.npz", x=shaped)
    np.savez(tmp_path / "check.npz", y=2 * rows + 1)
    given = {"data": str(tmp_path / "data.npz"), "check": str(tmp_path / "check.npz")}
    url = shared_proxies(models.affine()).url + path.format("affine")
    for number in (0, 1, 2):
        _, reply, judge = ask(url, LoadProfile(**options, **given), number)
        assert judge(reply.content, number) == ""
        assert judge(reply.content, number + 1) == "wrong_output"


def test_v2_says_what_the_server_can(shared_proxies, models):
    target = discover(shared_proxies(models.affine()).url, LoadProfile())
    assert (target.protocol, target.model, target.path) == (
        "v2",
        "affine",
        "/v2/models/affine/infer",
    )
    assert (target.supports_binary, target.statistics) == (True, True)
    assert [(spec.name, spec.row_shape) for spec in target.outputs] == [("y", (1, 3))]


WRONG = {
    "an unknown model of TensorFlow Serving": ("/v1/models/other", {}, "not as TensorFlow Serving"),
    "an unknown model of TorchServe": ("/predictions/other", {"shape": {"x": (3,)}}, "rejects"),
    "TorchServe without shapes": ("/predictions/affine", {}, "--shape NAME"),
    "a wrong shape": ("/predictions/affine", {"shape": {"x": (9,)}}, "rejects .* 'x'"),
    "no V2": ("/predict", {}, "--protocol plain"),
    "a template without inputs": (
        "/predict",
        {"template": "{}", "shape": {"x": (3,)}},
        "name inputs",
    ),
    "a template of another input": (
        "/predict",
        {"template": '{"a": $a}', "shape": {"x": (3,)}},
        r"no \$a",
    ),
    "a template that is not JSON": (
        "/predict",
        {"template": "{$x}", "shape": {"x": (3,)}},
        "not JSON",
    ),
    "no token": ("", {"token_file": "/does/not/exist"}, "--token-file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(shared_proxies, models, case):
    path, options, message = WRONG[case]
    with pytest.raises(TargetError, match=message) as caught:
        discover(shared_proxies(models.affine()).url + path, LoadProfile(**options))
    assert "\n" not in str(caught.value)


# --- gRPC -----------------------------------------------------------------------------------------


def call(target, requests, number, token=None):
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    with grpc.insecure_channel(target.authority) as channel:
        metadata = [("authorization", f"Bearer {token}")] if token else []
        return channel.unary_unary(target.path)(
            bytes(requests.at(number)), timeout=60, metadata=metadata
        )


@pytest.fixture
def grpc_proxy(start_proxy):
    pytest.importorskip("grpc", reason="grpcio is not installed")
    return lambda model, **settings: start_proxy(model, {"grpc_port": 0, **settings})


def test_grpc(grpc_proxy, models):
    proxy = grpc_proxy(models.second_axis())
    target = discover(f"grpc://{proxy.first['grpc']}", LoadProfile())
    assert (target.model, target.protocol, target.statistics) == ("second_axis", "grpc", True)
    profile = LoadProfile(request_class={"urgent": {"priority": 1, "deadline_ms": 9000}})
    requests = requests_of(target, profile, 1)
    judge = judge_of(target, profile, requests)
    reply = call(target, requests, 0)
    assert judge(reply, 0) == judge(call(target, requests, 1), 1) == ""
    assert judge(reply[:-4], 0) == "not_protobuf"
    assert judge(b"", 0) == "wrong_shape"


def test_grpc_with_a_token(grpc_proxy, models, tmp_path):
    (tmp_path / "tokens").write_text("secret\n")
    proxy = grpc_proxy(models.affine(), token_file=str(tmp_path / "tokens"))
    url = f"grpc://{proxy.first['grpc']}/affine"
    with pytest.raises(TargetError, match="UNAUTHENTICATED"):
        discover(url, LoadProfile())
    profile = LoadProfile(token_file=str(tmp_path / "tokens"))
    target = discover(url, profile)
    assert call(target, requests_of(target, profile, 1), 0, "secret")


def test_grpc_that_is_not_there(grpc_proxy, models):
    proxy = grpc_proxy(models.affine())
    with pytest.raises(TargetError, match="'other' is not ready"):
        discover(f"grpc://{proxy.first['grpc']}/other", LoadProfile())
    with pytest.raises(TargetError, match=r"UNAVAILABLE|UNKNOWN|INTERNAL"):
        discover(f"grpc://{proxy.address[0]}:{proxy.address[1]}/affine", LoadProfile())


def test_without_grpcio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "grpc", None)
    with pytest.raises(TargetError, match=r"dlbench\[grpc\]"):
        discover("grpc://127.0.0.1:1", LoadProfile())


def test_every_protocol_is_tried_here():
    assert set(PROTOCOLS) == {"v2", "tfserving", "torchserve", "plain", "grpc"}


# --- tokens and TLS -------------------------------------------------------------------------------


def test_a_token_opens_the_server(start_proxy, models, tmp_path):
    (tmp_path / "tokens").write_text("secret\n")
    url = start_proxy(models.affine(), {"token_file": str(tmp_path / "tokens")}).url
    with pytest.raises(TargetError, match="--token-file"):
        discover(url, LoadProfile())
    _, reply, judge = ask(url, LoadProfile(token_file=str(tmp_path / "tokens")))
    assert judge(reply.content, 0) == ""


def test_tls(start_proxy, models, certificate):
    cert, key = (f"{certificate}/localhost.{suffix}" for suffix in ("pem", "key"))
    url = start_proxy(models.affine(), {"tls_cert": cert, "tls_key": key}).url
    url = url.replace("http://", "https://")
    with pytest.raises(TargetError, match="--tls-ca"):
        discover(url, LoadProfile())
    assert discover(url, LoadProfile(tls_insecure=True)).tls
    context = ssl.create_default_context(cafile=cert)
    target, reply, judge = ask(url, LoadProfile(tls_ca=cert), context=context)
    assert (target.tls, judge(reply.content, 0)) == (True, "")
    with pytest.raises(TargetError, match=r"--tls-ca missing: .*No such file"):
        discover(url, LoadProfile(tls_ca="missing"))


def test_tls_of_grpc(grpc_proxy, models, certificate):
    cert, key = (f"{certificate}/localhost.{suffix}" for suffix in ("pem", "key"))
    address = grpc_proxy(models.affine(), tls_cert=cert, tls_key=key).first["grpc"]
    assert discover(f"grpcs://{address}", LoadProfile(tls_ca=cert)).authority == address
    with pytest.raises(TargetError, match="--tls-ca"):
        discover(f"grpcs://{address}", LoadProfile(tls_insecure=True))
    with pytest.raises(TargetError, match=r"--tls-ca missing: .*No such file"):
        discover(f"grpcs://{address}", LoadProfile(tls_ca="missing"))


# --- a V2 server whose metadata is empty, as MLServer's is for a model that declares nothing ------


class Undeclared(BaseHTTPRequestHandler):
    """Serves y = x, and says of `m` nothing but its name."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"name": "m", "inputs": [], "outputs": []})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({"outputs": [{**asked["inputs"][0], "name": "y"}]})

    def answer(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def undeclared():
    with ThreadingHTTPServer(("127.0.0.1", 0), Undeclared) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v2/models/m"
        server.shutdown()
        thread.join()


def test_inputs_that_a_v2_server_does_not_name_are_stated(undeclared, tmp_path):
    with pytest.raises(TargetError, match=r"lists no inputs.*--shape"):
        discover(undeclared, LoadProfile())
    target, reply, _ = ask(undeclared, LoadProfile(shape={"x": (1, 4)}))
    assert (target.inputs[0].shape, reply.json()["outputs"][0]["shape"]) == ((1, 4), [1, 4])
    np.savez(tmp_path / "data.npz", x=np.array([[[7, 8]], [[9, 10]]]))
    target, reply, _ = ask(undeclared, LoadProfile(data=str(tmp_path / "data.npz")), 1)
    assert reply.json()["outputs"][0]["data"] == [9, 10]
    assert target.inputs[0].datatype == "INT64"
