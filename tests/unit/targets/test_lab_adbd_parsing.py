"""The adb daemon's parsing: packets cut anyhow, keys in adb's own format, and the file that switches its states."""

import base64
import json
import os
import struct
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA1
from hypothesis import given
from hypothesis import strategies as st

from targets.lab.adbd.auth import has_signed, key_of, public_key
from targets.lab.adbd.state import AdbdState, StateFile
from targets.lab.adbd.wire import MAX_HANDSHAKE_BYTES, MAX_PAYLOAD_BYTES, Packet, PacketReader, WireError

numbers = st.integers(0, 0xFFFFFFFF)
packets = st.builds(Packet, command=numbers, arg0=numbers, arg1=numbers, payload=st.binary(max_size=200))


def read_all(reader: PacketReader, pieces: list[bytes]) -> list[Packet]:
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (packet := reader.next()) is not None:
            found.append(packet)
    return found


@given(sent=st.lists(packets, max_size=5), checksum=st.booleans(), cuts=st.lists(st.integers(0, 1200), max_size=8))
def test_packets_are_the_same_however_their_bytes_arrive(sent: list[Packet], checksum: bool, cuts: list[int]) -> None:
    data = b"".join(packet.pack(checksum=checksum) for packet in sent)
    places = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(places)]
    reader = PacketReader()
    reader.checksums = checksum
    assert read_all(reader, pieces) == sent


@given(pieces=st.lists(st.binary(max_size=100), max_size=10), header=st.none() | packets)
def test_no_bytes_do_worse_than_a_wire_error(pieces: list[bytes], header: Packet | None) -> None:
    if header:
        pieces = [header.pack(checksum=False), *pieces]
    with suppress(WireError):
        read_all(PacketReader(), pieces)


def test_a_packet_that_is_too_long_is_refused_by_its_header() -> None:
    reader = PacketReader()
    whole = Packet(command=1, arg0=0, arg1=0, payload=bytes(MAX_HANDSHAKE_BYTES + 1)).pack(checksum=False)
    reader.feed(whole[:24])
    with pytest.raises(WireError, match="limit"):
        reader.next()
    reader.limit_bytes = MAX_PAYLOAD_BYTES
    reader.feed(whole[24:])
    assert reader.next()


def test_a_wrong_checksum_is_found_where_checksums_are_used() -> None:
    data = bytearray(Packet(command=1, arg0=0, arg1=0, payload=b"abc").pack(checksum=True))
    data[-1] ^= 1
    reader = PacketReader()
    reader.checksums = True
    reader.feed(bytes(data))
    with pytest.raises(WireError, match="checksum"):
        reader.next()


@cache
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def blob_of(n: int, exponent: int) -> bytes:
    """As system/core/libcrypto_utils computes it."""
    r = 1 << 2048
    words = struct.pack("<II", 64, (-pow(n, -1, 1 << 32)) % (1 << 32))
    return words + n.to_bytes(256, "little") + (r * r % n).to_bytes(256, "little") + struct.pack("<I", exponent)


def line_of(blob: bytes) -> str:
    return base64.b64encode(blob).decode() + " user@host\0"


def own_line() -> str:
    ours = private_key().public_key().public_numbers()
    return line_of(blob_of(ours.n, ours.e))


def test_a_key_is_read_and_only_its_owners_signature_of_this_token_holds() -> None:
    line, token = own_line(), os.urandom(20)
    assert public_key(line).public_numbers() == private_key().public_key().public_numbers()
    signature = private_key().sign(token, padding.PKCS1v15(), utils.Prehashed(SHA1()))
    assert has_signed(line, token, signature)
    assert has_signed(key_of(line), token, signature)
    assert not has_signed(line, os.urandom(20), signature)
    assert not has_signed(line, token, bytes(256))
    assert not has_signed(line, token, b"")


@given(place=st.integers(0, 519), change=st.integers(1, 255))
def test_a_key_with_any_wrong_byte_is_refused(place: int, change: int) -> None:
    ours = private_key().public_key().public_numbers()
    blob = bytearray(blob_of(ours.n, ours.e))
    blob[place] ^= change
    with pytest.raises(ValueError):
        public_key(line_of(bytes(blob)))


@given(text=st.text(max_size=50) | st.binary(min_size=524, max_size=524).map(line_of))
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        public_key(text)


def test_a_state_is_taken_up_when_its_file_is_replaced(tmp_path: Path) -> None:
    states = StateFile(tmp_path / "state")
    assert not states.refresh()
    wanted = AdbdState(access="keys", authorized_keys=(own_line(),), user_allows=True, cut_after_bytes=7)
    wanted.save(tmp_path / "state")
    assert states.refresh() and not states.refresh()
    assert states.current == wanted
    wanted.save(tmp_path / "state")
    assert states.refresh()  # the same again: a cut is to happen again
    (tmp_path / "state").write_text("{")
    with pytest.raises(ValueError):
        states.refresh()
    assert states.current == wanted and not states.refresh()
    (tmp_path / "state").unlink()
    assert states.refresh()
    assert states.current == AdbdState()


@pytest.mark.parametrize(
    "values",
    [
        [],
        {"acces": "open"},
        {"access": "closed"},
        {"access": ["open"]},
        {"authorized_keys": 5},
        {"authorized_keys": [5]},
        {"authorized_keys": ["QAAA"]},
        {"user_allows": 1},
        {"cut_after_bytes": -1},
        {"cut_after_bytes": True},
    ],
)
def test_a_state_that_cannot_be_is_refused(values: object) -> None:
    with pytest.raises(ValueError):
        AdbdState.parse(json.dumps(values))


@pytest.mark.parametrize(
    ("state", "stranger", "owner"),
    [
        (AdbdState(), True, True),
        (AdbdState(access="offline"), False, False),
        (AdbdState(access="keys"), False, False),
        (AdbdState(access="keys", authorized_keys=("key comment",)), False, True),
        (AdbdState(access="keys", user_allows=True), False, True),
    ],
)
def test_who_may_be_connected(state: AdbdState, stranger: bool, owner: bool) -> None:
    assert (state.permits(None), state.permits("key")) == (stranger, owner)
