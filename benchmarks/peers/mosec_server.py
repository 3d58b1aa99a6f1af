"""The model behind mosec: raw bytes in and out, no JSON, no pickle, mosec's own batching.

    MODEL=path KIND=magika WORKERS=2 BATCH=8 WAIT_MS=1 python mosec_server.py --port N

The settings come in the environment, because mosec reads the command line itself and starts its
workers by spawning.
"""

from __future__ import annotations

import os

from model import Model
from mosec import Server, Worker


class RawWorker(Worker):
    """One onnxruntime session; a body is passed through as it is."""

    resp_mime_type = "application/octet-stream"

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(os.environ["MODEL"], os.environ["KIND"])

    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes | list[bytes]) -> bytes | list[bytes]:
        # mosec hands over a list only where it batches.
        return self.model.run(data) if isinstance(data, list) else self.model.run([data])[0]


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        RawWorker,
        num=int(os.environ["WORKERS"]),
        max_batch_size=int(os.environ["BATCH"]),
        max_wait_time=int(os.environ["WAIT_MS"]),
    )
    server.run()
