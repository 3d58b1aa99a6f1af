"""KServe's InferenceService of a deployment, in which Triton serves the model.

Field names are those of serving.kserve.io/v1beta1; `kserve-tritonserver` is the runtime that KServe
brings, whose arguments those of a model are appended to.
"""

from __future__ import annotations

import json
from textwrap import wrap
from typing import TYPE_CHECKING

from dlbench.proxy.knob import KNOBS
from dlbench.results.deploy.deployment import comment, unsaid
from dlbench.results.deploy.kubernetes import resources
from dlbench.results.deploy.triton import CANNOT, server_options
from dlbench.results.printable import word

if TYPE_CHECKING:
    from dlbench.results.deploy.deployment import Deployment

ELSEWHERE = tuple(knob for knob in KNOBS if knob not in CANNOT)


def inference_service(deployment: Deployment) -> str:
    """The manifest; every knob it has no field for stands in Triton's config.pbtxt beside the model."""
    head = comment(
        deployment.provenance,
        [
            "These figures are for dlbench's own proxy, not Triton behind KServe: measure again "
            "there.",
            "Requests and limits are starting points, for the same reason.",
            *deployment.margins,
        ],
        [
            "An InferenceService has no field for these knobs (its batcher knows the V1 protocol "
            "only):",
            *(f"  {line}" for line in wrap(", ".join(ELSEWHERE), 90)),
            f"They are in config.pbtxt: {deployment.export('triton')}",
        ],
        unsaid(deployment.config, CANNOT),
        [
            "storageUri must contain the model's folder:",
            f"  {word(deployment.name)}/config.pbtxt",
            f"  {word(deployment.name)}/1/model.onnx, which is {word(str(deployment.path))}",
        ],
    )
    return head + _manifest(deployment)


def _manifest(deployment: Deployment) -> str:
    options = server_options(deployment)
    args = f"      args: {json.dumps(options)}\n" if options else ""
    return f"""\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {deployment.label}
spec:
  predictor:
    minReplicas: 1
    model:
      modelFormat:
        name: onnx
      runtime: kserve-tritonserver
      protocolVersion: v2
      storageUri: pvc://models/{deployment.label} # yours: pvc://, s3://, gs://, https://
{args}{resources(deployment, 6)}"""
