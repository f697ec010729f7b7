"""The agent's own Ed25519 against RFC 8032's vectors, an independent implementation, and known traps."""

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.agent.edge.ed25519 import BASE, ORDER, P, double, encode, valid_key, verify

# RFC 8032, section 7.1: public key, message, signature of tests 1, 2 and 3.
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
# The points whose order divides 8, in every encoding that a lenient decoder would take (Chalkias and others, 2020).
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]


@pytest.mark.parametrize(("key", "message", "signature"), VECTORS)
def test_the_vectors_of_the_rfc(key: str, message: str, signature: str) -> None:
    words = bytes.fromhex(key), bytes.fromhex(signature), bytes.fromhex(message)
    assert verify(*words)
    assert not verify(words[0], words[1], words[2] + b"\0")


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300), st.integers(0, 511), st.sampled_from("ksm"))
def test_it_agrees_with_openssl_on_good_and_damaged_signatures(
    seed: bytes, message: bytes, bit: int, where: str
) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    key, signature = private.public_key().public_bytes_raw(), private.sign(message)
    assert verify(key, signature, message)
    if where == "k":
        key = flipped(key, bit % 256)
    elif where == "s":
        signature = flipped(signature, bit)
    else:
        message = flipped(message or b"x", bit % 8)
    assert verify(key, signature, message) == openssl_takes(key, signature, message)


def flipped(text: bytes, bit: int) -> bytes:
    return text[: bit // 8] + bytes([text[bit // 8] ^ 1 << bit % 8]) + text[bit // 8 + 1 :]


def openssl_takes(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def test_a_signature_has_no_second_form() -> None:
    private = Ed25519PrivateKey.generate()
    key, signature = private.public_key().public_bytes_raw(), private.sign(b"release")
    s = int.from_bytes(signature[32:], "little")
    for again in range(1, 16):
        if s + again * ORDER < 1 << 256:
            assert not verify(key, signature[:32] + (s + again * ORDER).to_bytes(32, "little"), b"release")


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_keys_of_small_order_are_refused(key: str) -> None:
    # With such a key, R = any point of small order and S = 0 is a signature of many messages.
    assert not valid_key(bytes.fromhex(key))
    for r in SMALL_ORDER:
        for message in (b"", b"release", b"3"):
            assert not verify(bytes.fromhex(key), bytes.fromhex(r) + bytes(32), message)


def test_only_canonical_encodings_are_keys() -> None:
    assert valid_key(encode(BASE))
    y = 3  # of a point of the curve; y + P fits into 255 bits as well
    while not valid_key(y.to_bytes(32, "little")):
        y += 1
    assert y + P < 1 << 255
    assert not valid_key((y + P).to_bytes(32, "little"))
    assert not valid_key(b"") and not valid_key(bytes(33))
    assert encode(double(BASE)) != encode(BASE)


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80))
def test_bytes_from_outside_never_raise(key: bytes, signature: bytes, message: bytes) -> None:
    assert not verify(key, signature, message)
