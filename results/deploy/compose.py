"""A compose file of a deployment (the Compose Specification: `docker compose`, podman)."""

from __future__ import annotations

import json
from textwrap import indent
from typing import TYPE_CHECKING

from dlbench.results.deploy.deployment import comment
from dlbench.results.deploy.dockerfile import CONFIG

if TYPE_CHECKING:
    from dlbench.results.deploy.deployment import Deployment


def compose_yaml(deployment: Deployment) -> str:
    """One service, built from the Dockerfile beside it, and its configuration within the file."""
    head = comment(
        deployment.provenance,
        deployment.margins,
        _no_limit(deployment),
        [
            "Built from the Dockerfile in this folder; its header lists the other files it needs:",
            f"  {deployment.export('docker')}",
            "  docker compose up --build --wait",
            "It listens on this machine only. The configuration below overrides the image's own",
            "(Docker Compose 2.23.1 or newer).",
            deployment.access,
        ],
    )
    ports = "".join(f'      - "127.0.0.1:{p}:{p}"\n' for p in deployment.ports.values())
    # Compose puts variables in wherever it finds a $.
    toml = deployment.toml_in_container().replace("$", "$$")
    return f"""\
{head}name: {deployment.label}
services:
  proxy:
    build: .
    image: {deployment.label}:{deployment.tag}
    command: ["serve", "--config", "{CONFIG}"]
    ports:
{ports}    configs:
      - source: serve
        target: {CONFIG}
    restart: unless-stopped
    stop_grace_period: {deployment.stop_s}s
    read_only: true
    tmpfs: [/tmp]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
{_resources(deployment)}configs:
  serve:
    content: |
{indent(toml, "      ")}"""


def _resources(deployment: Deployment) -> str:
    """The measured resources and the GPUs; "" if there are none."""
    cpus, memory = deployment.cpu_request, deployment.memory_mib
    limits = reserved = ""
    if cpus is not None and memory is not None:
        limits = f"""\
        limits:
{_cpu_limit(deployment)}          memory: {memory}M
"""
        reserved = f"""\
          cpus: "{cpus:g}"
          memory: {memory}M
"""
    if deployment.gpus:
        reserved += f"""\
          devices:
            - driver: nvidia
              {_which_gpus(deployment)}
              capabilities: [gpu]
"""
    body = limits + (f"        reservations:\n{reserved}" if reserved else "")
    return f"    deploy:\n      resources:\n{body}" if body else ""


def _cpu_limit(deployment: Deployment) -> str:
    """The CPU limit's line; none if it covers all cores, since Docker refuses more."""
    return "" if _no_limit(deployment) else f'          cpus: "{deployment.cpu_limit:g}"\n'


def _no_limit(deployment: Deployment) -> list[str]:
    limit, cores = deployment.cpu_limit, deployment.cores
    if limit is None or (cores and limit < cores):
        return []
    return [f"No CPU limit: the machine measured on has only {limit:g} cores."]


def _which_gpus(deployment: Deployment) -> str:
    """The host's GPUs by number where it is not the first ones; a count takes those."""
    chosen = deployment.chosen_gpus
    return f"device_ids: {json.dumps(chosen.split(','))}" if chosen else f"count: {deployment.gpus}"
