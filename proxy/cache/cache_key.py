"""What a result is kept under: a hash of everything that the answer depends on. Pure."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlbench.proxy.request import InferRequest, WantedOutput
    from dlbench.proxy.tensors import Buffer

    Shapes = tuple[tuple[int, ...], ...]

# 128 bits: with a billion entries the chance of any collision is below 1e-20.
KEY_BYTES = 16
# Descriptions whose hash is remembered: clients send few shapes, and a state is some 400 bytes.
REMEMBERED = 1024


class KeyMaker:
    """Makes keys of `KEY_BYTES` bytes: equal exactly for requests with equal answers.

    Tensors are in the signature's order, so their place stands for name and datatype; `identity`
    stands for the model. In a shared backend keys meet those of other proxies and outlive this
    process, so `identity` has to change whenever the model's answers may.
    """

    def __init__(self, identity: bytes) -> None:
        self._model = hashlib.blake2b(_length(identity) + identity, digest_size=KEY_BYTES)
        self._described = lru_cache(REMEMBERED)(self._describe)

    def key(self, request: InferRequest) -> bytes:
        """A hash of identity, shapes, wanted outputs, and every tensor's length and bytes."""
        layout = request.layout
        hasher = self._described(layout.shapes, layout.wanted).copy()
        for data in request.data:
            hasher.update(_length(data))
            hasher.update(data)
        return hasher.digest()

    def _describe(self, shapes: Shapes, wanted: tuple[WantedOutput, ...]) -> hashlib.blake2b:
        """The hash's state before the first tensor, which most requests share."""
        description = repr((shapes, tuple(w.place for w in wanted))).encode()
        state = self._model.copy()
        state.update(_length(description) + description)
        return state


def _length(data: Buffer) -> bytes:
    """Goes before the bytes, so that no two sequences of texts can be one when joined."""
    return len(data).to_bytes(8, "little")
