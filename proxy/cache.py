"""The result cache. A key covers everything that an answer depends on. Pure."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from dlbench.proxy.tensors import Tensor

if TYPE_CHECKING:
    from dlbench.proxy.wire import InferRequest

    Outputs = tuple[Tensor, ...]

# 128 bits: with a billion entries the chance of any collision is below 1e-20.
KEY_BYTES = 16


class Cache(Protocol):
    """Keeps answers by the request's key; a key of None means: do not look."""

    def key(self, request: InferRequest) -> bytes | None:
        """What the answer is kept under."""
        ...

    def get(self, key: bytes) -> Outputs | None:
        """The kept answer, if any."""
        ...

    def put(self, key: bytes, outputs: Outputs) -> None:
        """Keep an answer."""
        ...


class NoCache:
    """Keeps nothing, and lets nothing be joined."""

    def key(self, request: InferRequest) -> None:  # noqa: ARG002 - no request has a key
        return None

    def get(self, key: bytes) -> None:  # noqa: ARG002 - there is nothing to get
        return None

    def put(self, key: bytes, outputs: Outputs) -> None:
        """Forget it."""


class LruCache:
    """Keeps the answers that were used last, at most `size` of them."""

    def __init__(self, size: int, identity: bytes) -> None:
        """`identity` is what all keys share: the model and its version."""
        self._size = size
        self._hash = hashlib.blake2b(identity, digest_size=KEY_BYTES)
        self._entries: OrderedDict[bytes, Outputs] = OrderedDict()

    def key(self, request: InferRequest) -> bytes:
        """A hash of identity, requested outputs and every tensor's place, shape and bytes.

        The tensors are in the signature's order, so their place stands for name and datatype. The
        description goes first and says every length: no two requests have the same text.
        """
        hasher = self._hash.copy()
        shapes = tuple(tensor.shape for tensor in request.tensors)
        wanted = tuple(w.index for w in request.wanted)
        description = repr((wanted, shapes)).encode()
        hasher.update(len(description).to_bytes(8, "little") + description)
        for tensor in request.tensors:
            hasher.update(tensor.data)
        return hasher.digest()

    def get(self, key: bytes) -> Outputs | None:
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: bytes, outputs: Outputs) -> None:
        # Copied: a slice would keep the whole batch that it was cut from.
        self._entries[key] = tuple(Tensor(t.shape, bytes(t.data)) for t in outputs)
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)


def make_cache(size: int, identity: bytes) -> Cache:
    """A cache of `size` entries, the null object for 0."""
    return LruCache(size, identity) if size else NoCache()
