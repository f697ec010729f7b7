"""Whether a client holds the private half of a key, in the format of adb's own adbkey.pub.

Source: system/core/libcrypto_utils/android_pubkey.cpp. The blob holds, beside modulus and exponent, two numbers that
follow from the modulus; the genuine daemon ignores them, here they must be right.
"""

import base64
import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA1

TOKEN_BYTES = 20  # the client signs the token as if it were a SHA-1 digest
_MODULUS_BYTES = 256  # adb knows keys of 2048 bits only
_WORDS = _MODULUS_BYTES // 4
_BLOB = struct.Struct(f"<II{_MODULUS_BYTES}s{_MODULUS_BYTES}sI")  # words, -1/n mod 2^32, n, 2^4096 mod n, exponent


def key_of(line: str) -> str:
    """The key of an adbkey.pub without the comment after it; what keys are compared by."""
    return line.strip().rstrip("\0").partition(" ")[0]


def public_key(line: str) -> RSAPublicKey:
    """Parse a line of adbkey.pub. Raises ValueError for anything else."""
    blob = base64.b64decode(key_of(line), validate=True)
    if len(blob) != _BLOB.size:
        raise ValueError(f"an adb key has {_BLOB.size} bytes, not {len(blob)}")
    words, inverse, modulus, square, exponent = _BLOB.unpack(blob)
    n = int.from_bytes(modulus, "little")
    if words != _WORDS or n.bit_length() != _MODULUS_BYTES * 8:
        raise ValueError("not a key of 2048 bits")
    if (n * inverse + 1) % (1 << 32) or int.from_bytes(square, "little") != (1 << 2 * _MODULUS_BYTES * 8) % n:
        raise ValueError("the numbers of the key do not fit each other")
    return RSAPublicNumbers(exponent, n).public_key()


def has_signed(line: str, token: bytes, signature: bytes) -> bool:
    """Whether the owner of the key made this signature of the token."""
    try:
        public_key(line).verify(signature, token, PKCS1v15(), Prehashed(SHA1()))
    except InvalidSignature:
        return False
    return True
