"""Packets of the ADB protocol: 24 bytes of header and a payload. No input or output here.

Source: packages/modules/adb, protocol.txt and adb.h.
"""

import struct
from dataclasses import dataclass

VERSION = 0x01000001  # from this one on nobody computes checksums
# What the genuine daemon announces; a payload of this size is the most that a client may make us hold per stream.
MAX_PAYLOAD_BYTES = 1024 * 1024
# Before the handshake is over nothing longer than this is legal (MAX_PAYLOAD_V1).
MAX_HANDSHAKE_BYTES = 4096


def _tag(name: bytes) -> int:
    return int.from_bytes(name, "little")


CNXN, AUTH, OPEN, OKAY, WRTE, CLSE = (_tag(name) for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE"))
AUTH_TOKEN, AUTH_SIGNATURE, AUTH_PUBLIC_KEY = 1, 2, 3

_HEADER = struct.Struct("<6I")  # command, two arguments, payload's length, payload's checksum, command inverted
_ALL_BITS = 0xFFFFFFFF


class WireError(Exception):
    """The other side does not speak the protocol; its connection cannot go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One message. Of streams, `arg0` is the sender's own number and `arg1` the receiver's."""

    command: int
    arg0: int
    arg1: int
    payload: bytes = b""

    def pack(self, *, checksum: bool) -> bytes:
        total = sum(self.payload) & _ALL_BITS if checksum else 0
        size_bytes = len(self.payload)
        header = _HEADER.pack(self.command, self.arg0, self.arg1, size_bytes, total, self.command ^ _ALL_BITS)
        return header + self.payload


class PacketReader:
    """Makes packets of bytes that arrive in pieces of any size; holds one packet and one piece at most."""

    def __init__(self) -> None:
        self.limit_bytes = MAX_HANDSHAKE_BYTES
        self.checksums = False
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> None:
        self._buffer += piece

    def next(self) -> Packet | None:
        """The next whole packet, if it has arrived. Raises WireError as soon as a header cannot be right."""
        if len(self._buffer) < _HEADER.size:
            return None
        command, arg0, arg1, size_bytes, checksum, inverted = _HEADER.unpack_from(self._buffer)
        if inverted != command ^ _ALL_BITS:
            raise WireError("a packet without its magic number")
        if size_bytes > self.limit_bytes:
            raise WireError(f"a packet of {size_bytes} bytes where {self.limit_bytes} are the limit")
        end = _HEADER.size + size_bytes
        if len(self._buffer) < end:
            return None
        payload = bytes(memoryview(self._buffer)[_HEADER.size : end])
        del self._buffer[:end]
        if self.checksums and checksum != sum(payload) & _ALL_BITS:
            raise WireError("a packet with a wrong checksum")
        return Packet(command=command, arg0=arg0, arg1=arg1, payload=payload)
