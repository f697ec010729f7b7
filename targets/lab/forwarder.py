"""From a loopback port of this machine to the service of a device, with the faults of a link on the way.

What the client's own kernel sees is what it would see of a real device: see `Link.dark` and `Link.refusing`.
"""

import asyncio
import contextlib
import ctypes
import random
import socket
import struct
import time

from targets.lab.state import LOOPBACK

BACKLOG = 128
CHUNK_BYTES = 128 * 1024
# As much as a fast link has under way; more would hide from the client that the far end reads nothing.
QUEUED_CHUNKS = 4
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_RANDOM = 0x100000000 - 0x1000 + 56  # <linux/filter.h>: SKF_AD_OFF + SKF_AD_RANDOM
_MOST = 0xFFFFFFFF
_ABORT = struct.pack("ii", 1, 0)  # linger for 0 s: close() sends a reset


def listening_socket() -> socket.socket:
    """A free loopback port, held for as long as the lab lives."""
    while True:
        with socket.socket() as scout:
            scout.bind((LOOPBACK, 0))
            place = scout.getsockname()
        sock = socket.socket()
        # To listen again while connections of before are still closing.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            # By number: the kernel takes a port that it chose itself back as soon as its socket stops listening.
            sock.bind(place)
        except OSError:  # somebody was faster
            sock.close()
            continue
        sock.listen(BACKLOG)
        sock.setblocking(False)
        return sock


def drop_packets(sock: socket.socket, share: float) -> None:
    """Let the kernel ignore packets for this socket, each with the same probability.

    With all of them gone there is no acknowledgement, no reset and no new connection.
    """
    if share:
        # A classic BPF program (Documentation/networking/filter.rst): keep no byte of a packet, or all of them.
        load_random, jump_if_at_least, keep = 0x20, 0x35, 0x06
        program = [(load_random, 0, 0, _RANDOM), (jump_if_at_least, 1, 0, int(share * _MOST)), (keep, 0, 0, 0)]
        program = [*program, (keep, 0, 0, _MOST)] if share < 1 else [(keep, 0, 0, 0)]
        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
        filtering = struct.pack("HP", len(program), ctypes.addressof(code))
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filtering)
    else:
        with contextlib.suppress(FileNotFoundError):  # none was attached
            sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


