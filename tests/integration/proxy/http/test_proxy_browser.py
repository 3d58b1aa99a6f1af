"""What a page in a browser on this machine may do to a proxy: read, and nothing else."""

import json

import httpx
import pytest

PAGE = {"origin": "http://evil.example"}
CHANGES = [
    ("POST", "/v2/repository/models/affine/unload"),
    ("POST", "/v2/repository/models/affine/load"),
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/models/affine/infer"),
    ("POST", "/v1/models/affine:predict"),
    ("POST", "/predictions/affine"),
    ("PUT", "/predictions/affine"),
    ("POST", "/predict"),
    ("DELETE", "/v2/async/anything"),
    ("OPTIONS", "/v2/models/affine/infer"),
]
READS = ["/v2", "/v2/models/affine", "/v2/health/live", "/v2/health/ready", "/metrics", "/ping"]


@pytest.fixture(scope="module")
def proxy(module_proxy, models):
    return module_proxy(models.affine(), {"allowed_hosts": ["models.example"]})


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
def test_a_page_changes_nothing_and_asks_for_nothing(proxy, origin):
    with httpx.Client(base_url=proxy.url, timeout=30) as client:
        for method, path in CHANGES:
            for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json"):
                headers = {"origin": origin, "content-type": kind}
                reply = client.request(method, path, headers=headers, content=b"{}")
                assert reply.status_code == 403, (method, path)
                assert "--allowed-hosts" in reply.json()["error"]
        assert client.get("/v2/models/affine/ready").status_code == 200
        assert client.post("/predict", json={"input": [1, 2, 3]}).status_code == 200


def test_another_name_for_this_machine_is_refused_everywhere(proxy):
    with httpx.Client(base_url=proxy.url, timeout=30) as client:
        for method, path in [*CHANGES, *(("GET", path) for path in READS), ("GET", "/nothing")]:
            reply = client.request(method, path, headers={"host": "evil.example:8000"})
            assert reply.status_code == 421, (method, path)
            assert "--allowed-hosts" in reply.json()["error"]
        for path in READS:
            assert client.get(path).status_code == 200
            assert client.get(path, headers=PAGE).status_code == 200


def test_names_that_were_added_are_ours(proxy):
    with httpx.Client(base_url=proxy.url, timeout=30) as client:
        headers = {"host": "models.example", "origin": "https://models.example"}
        reply = client.post("/predict", headers=headers, content=json.dumps({"input": [1, 2, 3]}))
        assert (reply.status_code, reply.json()) == (200, {"output": [3.0, 5.0, 7.0]})


def test_on_all_addresses_a_probe_may_name_any_and_a_page_may_not(start_proxy, models):
    """As a kubelet, a container's neighbour and a load balancer do."""
    proxy = start_proxy(models.affine(), {"host": "0.0.0.0", "insecure": True, "allowed_hosts": []})
    with httpx.Client(base_url=f"http://127.0.0.1:{httpx.URL(proxy.url).port}") as client:
        for host in ("10.244.0.17:8000", "affine.default.svc.cluster.local", "dlbench:8000"):
            assert client.get("/v2/health/ready", headers={"host": host}).status_code == 200
            body = {"input": [1, 2, 3]}
            assert client.post("/predict", headers={"host": host}, json=body).status_code == 200
        rebound = {"host": "evil.example:8000", "origin": "http://evil.example:8000"}
        unload = client.post("/v2/repository/models/affine/unload", headers=rebound)
        assert unload.status_code == 403


def test_a_name_that_is_none_is_an_error_at_the_start(start_proxy, models):
    proxy = start_proxy(models.affine(), {"allowed_hosts": ["https://models.example"]})
    assert "--allowed-hosts 'https://models.example'" in proxy.first["error"]
