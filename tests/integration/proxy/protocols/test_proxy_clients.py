"""Clients that people have, unmodified, and one proxy: the same numbers in every protocol."""

import gzip
import json
import shutil
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

TOKEN = "a-secret-of-many-characters"
BEARER = {"authorization": f"Bearer {TOKEN}"}
ROWS = 3


def mlp_input(seed=0, rows=ROWS):
    return np.random.default_rng(seed).normal(size=(rows, 256)).astype(np.float32)


@pytest.fixture(scope="module", params=["open", "guarded"])
def served(request, certificate, tmp_path_factory, module_proxy):
    """demo:mlp over HTTP and gRPC, in the clear or behind TLS and tokens."""
    if request.param == "open":
        return Served(module_proxy("demo:mlp", {"grpc_port": 0}), None)
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(TOKEN + "\n")
    settings = {
        "grpc_port": 0,
        "token_file": str(tokens),
        "tls_cert": str(certificate / "localhost.pem"),
        "tls_key": str(certificate / "localhost.key"),
    }
    return Served(module_proxy("demo:mlp", settings), certificate / "localhost.pem")


class Served:
    """A proxy and how to talk to it; `authority` is None without TLS."""

    def __init__(self, proxy, authority):
        self.proxy, self.authority = proxy, authority
        self._headers = {} if authority is None else BEARER
        self.address = f"localhost:{proxy.address[1]}"

    @property
    def headers(self):
        return dict(self._headers)  # tritonclient writes into them

    def httpx(self, **options):
        verify = True if self.authority is None else self.context()
        options = {"headers": self.headers, "verify": verify, "timeout": 30, **options}
        return httpx.Client(base_url=self.url, **options)

    @property
    def url(self):
        return f"{'http' if self.authority is None else 'https'}://{self.address}"

    def context(self):
        return ssl.create_default_context(cafile=self.authority)

    def triton(self, protocol):
        """A client of tritonclient, and its module."""
        tls = self.authority is not None
        if protocol == "http":
            options = {"ssl": True, "ssl_context_factory": self.context} if tls else {}
            return triton_http.InferenceServerClient(self.address, **options), triton_http
        options = {"ssl": True, "root_certificates": str(self.authority)} if tls else {}
        address = "localhost:" + self.proxy.first["grpc"].rpartition(":")[2]
        return triton_grpc.InferenceServerClient(address, **options), triton_grpc

    def curl(self, path, *options):
        if shutil.which("curl") is None:
            pytest.skip("there is no curl here")
        trust = [] if self.authority is None else ["--cacert", str(self.authority)]
        head = [word for name, value in self.headers.items() for word in ("-H", f"{name}: {value}")]
        command = ["curl", "--silent", "--show-error", *trust, *head, *options]
        return subprocess.run(
            [*command, self.url + path], capture_output=True, timeout=60, check=True
        ).stdout


@pytest.fixture(scope="module")
def expected(served):
    """What V2 in bytes answers to `mlp_input()`: everybody else has to say the same."""
    client, triton = served.triton("http")
    with client:
        return inferred(served, client, triton, mlp_input())


def inferred(served, client, triton, array, **options):
    tensor = triton.InferInput("input", array.shape, "FP32")
    tensor.set_data_from_numpy(array)
    return client.infer("mlp", [tensor], headers=served.headers, **options).as_numpy("output")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tritonclient(served, expected, protocol):
    client, triton = served.triton(protocol)
    with client:
        assert client.is_server_ready()
        assert client.is_model_ready("mlp", headers=served.headers)
        for _ in range(3):
            np.testing.assert_array_equal(
                inferred(served, client, triton, mlp_input(), request_id="7"), expected
            )
        with pytest.raises(InferenceServerException, match="input"):
            inferred(served, client, triton, mlp_input()[:, :5])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tritonclient_with_many_requests_under_way(served, protocol):
    arrays = [mlp_input(seed, 1 + seed % 4) for seed in range(40)]
    client, triton = served.triton(protocol)
    with client:
        lone = [inferred(served, client, triton, array) for array in arrays]

    def ask(array):
        client, triton = served.triton(protocol)
        with client:
            return inferred(served, client, triton, array)

    with ThreadPoolExecutor(8) as pool:
        for found, alone in zip(pool.map(ask, arrays), lone, strict=True):
            np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-6)


