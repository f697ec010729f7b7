"""One stream of a connection: what a service reads from and writes to its client.

The sender of a WRTE waits for OKAY before the next.
"""

import asyncio
from collections.abc import Awaitable, Callable

from targets.lab.adbd.wire import CLSE, OKAY, WRTE, WireError

_MOST_WAITING = 16


class StreamClosed(Exception):
    """The client has closed the stream, or is gone."""


class Stream:
    """Made for an OPEN; `send` takes a command and a payload, `drain` waits until the connection takes more."""

    def __init__(
        self,
        *,
        remote_id: int,
        payload_bytes: int,
        send: Callable[[int, bytes], None],
        drain: Callable[[], Awaitable[None]],
    ) -> None:
        self.remote_id = remote_id
        self.closed = asyncio.Event()
        self._payload_bytes = payload_bytes
        self._send = send
        self._drain = drain
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self._buffer = bytearray()
        self._writing = asyncio.Lock()
        self._acknowledged = asyncio.Event()

    async def write(self, data: bytes) -> None:
        """Send all of it, and return when the client has taken it. Raises StreamClosed."""
        async with self._writing:
            for start in range(0, len(data), self._payload_bytes):
                self._acknowledged.clear()
                if self.closed.is_set():
                    raise StreamClosed
                self._send(WRTE, data[start : start + self._payload_bytes])
                try:
                    await self._drain()
                except ConnectionError:
                    raise StreamClosed from None
                await self._acknowledged.wait()
                if self.closed.is_set():
                    raise StreamClosed

    async def read(self) -> bytes:
        """What has come, at least one byte. Raises StreamClosed at the end."""
        while not self._buffer:
            await self._fill()
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    async def read_exactly(self, size_bytes: int) -> bytes:
        """Raises StreamClosed when the end comes first. The caller has checked that the size is a decent one."""
        while len(self._buffer) < size_bytes:
            await self._fill()
        data = bytes(memoryview(self._buffer)[:size_bytes])
        del self._buffer[:size_bytes]
        return data

    async def _fill(self) -> None:
        if self.closed.is_set() and self._arrived.empty():
            raise StreamClosed
        payload = await self._arrived.get()
        if not self.closed.is_set():
            self._send(OKAY, b"")
        self._buffer += payload

    def close(self) -> None:
        """Our side has no more to say."""
        if not self.closed.is_set():
            self._send(CLSE, b"")
            self.ended()

    def wrote(self, payload: bytes) -> None:
        """A WRTE came. Raises WireError for a client that does not wait for our OKAY at all.

        The genuine server does not either once its own client, `adb push` for example, has left after an error: then
        it sends what that has left behind, which is a socket's buffer at most.
        """
        if self._arrived.qsize() >= _MOST_WAITING:
            raise WireError("a client that does not wait for OKAY")
        self._arrived.put_nowait(payload)

    def acknowledged(self) -> None:
        """An OKAY came."""
        self._acknowledged.set()

    def ended(self) -> None:
        """Nothing will come or go any more; what has come can still be read."""
        self.closed.set()
        self._acknowledged.set()
        self._arrived.put_nowait(b"")
