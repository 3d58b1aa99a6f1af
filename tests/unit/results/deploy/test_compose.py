"""The compose file, by the models made from the Compose Specification's schema."""

import json

import pytest
import yaml

from dlbench.results.deploy.compose import compose_yaml

compose_spec = pytest.importorskip("compose_spec")


def kept(document):
    """What the schema knows of a document; it leaves out the keys that it does not know."""
    found = compose_spec.ComposeSpecification.model_validate(document)
    return sorted_lists(found.model_dump(mode="json", exclude_unset=True))


def sorted_lists(value):
    """The models take some lists for sets."""
    if isinstance(value, dict):
        return {key: sorted_lists(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted(json.dumps(sorted_lists(inner), sort_keys=True) for inner in value)
    return value


def test_the_schema_knows_all_of_it(any_deployment):
    document = yaml.safe_load(compose_yaml(any_deployment))
    assert kept(document) == sorted_lists(document)


def test_the_check_refuses_what_is_wrong(deploy):
    document = yaml.safe_load(compose_yaml(deploy()))
    document["services"]["proxy"]["buld"] = "."
    assert kept(document) != sorted_lists(document)


def test_the_configuration_survives_what_compose_does_to_dollars(any_deployment):
    content = yaml.safe_load(compose_yaml(any_deployment))["configs"]["serve"]["content"]
    assert content.replace("$$", "$") == any_deployment.toml_in_container()
    assert "$" not in content.replace("$$", "")


def test_it_listens_on_this_machine_alone(deploy):
    proxy = yaml.safe_load(compose_yaml(deploy(settings={"grpc_port": 8001})))["services"]["proxy"]
    assert proxy["ports"] == ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001"]
    assert proxy["deploy"]["resources"]["limits"] == {"memory": "287M"}
    assert proxy["deploy"]["resources"]["reservations"] == {"cpus": "0.65", "memory": "287M"}
    assert proxy["stop_grace_period"] == "40s"


@pytest.mark.parametrize(
    ("cores", "limit"), [(8, "3"), (4, "3"), (3, None), (2, None), (None, None)]
)
def test_a_limit_is_less_than_the_machine_has_which_docker_demands(deploy, cores, limit):
    text = compose_yaml(deploy(cores=cores))
    limits = yaml.safe_load(text)["services"]["proxy"]["deploy"]["resources"]["limits"]
    assert limits.get("cpus") == limit
    assert ("No CPU limit: the machine measured on has only 3 cores" in text) is (limit is None)


def test_gpus_are_reserved(deploy):
    found = yaml.safe_load(compose_yaml(deploy(device="cuda", resources={})))
    (device,) = found["services"]["proxy"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"]) == ("nvidia", 1)
