"""Kubernetes manifests of a deployment: the configuration, the proxy's Deployment and its Service."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING

from dlbench.results.deploy.deployment import comment
from dlbench.results.deploy.dockerfile import CONFIG, USER, build_command

if TYPE_CHECKING:
    from dlbench.results.deploy.deployment import Deployment

# So long endpoints take to hear that a pod is ending; requests still come in meanwhile.
UNLISTED_S = 5
# A proxy is up in a second, a large model in minutes.
STARTUP_TRIES, STARTUP_EVERY_S = 150, 2


def manifests(deployment: Deployment) -> str:
    """All three, in the order in which they are needed."""
    head = comment(
        deployment.provenance,
        deployment.margins,
        [
            "Build the image from this Dockerfile:",
            f"  {deployment.export('docker')}",
            f"  {build_command(deployment)}",
            "One replica delivers the throughput above; limits are per replica.",
            deployment.access,
        ],
    )
    return "---\n".join(
        [head + _config_map(deployment), _deployment(deployment), _service(deployment)]
    )


def resources(deployment: Deployment, depth: int) -> str:
    """Requests and limits, indented so far; "" where nothing was measured."""
    if deployment.cpu_request is None or deployment.memory_mib is None:
        return ""
    memory, gpus = f"{deployment.memory_mib}Mi", deployment.gpus
    text = f"""\
resources:
  requests:
    cpu: {_cores(deployment.cpu_request)}
    memory: {memory}
  limits:
    cpu: {_cores(deployment.cpu_limit or deployment.cpu_request)}
    memory: {memory}
"""
    return indent(text + (f"    nvidia.com/gpu: {gpus}\n" if gpus else ""), " " * depth)


def _cores(cores: float) -> str:
    return f"{round(cores * 1000)}m"


def _config_map(deployment: Deployment) -> str:
    return f"""\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {deployment.label}
data:
  serve.toml: |
{indent(deployment.toml_in_container(), "    ")}"""


def _deployment(deployment: Deployment) -> str:
    label = deployment.label
    return f"""\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {label}
  labels:
    app.kubernetes.io/name: {label}
spec:
  replicas: 1
  selector:
    matchLabels:
      app.kubernetes.io/name: {label}
  template:
    metadata:
      labels:
        app.kubernetes.io/name: {label}
      annotations:
        dlbench/configuration: "{deployment.tag}" # another configuration is another rollout
    spec:
      terminationGracePeriodSeconds: {deployment.stop_s + UNLISTED_S}
      securityContext:
        runAsNonRoot: true
        runAsUser: {USER}
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: proxy
          image: {label}:{deployment.tag} # in your registry
          args: ["serve", "--config", "{CONFIG}"]
          ports:
{_container_ports(deployment)}{_probes(deployment)}          lifecycle:
            preStop: # requests still come in until every node knows
              exec:
                command: ["sleep", "{UNLISTED_S}"]
{resources(deployment, 10)}          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: ["ALL"]
          volumeMounts:
            - name: configuration
              mountPath: {CONFIG.rpartition("/")[0]}
              readOnly: true
            - name: tmp
              mountPath: /tmp
      volumes:
        - name: configuration
          configMap:
            name: {label}
        - name: tmp
          emptyDir: {{}}
"""


def _container_ports(deployment: Deployment) -> str:
    lines = (
        f"- name: {name}\n  containerPort: {port}\n" for name, port in deployment.ports.items()
    )
    return indent("".join(lines), " " * 12)


def _probes(deployment: Deployment) -> str:
    every = {
        "startupProbe": ("ready", STARTUP_EVERY_S, STARTUP_TRIES),
        "readinessProbe": ("ready", 2, 2),
        "livenessProbe": ("live", 10, 3),
    }
    return "".join(_probe(deployment, name, *how) for name, how in every.items())


def _probe(deployment: Deployment, name: str, what: str, every_s: int, tries: int) -> str:
    return f"""\
          {name}:
            httpGet:
              path: /v2/health/{what}
              port: http
              scheme: {deployment.scheme.upper()}
            periodSeconds: {every_s}
            timeoutSeconds: 2
            failureThreshold: {tries}
"""


def _service(deployment: Deployment) -> str:
    label = deployment.label
    ports = "".join(
        f"    - name: {name}\n      port: {port}\n      targetPort: {name}\n"
        for name, port in deployment.ports.items()
    )
    return f"""\
apiVersion: v1
kind: Service
metadata:
  name: {label}
  labels:
    app.kubernetes.io/name: {label}
spec:
  selector:
    app.kubernetes.io/name: {label}
  ports:
{ports}"""