def bodies(array):
    """Path, body and where the numbers are, of every protocol that speaks JSON."""
    rows = array.tolist()
    tensor = {"name": "input", "datatype": "FP32", "shape": list(array.shape)}
    flat = {**tensor, "data": array.ravel().tolist()}
    nested = {**tensor, "data": rows}
    return {
        "v2": ("/v2/models/mlp/infer", {"inputs": [flat]}, ["outputs", 0, "data"]),
        "v2 nested": ("/v2/models/mlp/infer", {"inputs": [nested]}, ["outputs", 0, "data"]),
        "v2 version": (
            "/v2/models/mlp/versions/1/infer",
            {"inputs": [flat]},
            ["outputs", 0, "data"],
        ),
        "tf rows": ("/v1/models/mlp:predict", {"instances": rows}, ["predictions"]),
        "tf columns": ("/v1/models/mlp:predict", {"inputs": rows}, ["outputs"]),
        "torchserve": ("/predictions/mlp", rows, []),
        "plain": ("/predict", {"input": rows}, ["output"]),
        "plain by name": ("/predict", {"inputs": {"input": rows}}, ["outputs", "output"]),
    }


NAMES = list(bodies(mlp_input()))


def numbers(document, where):
    for key in where:
        document = document[key]
    return np.array(document, np.float32).reshape(ROWS, -1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_every_protocol_gives_the_same_numbers(served, expected, name, coding):
    path, body, where = bodies(mlp_input())[name]
    content = json.dumps(body).encode()
    headers = {"content-type": "application/json", "accept-encoding": coding}
    if coding == "gzip":
        content, headers["content-encoding"] = gzip.compress(content), "gzip"
    with served.httpx() as client:
        reply = client.post(path, content=content, headers=headers)
        assert reply.status_code == 200, reply.text
        np.testing.assert_array_equal(numbers(reply.json(), where), expected)


@pytest.mark.parametrize("name", NAMES)
def test_submitted_now_and_fetched_later(served, expected, name):
    path, body, where = bodies(mlp_input())[name]
    with served.httpx() as client:
        reply = client.post(path, json=body, headers={"prefer": "respond-async"})
        assert (reply.status_code, reply.headers["preference-applied"]) == (202, "respond-async")
        location = reply.headers["location"]
        while (found := client.get(location)).status_code == 202:
            assert found.headers["retry-after"] == "1"
        np.testing.assert_array_equal(numbers(found.json(), where), expected)
        assert client.get(location).content == found.content
        packed = client.get(location, headers={"accept-encoding": "gzip"})
        assert packed.content == found.content
        assert client.delete(location).status_code == 200
        assert client.get(location).status_code == 404


def test_bytes_submitted_now_and_fetched_later(served, expected):
    """The reply has a part in JSON and a part in bytes, and says where it is cut."""
    tensor = triton_http.InferInput("input", (ROWS, 256), "FP32")
    tensor.set_data_from_numpy(mlp_input())
    body, size = triton_http.InferenceServerClient.generate_request_body([tensor])
    headers = {"inference-header-content-length": str(size), "prefer": "respond-async"}
    with served.httpx() as client:
        reply = client.post("/v2/models/mlp/infer", content=body, headers=headers)
        location = reply.headers["location"]
        while (found := client.get(location)).status_code == 202:
            pass
    result = triton_http.InferenceServerClient.parse_response_body(
        found.content, header_length=int(found.headers["inference-header-content-length"])
    )
    np.testing.assert_array_equal(result.as_numpy("output"), expected)


def test_an_error_is_fetched_later_too(module_proxy, models):
    proxy = module_proxy(models.picky())
    body = {"inputs": [{"name": "i", "datatype": "INT64", "shape": [1], "data": [77]}]}
    with httpx.Client(base_url=proxy.url) as client:
        reply = client.post(
            "/v2/models/picky/infer", json=body, headers={"prefer": "respond-async"}
        )
        assert reply.status_code == 202
        while (found := client.get(reply.headers["location"])).status_code == 202:
            pass
        assert found.status_code == 400
        assert "the model refused" in found.json()["error"]


def test_httpx_keeps_one_connection_for_all(served, expected):
    path, body, where = bodies(mlp_input())["v2"]
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    with served.httpx(limits=limits) as client:
        ports = set()
        for _ in range(20):
            with client.stream("POST", path, json=body) as reply:
                stream = reply.extensions["network_stream"]
                ports.add(stream.get_extra_info("client_addr"))
                reply.read()
            assert reply.http_version == "HTTP/1.1"
            np.testing.assert_array_equal(numbers(reply.json(), where), expected)
            assert client.post(path, content=b"{").status_code == 400
        assert len(ports) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_large_reply_is_packed_for_who_accepts_that(served, expected, name):
    path, body, _ = bodies(mlp_input(rows=200))[name]
    with served.httpx() as client:
        plain = client.post(path, json=body, headers={"accept-encoding": "identity"})
        packed = client.post(path, json=body, headers={"accept-encoding": "gzip, deflate"})
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert "accept-encoding" in packed.headers["vary"]
        assert int(packed.headers["content-length"]) < len(plain.content)
        assert packed.json() == plain.json()


@pytest.mark.parametrize("name", ["v2", "tf rows", "torchserve", "plain"])
def test_curl(served, expected, tmp_path, name):
    path, body, where = bodies(mlp_input())[name]
    file = tmp_path / "request.json"
    file.write_text(json.dumps(body))
    found = json.loads(served.curl(path, "--compressed", "-d", f"@{file}"))
    np.testing.assert_array_equal(numbers(found, where), expected)


def test_curl_with_a_body_for_which_it_asks_first(served, tmp_path):
    """The answer to Expect: 100-continue comes, or curl would wait for a minute."""
    file = tmp_path / "request"
    file.write_bytes(mlp_input(rows=2000).tobytes())
    headers = ["-H", "Content-Type: application/octet-stream"]
    headers += ["-H", "Inference-Header-Content-Length: 0", "-H", "Expect: 100-continue"]
    form = ["-o", str(tmp_path / "reply"), "-w", "%{http_code}"]
    found = served.curl(
        "/v2/models/mlp/infer", "--data-binary", f"@{file}", "--expect100-timeout", "60",
        *headers, *form,
    )  # fmt: skip
    assert found == b"200"
    (output,) = json.loads((tmp_path / "reply").read_bytes())["outputs"]
    assert output["shape"][0] == 2000


def test_curl_fetches_later(served, tmp_path):
    file = tmp_path / "request.json"
    file.write_text(json.dumps(bodies(mlp_input())["v2"][1]))
    head = served.curl(
        "/v2/models/mlp/infer", "-i", "-H", "Prefer: respond-async", "-d", f"@{file}"
    ).decode()
    assert head.startswith("HTTP/1.1 202 ")
    (location,) = [
        line.partition(": ")[2].strip()
        for line in head.splitlines()
        if line.startswith("location: ")
    ]
    while not (body := served.curl(location)):
        pass
    assert json.loads(body)["outputs"][0]["shape"][0] == ROWS
    assert served.curl(location, "-X", "DELETE", "-w", "%{http_code}") == b"200"


@pytest.mark.parametrize("served", ["guarded"], indirect=True)
def test_strangers_stay_outside_in_every_protocol(served):
    for headers in ({}, {"authorization": "Bearer another"}, {"authorization": TOKEN}):
        with served.httpx(headers=headers) as client:
            for path, body, _ in bodies(mlp_input()).values():
                reply = client.post(path, json=body)
                assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
            for path in ("/metrics", "/v2/models/mlp", "/v2/async/x", "/v2", "/models"):
                assert client.get(path).status_code == 401
            assert client.get("/v2/health/live").status_code == 200
        client, triton = served.triton("grpc")
        tensor = triton.InferInput("input", (ROWS, 256), "FP32")
        tensor.set_data_from_numpy(mlp_input())
        with client, pytest.raises(InferenceServerException) as error:
            client.infer("mlp", [tensor], headers=headers)
        assert error.value.status() == "StatusCode.UNAUTHENTICATED"
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(served.url)


@pytest.fixture(scope="module")
def second_axis(models, module_proxy):
    return module_proxy(models.second_axis(), {"grpc_port": 0}, max_batch_size=8)


def test_a_batch_on_another_axis_is_the_same_in_every_protocol(second_axis):
    x = np.random.default_rng(1).normal(size=(ROWS, 3)).astype(np.float32)
    state = np.random.default_rng(2).normal(size=(2, ROWS, 4)).astype(np.float32)
    following = state + x.sum(axis=1, keepdims=True)
    found = {}
    for triton, address in (
        (triton_http, "{}:{}".format(*second_axis.address)),
        (triton_grpc, second_axis.first["grpc"]),
    ):
        inputs = []
        for name, array in (("x", x), ("state", state)):
            inputs.append(triton.InferInput(name, array.shape, "FP32"))
            inputs[-1].set_data_from_numpy(array)
        with triton.InferenceServerClient(address) as client:
            found[triton.__name__] = client.infer("second_axis", inputs).as_numpy("next")
    rows = [{"x": x[i].tolist(), "state": state[:, i].tolist()} for i in range(ROWS)]
    columns = {"x": x.tolist(), "state": state.tolist()}
    with httpx.Client(base_url=second_axis.url) as client:
        for path, body, key in (
            ("/v1/models/second_axis:predict", {"instances": rows}, "predictions"),
            ("/predictions/second_axis", {"instances": rows}, "predictions"),
        ):
            answers = client.post(path, json=body).json()[key]
            found[path] = np.stack([answer["next"] for answer in answers], axis=1)
        for path, body in (
            ("/v1/models/second_axis:predict", {"inputs": columns}),
            ("/predict", {"inputs": columns}),
        ):
            found[path, "columns"] = client.post(path, json=body).json()["outputs"]["next"]
    for name, answer in found.items():
        np.testing.assert_allclose(answer, following, rtol=1e-5, atol=1e-6, err_msg=str(name))


def test_numbers_go_there_and_back_unchanged(module_proxy, models):
    """The least and the largest, the smallest steps: JSON carries them as bytes do."""
    proxy = module_proxy(models.affine("same", factor=1))
    kinds = np.finfo(np.float32)
    x = np.array([[kinds.max / 2, kinds.tiny, 1 / 3], [-0.1, 16777216.0, kinds.eps]], np.float32)
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": x.ravel().tolist()}
    expected = x + np.float32(1)
    with httpx.Client(base_url=proxy.url) as client:
        v2 = client.post("/v2/models/same/infer", json={"inputs": [tensor]}).json()
        tf = client.post("/v1/models/same:predict", json={"instances": x.tolist()}).json()
        plain = client.post("/predict", json={"input": x.tolist()}).json()
        raw = client.post(
            "/v2/models/same/infer",
            content=x.tobytes(),
            headers={"inference-header-content-length": "0"},
        ).json()
    for found in (
        v2["outputs"][0]["data"],
        raw["outputs"][0]["data"],
        tf["predictions"],
        plain["output"],
    ):
        np.testing.assert_array_equal(np.array(found, np.float32).reshape(2, 3), expected)
