"""The model behind LitServe: base64 in JSON, as its examples do it, or raw bytes.

    MODEL=path KIND=magika FORM=raw WORKERS=2 BATCH=8 WAIT_MS=1 python litserve_server.py PORT

Annotations are evaluated, not postponed: LitServe reads from them what a request and a reply are.
"""

import os
import sys
from base64 import b64decode, b64encode
from typing import Annotated

import litserve
from fastapi import Body, Response
from litserve.transport import ZMQTransport, factory
from model import Model


class Base64Api(litserve.LitAPI):
    """One onnxruntime session per worker; a batch is a list of bodies."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe passes it
        self.model = Model(os.environ["MODEL"], os.environ["KIND"])

    def decode_request(self, request):
        return b64decode(request["body"])

    def predict(self, bodies: list[bytes]) -> list[bytes]:
        return self.model.run(bodies)

    def encode_response(self, output):
        return {"body": b64encode(output).decode()}


class RawApi(Base64Api):
    """The same without JSON: FastAPI hands over the body as it is."""

    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        return request

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/octet-stream")


FORMS = {"base64": Base64Api, "raw": RawApi}
made_transport = factory._create_zmq_transport


def repaired_transport(config: factory.TransportConfig) -> ZMQTransport:
    """The two addresses the right way round (LitServe's issue 751)."""
    made = made_transport(config)
    return ZMQTransport(made.frontend_address, made.backend_address)


if __name__ == "__main__":
    wait_s = int(os.environ["WAIT_MS"]) / 1000
    api = FORMS[os.environ["FORM"]](int(os.environ["BATCH"]), wait_s)
    workers = int(os.environ["WORKERS"])
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, fast_queue=True)
    # 0.2.19 forgets `fast_queue` and wires zmq wrongly: repaired here, because it is faster.
    server.transport_config.transport_type = "zmq"
    factory._create_zmq_transport = repaired_transport
    quiet = {"log_level": "warning", "access_log": False, "generate_client_file": False}
    server.run(host="127.0.0.1", port=int(sys.argv[1]), **quiet)
