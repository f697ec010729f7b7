"""One client's connection: the handshake, who is let in, and the streams."""

import asyncio
import os
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from targets.lab.adbd import wire
from targets.lab.adbd.auth import TOKEN_BYTES, has_signed, key_of, public_key
from targets.lab.adbd.stream import Stream, StreamClosed
from targets.lab.adbd.wire import Packet, PacketReader, WireError

if TYPE_CHECKING:
    from targets.lab.adbd.daemon import Daemon

CHUNK_BYTES = 64 * 1024
# The server on the client's machine puts all its clients into one connection; far more than one person's programs.
MAX_STREAMS = 256
MAX_SIGNATURES = 256  # as many as the genuine daemon takes before it becomes slow
_LAST_WORDS_S = 1.0  # for services to end by themselves after their connection has


class Connection:
    """Serves one client until it leaves, misbehaves, or is thrown out."""

    def __init__(self, daemon: "Daemon", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._daemon = daemon
        self._reader = reader
        self._writer = writer
        self._incoming = PacketReader()
        self._payload_bytes = wire.MAX_HANDSHAKE_BYTES
        self._streams: dict[int, Stream] = {}
        self._last_id = 0
        self._services: set[asyncio.Task[None]] = set()
        self._deaf = daemon.state.access == "offline"
        self._online = False
        self._token = b""  # what the client is to sign
        self._signatures = 0
        self._key: str | None = None  # what the client has got in with
        self._asked: str | None = None  # what the user is being asked about

    async def run(self) -> None:
        """Never raises for anything that a client may do."""
        try:
            while chunk := await self._reader.read(self._daemon.room_bytes(CHUNK_BYTES)):
                self._incoming.feed(chunk)
                while (packet := self._incoming.next()) is not None:
                    self._daemon.refresh()
                    if self._writer.is_closing():
                        return
                    if not self._deaf:
                        self._handle(packet)
                    await self._writer.drain()
                self._daemon.passed(len(chunk))
                if self._writer.is_closing():
                    return
        except OSError:
            return  # the client left
        except WireError as fault:
            print(f"adbd: {self._writer.get_extra_info('peername')}: {fault}", file=sys.stderr, flush=True)
        finally:
            self.abort()
            await self._end_streams()

    def abort(self) -> None:
        """End it with a reset; what is under way is lost."""
        self._writer.transport.abort()

    def reconsider(self) -> None:
        """The daemon's state has changed."""
        state = self._daemon.state
        if self._deaf or state.access == "offline" or (self._online and not state.permits(self._key)):
            self.abort()
        elif self._asked and not self._online and state.permits(self._asked):
            self._let_in(self._asked)

    def _handle(self, packet: Packet) -> None:
        if packet.command == wire.CNXN:
            self._connect(packet)
        elif packet.command == wire.AUTH:
            self._authenticate(packet)
        elif not self._online:
            return  # the genuine daemon has no answer either
        elif packet.command == wire.OPEN:
            self._open(packet)
        elif (stream := self._streams.get(packet.arg1)) and stream.remote_id == packet.arg0:
            if packet.command == wire.WRTE:
                stream.wrote(packet.payload)
            elif packet.command == wire.OKAY:
                stream.acknowledged()
            elif packet.command == wire.CLSE:
                stream.close()  # which answers it

    def _connect(self, packet: Packet) -> None:
        """Begin, or begin again."""
        for stream in tuple(self._streams.values()):
            stream.ended()
        self._streams.clear()
        self._online = False
        self._incoming.checksums = packet.arg0 < wire.VERSION
        self._payload_bytes = max(1, min(packet.arg1, wire.MAX_PAYLOAD_BYTES))
        if self._daemon.state.permits(None):
            self._let_in(None)
        else:
            self._challenge()

    def _challenge(self) -> None:
        self._token = os.urandom(TOKEN_BYTES)
        self._send(wire.AUTH, wire.AUTH_TOKEN, 0, self._token)

    def _authenticate(self, packet: Packet) -> None:
        """A signature, with any of the client's keys; or, when none was good, the key to ask the user about."""
        if not self._token or self._online:
            return
        if packet.arg0 == wire.AUTH_SIGNATURE:
            self._signatures += 1
            if self._signatures > MAX_SIGNATURES:
                raise WireError("too many signatures")
            known = self._daemon.known_keys()
            signer = next((key for key in known if has_signed(key, self._token, packet.payload)), None)
            if signer:
                self._let_in(signer)
            else:
                self._challenge()
        elif packet.arg0 == wire.AUTH_PUBLIC_KEY:
            try:
                line = packet.payload.decode("utf-8")
                public_key(line)
            except ValueError as fault:
                raise WireError(f"a public key that is none: {fault}") from None
            self._asked = key_of(line)
            self.reconsider()

    def _let_in(self, key: str | None) -> None:
        self._online, self._key, self._token = True, key, b""
        if key:
            self._daemon.remember(key)
        self._incoming.limit_bytes = wire.MAX_PAYLOAD_BYTES
        self._send(wire.CNXN, wire.VERSION, wire.MAX_PAYLOAD_BYTES, self._daemon.banner())

    def _send(self, command: int, arg0: int, arg1: int, payload: bytes = b"") -> None:
        if self._writer.is_closing():
            return
        packet = Packet(command=command, arg0=arg0, arg1=arg1, payload=payload)
        data = packet.pack(checksum=self._incoming.checksums)
        self._writer.write(data)
        self._daemon.passed(len(data))

    def _open(self, packet: Packet) -> None:
        name = packet.payload.rstrip(b"\0").decode("utf-8", "surrogateescape")
        serve = self._daemon.service(name)
        if serve is None or packet.arg0 == 0 or len(self._streams) >= MAX_STREAMS:
            self._send(wire.CLSE, 0, packet.arg0)
            return
        self._last_id += 1
        number = self._last_id

        def send(command: int, payload: bytes) -> None:
            if command == wire.CLSE:
                self._streams.pop(number, None)
            self._send(command, number, packet.arg0, payload)

        stream = Stream(remote_id=packet.arg0, payload_bytes=self._payload_bytes, send=send, drain=self._writer.drain)
        self._streams[number] = stream
        send(wire.OKAY, b"")
        task = asyncio.create_task(_served(stream, serve(stream)))
        self._services.add(task)
        task.add_done_callback(self._services.discard)

    async def _end_streams(self) -> None:
        """Services get to see what had come, and the end after it."""
        for stream in self._streams.values():
            stream.ended()
        services = tuple(self._services)
        if services:
            _, slow = await asyncio.wait(services, timeout=_LAST_WORDS_S)
            for task in slow:
                task.cancel()
        with suppress(OSError):
            await self._writer.wait_closed()


async def _served(stream: Stream, work: Coroutine[Any, Any, None]) -> None:
    """One service, whose failure is its own."""
    try:
        await work
    except StreamClosed:
        return
    except Exception as fault:  # whatever it was, the device goes on
        print(f"adbd: {type(fault).__name__}: {fault}", file=sys.stderr, flush=True)
    finally:
        stream.close()
