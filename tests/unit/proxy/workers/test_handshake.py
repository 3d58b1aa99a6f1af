"""The proofs that front and node give each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlbench.proxy.errors import StartError
from dlbench.proxy.workers.handshake import (
    FRONT,
    GREETING_BYTES,
    HELLO,
    KIND,
    MAGIC,
    NODE,
    NONCE_BYTES,
    VERSION,
    FrontHello,
    check_kind,
    greeting,
    known,
    prove,
)

SECRETS = st.binary(max_size=100)
HELLOS = st.builds(FrontHello, st.integers(1, 4096), st.binary(min_size=64, max_size=64))


@given(HELLOS)
def test_a_hello_arrives_as_it_was_and_never_twice_the_same(hello):
    said = hello.encode()
    assert len(said) == HELLO.size
    assert FrontHello.decode(said) == hello
    assert hello.encode()[-NONCE_BYTES:] != said[-NONCE_BYTES:]


def test_every_greeting_has_a_nonce_of_its_own():
    said = {greeting() for _ in range(100)}
    assert len(said) == 100
    assert {len(one) for one in said} == {GREETING_BYTES}
    for one in said:
        check_kind(one[: KIND.size])


@given(st.lists(SECRETS, min_size=1, max_size=4, unique=True), st.data())
def test_who_knows_one_of_the_secrets_is_known(secrets, data):
    said = greeting()
    secret = data.draw(st.sampled_from(secrets))
    # Keys are padded with zeros (RFC 2104), and long ones are hashed.
    found = known(secrets, FRONT, said, prove(secret, FRONT, said))
    assert found.rstrip(b"\0") == secret.rstrip(b"\0")
    assert known([secret + b"x"], FRONT, said, prove(secret, FRONT, said)) is None


@given(SECRETS, st.integers(0, GREETING_BYTES - 1), st.integers(0, 7))
def test_a_proof_holds_for_what_was_said_alone(secret, place, bit):
    said = greeting()
    changed = bytearray(said)
    changed[place] ^= 1 << bit
    assert known([secret], FRONT, bytes(changed), prove(secret, FRONT, said)) is None


def test_a_proof_sent_back_proves_nothing():
    said = greeting() + FrontHello(8, bytes(64)).encode()
    proof = prove(b"secret", FRONT, said)
    assert known([b"secret"], NODE, said + proof, proof) is None
    assert known([b"secret"], NODE, said, proof) is None


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (KIND.pack(b"HTTP/1.1", VERSION), "does not speak the protocol of dlbench workers"),
        (KIND.pack(MAGIC, 1), f"protocol versions differ .1 and {VERSION}"),
    ],
)
def test_another_kind_is_refused(kind, why):
    with pytest.raises(StartError, match=why):
        check_kind(kind)
