"""`dlbench doctor` on the machine that the tests run on, whatever it is."""

import json

import pytest

from dlbench.doctor.checkup import examine
from dlbench.doctor.facts import Facts
from dlbench.doctor.finding import Finding, worst
from testbed.commands import dlbench


@pytest.fixture(scope="module")
def document():
    done = dlbench("doctor", "--json", "--quiet")
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_json_is_what_was_found_with_the_facts_that_it_follows_from(document):
    returncode, said = document
    facts = Facts.model_validate({**said["facts"], **tuples(said["facts"])})
    findings = [Finding.model_validate(one) for one in said["findings"]]
    assert tuple(findings) == examine(facts)
    assert said["verdict"] == worst(one.verdict for one in findings)
    assert returncode == (1 if said["verdict"] == "bad" else 0)


def tuples(facts):
    """In JSON they have names."""
    return {
        "limits": tuple(facts["limits"].values()),
        "gpus": [tuple(gpu.values()) for gpu in facts["gpus"]],
    }


def test_models_run_on_the_cpu_and_on_cuda_only_with_a_gpu(document):
    tried = {one["device"]: one for one in document[1]["facts"]["providers"]}
    assert set(tried) == {"cpu", "cuda", "tensorrt"}
    assert tried["cpu"]["works"]
    if not document[1]["facts"]["cuda"]["has_gpu"]:
        assert not tried["cuda"]["works"]
        assert "NVIDIA" in tried["cuda"]["reason"] or "built without" in tried["cuda"]["reason"]


@pytest.mark.gpu
def test_cuda_runs_a_model_where_there_is_a_gpu(document):
    facts = document[1]["facts"]
    if not facts["cuda"]["has_gpu"]:
        pytest.skip("there is no NVIDIA device")
    assert {one["device"]: one["works"] for one in facts["providers"]}["cuda"]
    assert facts["cuda"]["driver"]
