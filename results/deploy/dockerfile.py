"""A Dockerfile of the proxy with a deployment's model and configuration, for CPUs and for CUDA."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dlbench.results.deploy.deployment import comment
from dlbench.results.printable import word

if TYPE_CHECKING:
    from dlbench.results.deploy.deployment import Deployment

CONFIG = "/etc/dlbench/serve.toml"
USER = 10001
PYTHON = "3.11"
RUNTIMES = ("onnxruntime-gpu", "onnxruntime")
# Nobody else hears of the container's own certificate, so it is not checked here.
HEALTH = {
    "http": "import urllib.request as r; r.urlopen('{url}')",
    "https": "import ssl, urllib.request as r; "
    "r.urlopen('{url}', context=ssl._create_unverified_context())",
}


def dockerfile(deployment: Deployment) -> str:
    """The whole file. It is built in a folder with the model in `models/`."""
    # BuildKit reads its directive from the first line only; COPY with a text needs it.
    head = "# syntax=docker/dockerfile:1\n" + comment(
        deployment.provenance,
        [
            "In this file's folder, with the model and any weights stored next to it:",
            f"  mkdir models && cp {word(str(deployment.path))}* models/",
            "  pip wheel --no-deps -w . FOLDER    # dlbench's source, unless an index has this "
            "version",
            f"  {build_command(deployment)}    # --build-arg DEVICE=cpu or cuda",
            f"  docker run {_run_options(deployment)} {deployment.label}:{deployment.tag}",
            "Checked by a linter; not built on the machine that wrote it.",
            deployment.access,
        ],
    )
    return head + _stages(deployment)


def build_command(deployment: Deployment) -> str:
    """How the image is built, under the name that compose and Kubernetes know it by."""
    return f"docker build -t {deployment.label}:{deployment.tag} ."


def _run_options(deployment: Deployment) -> str:
    ports = (f"-p 127.0.0.1:{port}:{port}" for port in deployment.ports.values())
    return " ".join([*_gpu_options(deployment), *ports])


def _gpu_options(deployment: Deployment) -> list[str]:
    if chosen := deployment.chosen_gpus:
        # Docker reads the value as CSV, where a comma has to stand in quotes.
        return [f"--gpus '\"device={chosen}\"'"]
    return ["--gpus all"] if deployment.gpus else []


def _stages(deployment: Deployment) -> str:
    url = f"{deployment.scheme}://127.0.0.1:{deployment.settings.port}/v2/health/ready"
    check = json.dumps(["python", "-c", HEALTH[deployment.scheme].format(url=url)])
    # The empty line after EOF is for hadolint, which knows no other end of a text.
    return f"""\
ARG DEVICE={"cuda" if deployment.gpus else "cpu"}

{_packages(deployment, "cpu")}
# CUDA's libraries come as wheels; the driver is the host's, through NVIDIA's container toolkit.
{_packages(deployment, "cuda")}ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM $DEVICE AS proxy
ENV PYTHONUNBUFFERED=1
COPY models/ /models/
COPY <<"EOF" {CONFIG}
{deployment.toml_in_container()}EOF

USER {USER}
EXPOSE {" ".join(map(str, deployment.ports.values()))}
HEALTHCHECK --interval=10s --timeout=3s --start-period=300s --start-interval=1s \\
  CMD {check}
ENTRYPOINT ["dlbench"]
CMD ["serve", "--config", "{CONFIG}"]
"""


def _packages(deployment: Deployment, device: str) -> str:
    """A stage with everything installed; the runtime is the one that the figures were measured with."""
    known = deployment.versions
    python = ".".join(known.get("python", PYTHON).split(".")[:2])
    wanted = [deployment.package(*(["cuda"] if device == "cuda" else []))]
    wanted += [f"{name}=={known[name]}" for name in RUNTIMES if name in known]
    return f"""\
FROM python:{python}-slim AS {device}
RUN --mount=type=bind,target=/here pip install --no-cache-dir --find-links /here \\
  {" ".join(json.dumps(text) for text in wanted)}
"""
