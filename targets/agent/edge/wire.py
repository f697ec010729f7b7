"""What agent and host agree on: sizes, refusals, lines in and out."""

from __future__ import annotations

import errno
import json
import os
import select

TYPE_CHECKING = False  # as typing has it, without its import, which costs a start more than our own modules do
if TYPE_CHECKING:
    from typing import Any, BinaryIO

WIRE = (1, 0)  # major, minor; another major is refused in `hello`
MAX_REQUEST_BYTES = 256 * 1024
MAX_REPLY_BYTES = 8 * 1024 * 1024  # 200 000 samples of 20 digits are 4 MB
RAW_BYTES = 1 << 20  # what one read may take: a pipe gives 64 KiB, a socket more

Json = dict[str, "Any"]


class Refused(Exception):
    """An expected failure, sent to the host as {code, message}."""

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, **more}


def os_refusal(fault: OSError) -> Refused:
    codes = {errno.ENOSPC: "disk-full", errno.EDQUOT: "disk-full", errno.EROFS: "read-only"}
    codes.update({errno.EACCES: "read-only", errno.EPERM: "read-only"})
    return Refused(codes.get(fault.errno or 0, "agent"), "%s: %s" % (fault.strerror or fault, fault.filename or "?"))


class HostGone(Exception):
    """stdin ended: whoever asked is not there any more."""


class Link:
    """The host's end of this process: lines of requests in, lines of replies out."""

    def __init__(self, requests_fd: int, replies: BinaryIO) -> None:
        self.fd, self.replies, self.held = requests_fd, replies, b""

    def next_line(self) -> bytes:
        while b"\n" not in self.held:
            if len(self.held) > MAX_REQUEST_BYTES:
                raise HostGone  # out of protocol; there is no request id to answer to
            self.read_more()
        line, _, self.held = self.held.partition(b"\n")
        return line

    def read_more(self) -> None:
        chunk = os.read(self.fd, 65536)
        if not chunk:
            raise HostGone
        self.held += chunk

    def take(self, size: int, silence_s: float) -> bytes:
        """Up to so many bytes that are no line; HostGone when nothing comes for so long."""
        if self.held:
            chunk, self.held = self.held[:size], self.held[size:]
            return chunk
        if not select.select([self.fd], [], [], silence_s)[0]:
            raise HostGone
        chunk = os.read(self.fd, min(size, RAW_BYTES))
        if not chunk:
            raise HostGone
        return chunk

    def reply(self, number: Any, answer: Json) -> None:
        text = json.dumps({"id": number, **answer}, separators=(",", ":")).encode() + b"\n"
        if len(text) > MAX_REPLY_BYTES:
            text = json.dumps({"id": number, "error": {"code": "agent", "message": "reply too large"}}).encode() + b"\n"
        self.replies.write(text)
        self.replies.flush()