class Link:
    """The way to one device. Attributes may be changed at any time and hold for connections under way as well."""

    def __init__(self, listener: socket.socket, place: tuple[str, int]) -> None:
        self.listener = listener
        self.place = place  # of the device in the lab's own network
        self.dark = False  # packets vanish both ways, as from a pulled cable
        self.refusing = False  # nobody listens: connections are refused at once
        self.delay_s = 0.0  # one way
        self.jitter_s = 0.0  # up to so much more, differently for every piece; the order stays
        self.loss_share = 0.0  # of the packets each way, for TCP to send again
        self.rate_bytes_per_s = 0.0  # each way; 0: as fast as it goes
        self.cut_after_bytes = 0  # reset all connections once so many more bytes have passed; 0: never
        self.dark_after_bytes = 0  # the same, but silently
        self.passed_bytes = 0
        self.connections: set[Connection] = set()
        self._listens = asyncio.Event()

    async def serve(self) -> None:
        """Accept clients for ever."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(self.listener)
            except OSError:  # refusing: this socket does not listen now; or out of file descriptors
                if self.refusing:
                    self._listens.clear()
                    await self._listens.wait()
                else:
                    await asyncio.sleep(0.05)
                continue
            client.setblocking(False)
            Connection(self, client)

    def set_dark(self, dark: bool) -> None:
        self.dark = dark
        self._changed()

    def set_loss(self, share: float) -> None:
        self.loss_share = share
        self._changed()

    def _changed(self) -> None:
        drop_packets(self.listener, float(self.dark))
        for connection in self.connections:
            connection.changed()

    def set_refusing(self, refusing: bool) -> None:
        """The port stays ours: a bound socket that does not listen answers with a reset."""
        if refusing and not self.refusing:
            self.listener.shutdown(socket.SHUT_RD)
        elif self.refusing and not refusing:
            self.listener.listen(BACKLOG)
            self._listens.set()
        self.refusing = refusing

    def cut(self) -> None:
        """Reset every connection."""
        for connection in tuple(self.connections):
            connection.abort()

    def restore(self) -> None:
        """Mend everything; connections that were cut stay cut."""
        self.set_dark(False)
        self.set_loss(0.0)
        self.set_refusing(False)
        self.delay_s = self.jitter_s = self.rate_bytes_per_s = 0.0
        self.cut_after_bytes = self.dark_after_bytes = 0

    def room_bytes(self) -> int:
        """How much may pass at once so that the next trigger goes off at its exact byte."""
        return min(self.cut_after_bytes or CHUNK_BYTES, self.dark_after_bytes or CHUNK_BYTES, CHUNK_BYTES)

    def count(self, size_bytes: int) -> None:
        """Bytes have passed; triggers that wait for that go off."""
        self.passed_bytes += size_bytes
        if self.cut_after_bytes:
            self.cut_after_bytes = max(0, self.cut_after_bytes - size_bytes)
            if not self.cut_after_bytes:
                self.cut()
        if self.dark_after_bytes:
            self.dark_after_bytes = max(0, self.dark_after_bytes - size_bytes)
            if not self.dark_after_bytes:
                self.set_dark(True)

    def faults(self) -> dict[str, float]:
        """What is wrong with the link now, for `status`."""
        found: dict[str, float] = {"dark": self.dark, "refusing": self.refusing, "delay_s": self.delay_s}
        found |= {"jitter_s": self.jitter_s, "loss_share": self.loss_share}
        found |= {"rate_bytes_per_s": self.rate_bytes_per_s, "cut_after_bytes": self.cut_after_bytes}
        found["dark_after_bytes"] = self.dark_after_bytes
        return {name: value for name, value in found.items() if value}


class Connection:
    """One client's connection and the one to the device that it is joined with."""

    def __init__(self, link: Link, client: socket.socket) -> None:
        self.link = link
        self.client = client
        self.device = socket.socket()
        self.device.setblocking(False)
        self._passing = asyncio.Event()
        self.changed()
        link.connections.add(self)
        self.task = asyncio.get_running_loop().create_task(self._run())

    def changed(self) -> None:
        """Take over what is wrong with the link now."""
        # Both ways can lose packets: here come the client's, there the device's. A pulled cable is the client's side.
        drop_packets(self.client, 1.0 if self.link.dark else self.link.loss_share)
        drop_packets(self.device, self.link.loss_share)
        if self.link.dark:
            self._passing.clear()
        else:
            self._passing.set()

    def abort(self) -> None:
        """End both halves with a reset, whatever they are doing."""
        self._reset_on_close()
        self.task.cancel()

    def _reset_on_close(self) -> None:
        for sock in (self.client, self.device):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)

    async def _run(self) -> None:
        try:
            await asyncio.get_running_loop().sock_connect(self.device, self.link.place)
            async with asyncio.TaskGroup() as group:
                for source, sink in ((self.client, self.device), (self.device, self.client)):
                    sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_CHUNKS)
                    group.create_task(self._read(source, queue))
                    group.create_task(self._send(sink, queue))
        except* OSError:
            self._reset_on_close()  # a device that is not there, or went away, gives no clean end
        finally:
            self.link.connections.discard(self)
            self.client.close()
            self.device.close()

    async def _read(self, source: socket.socket, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        """Reading and sending overlap, so that a delay costs time and not throughput."""
        loop = asyncio.get_running_loop()
        due = 0.0
        while True:
            chunk = await loop.sock_recv(source, CHUNK_BYTES)
            delay_s = self.link.delay_s + random.uniform(0, self.link.jitter_s)
            due = max(due, time.monotonic() + delay_s)  # TCP would put what overtakes back in order
            await queue.put((due, chunk))
            if not chunk:
                return

    async def _send(self, sink: socket.socket, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, chunk = await queue.get()
            if (early_s := due - time.monotonic()) > 0:
                await asyncio.sleep(early_s)
            await self._passing.wait()
            if not chunk:
                sink.shutdown(socket.SHUT_WR)
                return
            while chunk:
                part, chunk = chunk[: self.link.room_bytes()], chunk[self.link.room_bytes() :]
                if rate := self.link.rate_bytes_per_s:
                    await asyncio.sleep(len(part) / rate)
                await loop.sock_sendall(sink, part)
                self.link.count(len(part))
                await self._passing.wait()
