"""What a front and a node say before the first frame: each proves that it knows their secret. Pure.

    node -> front   greeting: magic, version, nonce
    front -> node   hello: magic, version, most rows in a batch, the model's fingerprint, nonce; proof
    node -> front   answer: whether the proof is right; proof

A proof is an HMAC over everything said before it and the role of who says it. The secret itself is
never sent, so a stranger at either end learns nothing that it could use: what it hears is of no use
later, since both nonces are fresh, and none when sent back, since the roles differ. Every message
has a fixed size, and nothing else is read before the proofs.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from dlbench.proxy.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC: Final = b"dlworker"
# 1: greeting, hello with the secret, frames. 2: both sides prove that they know it.
VERSION: Final = 2
NONCE_BYTES: Final = 32
PROOF_BYTES: Final = 32
KIND: Final = struct.Struct("<8sH")
GREETING_BYTES: Final = KIND.size + NONCE_BYTES
# Magic, version, most rows in a batch, the model's fingerprint, nonce.
HELLO: Final = struct.Struct(f"<8sHH64s{NONCE_BYTES}s")
HELLO_BYTES: Final = HELLO.size + PROOF_BYTES
ANSWER: Final = struct.Struct(f"<?{PROOF_BYTES}s")
FRONT, NODE = b"front", b"node"
# Of those who have none in common: whoever can connect is let in.
NO_SECRET: Final = b""
WRONG_SECRET: Final = "wrong secret: front and node need the same --node-token-file"


class FrontHello(NamedTuple):
    """What a front tells a node."""

    max_batch_size: int
    fingerprint: bytes

    def encode(self) -> bytes:
        """As it goes over the wire, with a fresh nonce; the proof follows."""
        return HELLO.pack(MAGIC, VERSION, *self, secrets.token_bytes(NONCE_BYTES))

    @classmethod
    def decode(cls, hello: bytes) -> Self:
        """From the wire.

        Raises:
            StartError: it is something else, or of another version.
        """
        magic, version, rows, fingerprint, _ = HELLO.unpack(hello)
        check_kind(KIND.pack(magic, version))
        return cls(rows, fingerprint)


def greeting() -> bytes:
    """What a node says first."""
    return KIND.pack(MAGIC, VERSION) + secrets.token_bytes(NONCE_BYTES)


def check_kind(kind: bytes) -> None:
    """Let a peer of our kind pass, by its first KIND.size bytes.

    Raises:
        StartError: it is something else, or of another version.
    """
    magic, version = KIND.unpack(kind)
    if magic != MAGIC:
        raise StartError("the other side does not speak the protocol of dlbench workers")
    if version != VERSION:
        raise StartError(f"protocol versions differ ({version} and {VERSION}); update dlbench")


def prove(secret: bytes, role: bytes, said: bytes) -> bytes:
    """Proof that the side `role` knows the secret; `said` is everything before it."""
    return hmac.digest(secret, role + said, "sha256")


def known(known_secrets: Sequence[bytes], role: bytes, said: bytes, proof: bytes) -> bytes | None:
    """The secret that `proof` proves, None if it is none of these.

    All are compared, so that the time taken says nothing about which is nearly right.
    """
    found = [s for s in known_secrets if hmac.compare_digest(prove(s, role, said), proof)]
    return found[0] if found else None
