"""The service `sync:`: files to and from the device.

Source: packages/modules/adb, file_sync_protocol.h and daemon/file_sync_service.cpp. Errors carry the system's own
words, which the client prints.
"""

import os
import stat
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

from targets.lab.adbd.stream import Stream

MAX_DATA_BYTES = 64 * 1024  # SYNC_DATA_MAX
MAX_PATH_BYTES = 1024
_HEADER = struct.Struct("<4sI")
_STAT = struct.Struct("<III")  # mode, size, mtime
# error, dev, ino, mode, nlink, uid, gid, size, atime, mtime, ctime
_STAT2 = struct.Struct("<IQQIIIIQqqq")
_NAME = struct.Struct("<I")
_ALL_BITS = 0xFFFFFFFF
_MODE_BITS = 0xFFFF
_OPEN = os.O_CLOEXEC | os.O_NONBLOCK  # a pipe without another end must not stop the whole daemon


class SyncError(Exception):
    """Something that the client is told, after which the session is over."""


class FileRefused(SyncError):
    """A file that cannot be written, while its client goes on sending until it hears of it."""


class SyncSession:
    """One client's session; paths are below the device's root folder."""

    def __init__(self, stream: Stream, root: Path) -> None:
        self._stream = stream
        self._root = root
        self._requests: Mapping[bytes, Callable[[str], Awaitable[None]]] = {
            b"STAT": self._stat,
            b"LST2": self._stat_link,
            b"STA2": self._stat_target,
            b"LIST": self._list,
            b"LIS2": self._list2,
            b"SEND": self._receive_file,
            b"RECV": self._send_file,
        }

    async def run(self) -> None:
        """Answer requests until QUIT, an error, or the end of the stream (StreamClosed)."""
        try:
            while True:
                tag, size_bytes = _HEADER.unpack(await self._stream.read_exactly(_HEADER.size))
                if tag == b"QUIT":
                    return
                if tag not in self._requests:
                    raise SyncError(f"unknown command {tag.decode('ascii', 'replace')}")
                if size_bytes > MAX_PATH_BYTES:
                    raise SyncError("path too long")
                await self._requests[tag](os.fsdecode(await self._stream.read_exactly(size_bytes)))
        except SyncError as fault:
            words = str(fault).encode()
            await self._stream.write(_HEADER.pack(b"FAIL", len(words)) + words)
            if isinstance(fault, FileRefused):  # closing now could overtake the words
                while isinstance(await self._next_data(), bytes):
                    pass

    def _place(self, path: str) -> Path:
        """Where a path of the device is. Its links may lead out of the root folder, as do its shell's."""
        if "\0" in path:
            raise SyncError("invalid path")
        return self._root / os.path.normpath(f"/{path}").lstrip("/")

    async def _stat(self, path: str) -> None:
        await self._stream.write(b"STAT" + _stat1(self._place(path)))

    async def _stat_link(self, path: str) -> None:
        await self._stream.write(b"LST2" + _stat2(self._place(path), follow=False))

    async def _stat_target(self, path: str) -> None:
        await self._stream.write(b"STA2" + _stat2(self._place(path), follow=True))

    async def _list(self, path: str) -> None:
        await self._write_entries(path, b"DENT", _stat1, bytes(_STAT.size))

    async def _list2(self, path: str) -> None:
        await self._write_entries(path, b"DNT2", lambda place: _stat2(place, follow=False), bytes(_STAT2.size))

    async def _write_entries(self, path: str, tag: bytes, describe: Callable[[Path], bytes], nothing: bytes) -> None:
        """A folder that cannot be read has no entries; the protocol has no word for the reason."""
        folder = self._place(path)
        try:
            names = [".", "..", *(entry.name for entry in folder.iterdir())]
        except OSError:
            names = []
        entries = bytearray()
        for name in names:
            text = os.fsencode(name)
            entries += tag + describe(folder / name) + _NAME.pack(len(text)) + text
            if len(entries) >= MAX_DATA_BYTES:
                await self._stream.write(bytes(entries))
                entries.clear()
        await self._stream.write(bytes(entries) + b"DONE" + nothing + _NAME.pack(0))

    async def _send_file(self, path: str) -> None:
        try:
            file = os.open(self._place(path), os.O_RDONLY | _OPEN)
        except OSError as fault:
            raise SyncError(f"open failed: {fault.strerror}") from None
        waiting = b""
        try:
            while data := os.read(file, MAX_DATA_BYTES):
                await self._stream.write(waiting)
                waiting = _HEADER.pack(b"DATA", len(data)) + data
        except OSError as fault:
            raise SyncError(f"read failed: {fault.strerror}") from None
        finally:
            os.close(file)
        # In one write with the last piece: the client's server would hold a small one back for 40 ms (Nagle).
        await self._stream.write(waiting + _HEADER.pack(b"DONE", 0))

    async def _receive_file(self, request: str) -> None:
        """PATH,MODE and then the contents. A failed file is removed; one whose connection ends stays as far as it came.

        The genuine daemon removes that one as well, if it lives and notices: after a power cut, or behind a dead
        link, the part stays. So whoever pushes must cope with it, and here it always stays.
        """
        path, _, number = request.rpartition(",")
        if not number.isdecimal() or int(number) > _MODE_BITS:
            raise SyncError("missing file mode")
        place, mode = self._place(path), int(number)
        await (self._receive_link(place) if stat.S_ISLNK(mode) else self._receive_contents(place, mode))
        await self._stream.write(_HEADER.pack(b"OKAY", 0))

    async def _receive_contents(self, place: Path, mode: int) -> None:
        ours = _remove_old(place)
        try:
            file = _create(place, _for_all(mode))
        except OSError as fault:
            raise FileRefused(f"couldn't create file: {fault.strerror}") from None
        try:
            while isinstance(data := await self._next_data(), bytes):
                _write_all(file, data)
            with suppress(OSError):  # not every file system can
                os.fchmod(file, _for_all(mode))
                os.utime(file, (data, data))
        except OSError as fault:
            if ours:
                place.unlink(missing_ok=True)
            raise FileRefused(f"write failed: {fault.strerror}") from None
        finally:
            os.close(file)

    async def _receive_link(self, place: Path) -> None:
        target = b""
        while isinstance(data := await self._next_data(), bytes):
            target += data
            if len(target) > MAX_PATH_BYTES:
                raise SyncError("path too long")
        _remove_old(place)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(os.fsdecode(target.rstrip(b"\0")))
        except (OSError, ValueError) as fault:
            raise SyncError(f"symlink failed: {fault}") from None

    async def _next_data(self) -> bytes | int:
        """A piece of the file, or its time of modification when it is complete."""
        tag, number = _HEADER.unpack(await self._stream.read_exactly(_HEADER.size))
        if tag == b"DONE":
            return int(number)
        if tag != b"DATA":
            raise SyncError("invalid data message")
        if number > MAX_DATA_BYTES:
            raise SyncError("oversize data message")
        return await self._stream.read_exactly(number)


