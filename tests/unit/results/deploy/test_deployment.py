"""What every target is rendered from."""

import re
import tomllib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.config import ServingConfig
from dlbench.proxy.settings import ServerSettings
from dlbench.results.deploy.deployment import comment, unsaid
from dlbench.results.deploy.handover import spelled_out
from dlbench.results.deploy.targets import TARGETS
from dlbench.results.printable import UNPRINTABLE


@given(name=st.text(st.characters(exclude_categories=sorted(UNPRINTABLE))))
def test_a_label_is_one_whatever_a_model_is_called(deploy, name):
    label = deploy(name=name).label
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", label)
    assert len(label) <= 63


def test_requests_and_limits_follow_from_what_was_measured(deploy):
    used = {"server_cpu": 0.5, "server_rss_mb": 200.0}
    found = deploy(ServingConfig(workers=4), resources=used, cores=8)
    assert found.cpu_request == 0.65  # 0.5 x 1.25, rounded up
    assert found.cpu_limit == 5  # four workers and the front
    assert found.memory_mib == 287  # 200 MB x 1.5 in MiB, rounded up
    assert deploy(ServingConfig(workers=4), cores=2).cpu_limit == 5
    assert deploy(ServingConfig(workers=4, intra_op_threads=3), cores=None).cpu_limit == 13
    assert deploy(resources={"server_cpu": 4.0, "server_rss_mb": 1.0}, cores=2).cpu_limit == 5
    assert deploy(resources={}).cpu_limit is None
    assert deploy(ServingConfig(cache_size=9, cache_max_mb=64)).memory_mib == 287 + 64


def test_a_scaled_deployment_may_use_all_its_workers(deploy):
    scaled = ServingConfig(workers=1, autoscaler="cost", max_workers=6)
    assert deploy(scaled, cores=16).cpu_limit == 7


@pytest.mark.parametrize(
    ("config", "device", "started"),
    [
        (ServingConfig(workers=3), "cpu", (3, 0)),
        (ServingConfig(workers=0), "cpu", (4, 0)),
        (ServingConfig(workers=0), "cuda", (2, 0)),
        (ServingConfig(workers=2, autoscaler="cost"), "cpu", (2, 4)),
        (ServingConfig(workers=2, autoscaler="cost", min_workers=6), "cpu", (2, 6)),
        (ServingConfig(workers=2, autoscaler="cost", max_workers=3), "cpu", (2, 3)),
    ],
)
def test_as_many_as_there_are_cores_is_spelled_out(deploy, config, device, started):
    """In a pod with a limit it would be another number than the limit was made for."""
    found = spelled_out(deploy(config).point, 4, device, 1)
    assert (found.config.workers, found.config.max_workers) == started
    limit = deploy(config, point=found).cpu_limit
    assert limit == max(started) + 1
    assert f"cpu: {1000 * limit}m\n" in TARGETS["k8s"].render(deploy(config, point=found))


def test_the_tag_changes_with_what_is_served(deploy):
    plain = deploy()
    others = [deploy(ServingConfig(workers=3)), deploy(model_hash="4567")]
    assert len({plain.tag, *(other.tag for other in others)}) == 3
    assert deploy(study="other.db").tag == plain.tag


def test_the_toml_is_what_serve_takes_in_a_container(any_deployment):
    values = tomllib.loads(any_deployment.toml_in_container())
    knobs = {name: values.pop(name) for name in ServingConfig.model_fields}
    assert ServingConfig(**knobs) == any_deployment.config
    served = ServerSettings(**values)
    assert (served.host, served.name) == ("0.0.0.0", any_deployment.name)
    assert served.model == f"/models/{any_deployment.path.name}"
    # The proxy refuses a public address with neither.
    assert served.insecure is not bool(served.token_file)


@pytest.mark.parametrize(
    ("ids", "run", "reserved"),
    [
        ((0, 1), "--gpus all", {"count": 2}),
        ((1,), """--gpus '"device=1"'""", {"device_ids": ["1"]}),
        ((1, 3), """--gpus '"device=1,3"'""", {"device_ids": ["1", "3"]}),
    ],
)
def test_a_container_counts_its_own_gpus_from_zero(deploy, ids, run, reserved):
    found = deploy(device="cuda", settings={"device": "cuda", "device_ids": ids})
    assert ServerSettings(**_settings(found.toml_in_container())).device_ids == (0, 1)[: len(ids)]
    assert ServerSettings(**_settings(found.toml())).device_ids == ids
    assert f"docker run {run} -p" in TARGETS["docker"].render(found)
    service = yaml.safe_load(TARGETS["compose"].render(found))["services"]["proxy"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "capabilities": ["gpu"], **reserved}
    assert f"nvidia.com/gpu: {len(ids)}\n" in TARGETS["k8s"].render(found)


def _settings(text):
    values = tomllib.loads(text)
    return {name: values[name] for name in values if name in ServerSettings.model_fields}


def test_every_file_says_what_was_measured_and_where(any_deployment):
    for name, target in TARGETS.items():
        text = target.render(any_deployment)
        said = "\n".join(line for line in text.splitlines() if line.startswith("#"))
        for fact in ("900/s", "[857-945]", "12 ms", "[11.4-12.6]", "AMD EPYC, 2 cores"):
            assert fact in said, (name, fact)


def test_what_was_measured_once_is_said_to_be(deploy):
    screened = deploy().point.model_copy(update={"phase": "screen"})
    assert "NOT verified" in "\n".join(deploy(point=screened).provenance)


def test_a_comment_never_leaves_its_line(deploy):
    text = comment(deploy(machine="x\r\ny").provenance, ["a\u2028b"])
    assert all(line.startswith("# ") or line == "#" for line in text.splitlines())


def test_only_what_was_set_is_said_to_be_missing():
    reasons = {"cache_size": "no cache", "queue_order": "one order"}
    assert unsaid(ServingConfig(), reasons) == []
    (_, line) = unsaid(ServingConfig(cache_size=5), reasons)
    assert line == "  cache_size 5: no cache"
