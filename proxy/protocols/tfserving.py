"""TensorFlow Serving's REST API: predict, status and metadata.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from dlbench.proxy.errors import BadRequest
from dlbench.proxy.protocols.columns import read_columns, request_of, unwrapped, write_columns
from dlbench.proxy.protocols.handler import infer_json, send_json
from dlbench.proxy.protocols.instances import read_instances, write_instances
from dlbench.proxy.protocols.v2_json import load

if TYPE_CHECKING:
    from dlbench.proxy.http.connection import HttpRequest, Respond
    from dlbench.proxy.protocols.handler import Asked
    from dlbench.proxy.request import Outputs
    from dlbench.proxy.serving.served import ServedModel
    from dlbench.proxy.tensors import Buffer, Signature, TensorSpec

SIGNATURE_NAME = "serving_default"
# V2 datatype -> the name in TensorFlow's types.proto.
DTYPES = {
    "BOOL": "DT_BOOL",
    "INT8": "DT_INT8",
    "INT16": "DT_INT16",
    "INT32": "DT_INT32",
    "INT64": "DT_INT64",
    "UINT8": "DT_UINT8",
    "UINT16": "DT_UINT16",
    "UINT32": "DT_UINT32",
    "UINT64": "DT_UINT64",
    "FP16": "DT_HALF",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
}


def predict(model: ServedModel, request: HttpRequest, respond: Respond) -> None:
    """Run the model on `instances` (a row each) or `inputs` (whole tensors)."""
    infer_json(model, request.body, request.client, respond, read)


def status(model: ServedModel, _: HttpRequest, respond: Respond) -> None:
    """Report the served version as available."""
    served = {
        "version": model.version,
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    send_json(respond, {"model_version_status": [served]})


def metadata(model: ServedModel, _: HttpRequest, respond: Respond) -> None:
    """The signature, as TensorFlow's SignatureDef."""
    definition = {
        "inputs": {spec.name: _tensor_info(spec) for spec in model.signature.inputs},
        "outputs": {spec.name: _tensor_info(spec) for spec in model.signature.outputs},
        "method_name": "tensorflow/serving/predict",
    }
    document = {
        "model_spec": {"name": model.name, "signature_name": "", "version": model.version},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE_NAME: definition}}},
    }
    send_json(respond, document)


def read(signature: Signature, body: Buffer) -> Asked:
    """The request, and how its format is answered.

    Raises:
        BadRequest: with a text that says what is wrong.
    """
    try:
        return _read(signature, load(body))
    except BadRequest:
        if b'"b64"' in bytes(body):
            raise BadRequest(
                'a {"b64": …} object holds a string; this model takes numbers'
            ) from None
        raise


def _read(signature: Signature, document: dict[str, Any]) -> Asked:
    if (name := document.get("signature_name", SIGNATURE_NAME)) not in ("", SIGNATURE_NAME):
        raise BadRequest(f"no signature {name!r}; use {SIGNATURE_NAME!r}")
    if given := [key for key in FORMATS if key in document]:
        if len(given) == 1:
            return FORMATS[given[0]](signature, document[given[0]])
        raise BadRequest("use 'instances' or 'inputs', not both")
    raise BadRequest("'instances' (a list of rows) or 'inputs' (whole tensors) is missing")


def _rows(
    signature: Signature,
    instances: Any,  # noqa: ANN401 - from JSON
) -> Asked:
    request = read_instances(signature, instances)
    return request, partial(_predictions, len(instances))


def _predictions(count: int, signature: Signature, outputs: Outputs) -> object:
    return {"predictions": write_instances(signature, outputs, count)}


def _columns(
    signature: Signature,
    inputs: Any,  # noqa: ANN401 - from JSON
) -> Asked:
    return request_of(signature, read_columns(signature, inputs)), _outputs


def _outputs(signature: Signature, outputs: Outputs) -> object:
    return {"outputs": unwrapped(write_columns(signature, outputs))}


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    """A TensorInfo; sizes are strings, since JSON's protobuf mapping writes int64 so."""
    return {
        "dtype": DTYPES[spec.datatype],
        "tensor_shape": {
            "dim": [{"size": str(size), "name": ""} for size in spec.shape],
            "unknown_rank": False,
        },
        "name": spec.name,
    }


FORMATS = {"instances": _rows, "inputs": _columns}
ROUTES = {
    f"/v1/models/{{name}}{path}": route
    for version in ("", "/versions/{version}")
    for path, route in (
        (f"{version}:predict", (b"POST", predict)),
        (version, (b"GET", status)),
        (f"{version}/metadata", (b"GET", metadata)),
    )
}
