"""The InferenceService, against the types of KServe's own SDK."""

import ast
import zipfile

import pytest
import yaml

from dlbench.results.deploy.kserve import inference_service

kubernetes_validate = pytest.importorskip("kubernetes_validate")

PLAIN = {"str": str, "int": int, "bool": bool, "list[str]": list}


@pytest.fixture(scope="module")
def kinds(wheel_file):
    """Kind -> its fields as YAML calls them, each with its type; read, not imported."""
    folder = wheel_file("kserve", "kserve/models/__init__.py").parents[2]
    found = {}
    with zipfile.ZipFile(sorted(folder.glob("*.whl"))[-1]) as wheel:
        for name in wheel.namelist():
            if name.startswith("kserve/models/v1beta1_"):
                found |= dict(declared(ast.parse(wheel.read(name))))
    return found


def declared(module):
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            values = {
                item.targets[0].id: ast.literal_eval(item.value)
                for item in node.body
                if isinstance(item, ast.Assign) and isinstance(item.value, ast.Dict)
            }
            types, names = values["openapi_types"], values["attribute_map"]
            yield node.name, {names[key]: kind for key, kind in types.items()}


def check(value, kind, kinds):
    """Every key is a field of its kind, every value of its type; Kubernetes' own are not KServe's."""
    if kind in kinds:
        for key, inner in value.items():
            assert key in kinds[kind], f"{kind} has no field {key}"
            check(inner, kinds[kind][key], kinds)
    elif kind in PLAIN:
        assert isinstance(value, PLAIN[kind])
    else:
        assert kind in ("V1ObjectMeta", "V1ResourceRequirements"), kind


def test_kserve_knows_every_field(any_deployment, kinds):
    manifest = yaml.safe_load(inference_service(any_deployment))
    check(manifest, "V1beta1InferenceService", kinds)
    assert (manifest["apiVersion"], manifest["kind"]) == (
        "serving.kserve.io/v1beta1",
        "InferenceService",
    )


def test_the_check_refuses_what_is_wrong(kinds):
    with pytest.raises(AssertionError, match="no field storageURI"):
        check({"storageURI": "x"}, "V1beta1ModelSpec", kinds)
    with pytest.raises(AssertionError):
        check({"minReplicas": "1"}, "V1beta1PredictorSpec", kinds)


def test_kubernetes_knows_its_resources(any_deployment):
    manifest = yaml.safe_load(inference_service(any_deployment))
    model = manifest["spec"]["predictor"]["model"]
    container = {"name": "c", "image": "i", "resources": model.get("resources", {})}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": manifest["metadata"]}
    pod["spec"] = {"containers": [container]}
    kubernetes_validate.validate(pod, "1.30", strict=True)
    assert bool(model.get("resources")) is (any_deployment.cpu_request is not None)


def test_the_cache_is_switched_on_where_triton_has_its_switch(deploy):
    from dlbench.proxy.config import ServingConfig

    text = inference_service(deploy(ServingConfig(cache_size=10, cache_max_mb=1)))
    model = yaml.safe_load(text)["spec"]["predictor"]["model"]
    assert model["args"] == ["--cache-config=local,size=1048576"]
    assert "max_queue_delay_ms" in text  # is not said to be lost, but to be elsewhere
    assert "--to triton" in text
