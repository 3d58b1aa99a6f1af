"""The manifests, by Kubernetes' published schemas."""

import pytest
import yaml

from dlbench.proxy.config import ServingConfig
from dlbench.results.deploy.kubernetes import manifests

kubernetes_validate = pytest.importorskip("kubernetes_validate")


def documents(deployment):
    found = {d["kind"]: d for d in yaml.safe_load_all(manifests(deployment))}
    assert list(found) == ["ConfigMap", "Deployment", "Service"]
    return found


def container(deployment):
    return documents(deployment)["Deployment"]["spec"]["template"]["spec"]["containers"][0]


def test_kubernetes_takes_every_one(any_deployment):
    found = documents(any_deployment)
    for document in found.values():
        kubernetes_validate.validate(document, "1.30", strict=True)
    text = found["ConfigMap"]["data"]["serve.toml"]
    assert text == any_deployment.toml_in_container()


def test_the_check_refuses_what_is_wrong(deploy):
    wrong = documents(deploy())["Deployment"]
    wrong["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.30", strict=True)


def test_the_parts_find_each_other(any_deployment):
    found = documents(any_deployment)
    pod = found["Deployment"]["spec"]["template"]
    assert found["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    volumes = {v["name"]: v for v in pod["spec"]["volumes"]}
    (proxy,) = pod["spec"]["containers"]
    assert {m["name"] for m in proxy["volumeMounts"]} == set(volumes)
    assert volumes["configuration"]["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]
    inside = {p["name"]: p["containerPort"] for p in proxy["ports"]}
    outside = {p["targetPort"]: p["port"] for p in found["Service"]["spec"]["ports"]}
    assert inside == outside == any_deployment.ports


def test_resources_are_what_was_measured_and_the_margin(deploy):
    used = {"server_cpu": 0.5, "server_rss_mb": 200.0}
    asked = container(deploy(ServingConfig(workers=4), resources=used, cores=8))["resources"]
    assert asked["requests"] == {"cpu": "650m", "memory": "287Mi"}
    assert asked["limits"] == {"cpu": "5000m", "memory": "287Mi"}
    assert "resources" not in container(deploy(resources={}))
    two = container(deploy(device="cuda", settings={"device_ids": (0, 1)}))["resources"]
    assert two["limits"]["nvidia.com/gpu"] == 2


def test_probes_ask_the_proxys_own_paths(deploy):
    from dlbench.proxy.protocols.v2 import SERVER_ROUTES

    plain, secure = (
        container(deploy()),
        container(deploy(settings={"tls_cert": "c", "tls_key": "k"})),
    )
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert plain[name]["httpGet"]["path"] in SERVER_ROUTES
        assert plain[name]["httpGet"]["scheme"] == "HTTP"
        assert secure[name]["httpGet"]["scheme"] == "HTTPS"


def test_a_pod_may_end_what_it_has_begun(deploy):
    deployment = deploy(settings={"drain_timeout_s": 100.5})
    spec = documents(deployment)["Deployment"]["spec"]["template"]["spec"]
    (waits,) = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1:]
    assert spec["terminationGracePeriodSeconds"] >= 100.5 + int(waits)
