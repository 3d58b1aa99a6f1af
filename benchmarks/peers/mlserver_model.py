"""The model behind MLServer: V2 tensors as JSON numbers, or whole bodies as base64.

    MODEL=path KIND=magika MLSERVER_MODEL_IMPLEMENTATION=mlserver_model.Tensors mlserver start .

MLServer's REST has no binary tensor extension, so base64 in a BYTES tensor is the shortest way to send
raw bytes. Its adaptive batching joins requests along the first axis, hence batches come first here.
"""

from __future__ import annotations

import os

from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from model import Model


class Tensors(MLModel):
    """One onnxruntime session per worker; every input of the model is a tensor of numbers."""

    async def load(self) -> bool:
        self.model = Model(os.environ["MODEL"], os.environ["KIND"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        return InferenceResponse(model_name=self.name, outputs=self.answer(payload))

    def answer(self, payload: InferenceRequest) -> list[ResponseOutput]:
        given = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        outputs = self.model.compute([given[tensor.name] for tensor in self.model.tensors])
        names = [value.name for value in self.model.session.get_outputs()]
        return [NumpyCodec.encode_output(*pair) for pair in zip(names, outputs, strict=True)]


class Bodies(Tensors):
    """The same with one input that is the raw body."""

    def answer(self, payload: InferenceRequest) -> list[ResponseOutput]:
        outputs = self.model.run(Base64Codec.decode_input(payload.inputs[0]))
        return [Base64Codec.encode_output("body", outputs, use_bytes=False)]
