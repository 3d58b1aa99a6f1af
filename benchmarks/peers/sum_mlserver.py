"""The sum of a row behind MLServer; its metadata is what `foreign.py` writes into the settings."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Sum(MLModel):
    """One input of numbers, one output."""

    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("y", rows.sum(axis=1, keepdims=True))
        return InferenceResponse(model_name=self.name, outputs=[output])
