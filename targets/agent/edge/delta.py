"""What of a file is sent, and how it becomes the file again.

A file travels as frames, each of which turns into the next bytes of it: as they are, compressed by zlib, or as a bsdiff
patch (the format BSDIFF40) against a stretch of a file that is on the device already. Every frame stands for itself, so
that a transfer can go on behind any of them.
"""

from __future__ import annotations

import struct

from .wire import Refused

HEADER = struct.Struct(">cQQQQ")  # kind, bytes that follow, bytes that they stand for, offset and length in the base
PLAIN, DEFLATED, PATCH = b"p", b"z", b"d"
# What one frame that is not plain may need of the device's memory, several times over: old boards have 512 MB.
MAX_FRAME_BYTES = 4 << 20
_ADD_BYTES = 1 << 16  # Python adds long numbers fast, but not much faster when they are longer than this


def inflate(payload: bytes, size: int) -> bytes:
    import zlib

    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(payload, size)
    except zlib.error as fault:
        raise Refused("hash-mismatch", "a compressed frame arrived damaged: %s" % fault) from None
    if len(found) != size:
        raise Refused("hash-mismatch", "a compressed frame holds %d bytes, %d were said" % (len(found), size))
    return found


def add_bytes(left: bytes, right: bytes) -> bytes:
    """The sums of bytes modulo 256, many at once: the top bits apart, so that none carries into its neighbour."""
    out = []
    for start in range(0, len(left), _ADD_BYTES):
        a, b = left[start : start + _ADD_BYTES], right[start : start + _ADD_BYTES]
        size = len(a)
        low, top = (int.from_bytes(mask * size, "little") for mask in (b"\x7f", b"\x80"))
        x, y = int.from_bytes(a, "little"), int.from_bytes(b, "little")
        out.append(((x & low) + (y & low) ^ (x ^ y) & top).to_bytes(size, "little"))
    return b"".join(out)


def patched(base: bytes, patch: bytes, size: int) -> bytes:
    """The new bytes of a BSDIFF40 patch; raises Refused when it is damaged or does not fit the base."""
    try:
        found = _patched(base, patch, size)
    except (struct.error, OSError, EOFError, ValueError, IndexError) as fault:
        raise Refused("hash-mismatch", "a patch arrived damaged: %s" % fault) from None
    if len(found) != size:
        raise Refused("hash-mismatch", "a patch makes %d bytes, %d were said" % (len(found), size))
    return found


def _patched(base: bytes, patch: bytes, size: int) -> bytes:
    magic, control_bytes, difference_bytes, new_bytes = struct.unpack_from("<8sqqq", patch)
    if magic != b"BSDIFF40" or control_bytes < 0 or difference_bytes < 0 or new_bytes != size:
        raise ValueError("not a patch for this")
    ends = (32, 32 + control_bytes, 32 + control_bytes + difference_bytes, len(patch))
    control = _unpacked(patch[ends[0] : ends[1]], 24 * (size + 1))
    difference = _unpacked(patch[ends[1] : ends[2]], size)
    extra = _unpacked(patch[ends[2] : ends[3]], size)
    out: list[bytes] = []
    at = from_difference = from_extra = 0
    for start in range(0, len(control), 24):
        mixed, fresh, seek = (_offset(control[i : i + 8]) for i in range(start, start + 24, 8))
        if mixed < 0 or fresh < 0 or at < 0 or at + mixed > len(base):
            raise ValueError("it points outside of the base")
        piece = difference[from_difference : from_difference + mixed]
        if len(piece) != mixed:
            raise ValueError("it ends early")
        out.append(add_bytes(piece, base[at : at + mixed]))
        out.append(extra[from_extra : from_extra + fresh])
        from_difference, from_extra, at = from_difference + mixed, from_extra + fresh, at + mixed + seek
    return b"".join(out)


def _unpacked(block: bytes, limit: int) -> bytes:
    import bz2

    unpacker = bz2.BZ2Decompressor()
    found = unpacker.decompress(block, limit + 1)
    if len(found) > limit or not unpacker.eof:
        raise ValueError("a block is larger than it may be")
    return found


def _offset(eight: bytes) -> int:
    """Sign and magnitude, as bsdiff writes its numbers."""
    number = int.from_bytes(eight, "little")
    return -(number & (1 << 63) - 1) if number >> 63 else number


def kinds() -> str:
    """The frames that this Python can unpack: one that was built small may lack zlib or bz2."""
    found = PLAIN.decode()
    for kind, module in ((DEFLATED, "zlib"), (PATCH, "bz2")):
        try:
            __import__(module)
        except ImportError:
            continue
        found += kind.decode()
    return found
