"""Where a configuration can be put to work: one table, from a target's name to file and renderer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dlbench.results.deploy.compose import compose_yaml
from dlbench.results.deploy.deployment import comment
from dlbench.results.deploy.dockerfile import dockerfile
from dlbench.results.deploy.kserve import inference_service
from dlbench.results.deploy.kubernetes import manifests
from dlbench.results.deploy.systemd import unit
from dlbench.results.deploy.triton import config_pbtxt

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlbench.results.deploy.deployment import Deployment


class DeploymentTarget(NamedTuple):
    """A file's usual name, in which {label} is the deployment's, and what writes it."""

    file_name: str
    render: Callable[[Deployment], str]


def serve_toml(deployment: Deployment) -> str:
    """What `dlbench serve --config` takes."""
    return comment(deployment.provenance) + "\n" + deployment.toml()


TARGETS = {
    "toml": DeploymentTarget("{label}.toml", serve_toml),
    "triton": DeploymentTarget("config.pbtxt", config_pbtxt),
    "kserve": DeploymentTarget("{label}.kserve.yaml", inference_service),
    "docker": DeploymentTarget("Dockerfile", dockerfile),
    "compose": DeploymentTarget("compose.yaml", compose_yaml),
    "k8s": DeploymentTarget("{label}.k8s.yaml", manifests),
    "systemd": DeploymentTarget("{label}.service", unit),
}