def _stat1(place: Path) -> bytes:
    """All zero for what is not there; a client of this old form cannot be told why."""
    try:
        found = place.lstat()
    except OSError:
        return bytes(_STAT.size)
    return _STAT.pack(found.st_mode, min(found.st_size, _ALL_BITS), int(found.st_mtime) & _ALL_BITS)


def _stat2(place: Path, *, follow: bool) -> bytes:
    try:
        found = place.stat(follow_symlinks=follow)
    except OSError as fault:
        return _STAT2.pack(fault.errno or 0, *(0,) * 10)
    numbers = (found.st_dev, found.st_ino, found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_size)
    return _STAT2.pack(0, *numbers, int(found.st_atime), int(found.st_mtime), int(found.st_ctime))


def _remove_old(place: Path) -> bool:
    """Whether what will be there is a file of ours; a device or folder, for example, stays what it is."""
    try:
        kind = place.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
            return False
        place.unlink()
    except OSError:  # nothing there, or creating will tell why
        return True
    return True


def _create(place: Path, mode: int) -> int:
    """Open a file for writing, with the folders above it. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | _OPEN
    try:
        return os.open(place, flags, mode)
    except FileNotFoundError:
        place.parent.mkdir(parents=True, exist_ok=True)
        return os.open(place, flags, mode)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _for_all(mode: int) -> int:
    """The owner's permissions, given to everybody."""
    owner = mode & 0o700
    return (mode & 0o777) | owner >> 3 | owner >> 6
