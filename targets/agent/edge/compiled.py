"""The packed program once more, with the bytecode of this Python beside each source: what most connections run.

ROOT/agent/<sha256>.<Python's tag>.pyz   made on the device at the first start, never replaced

On a small board compiling costs more than all the rest of a start. The archive ends with its own SHA-256, as its
comment, so that a damaged one is found by `boot` as a damaged agent is; Python uses the sources when the bytecode in it
is another version's.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import marshal
import os
import sys
import zipfile
from importlib.util import MAGIC_NUMBER, source_hash
from pathlib import Path

from .files import PRIVATE

# PEP 552: a hash instead of a time stamp, and not to be compared on import, as the whole archive has been.
UNCHECKED = (1).to_bytes(4, "little")
DIGEST_CHARS = 64


def place(program: Path) -> Path:
    return program.with_name("%s.%s.pyz" % (program.stem, sys.implementation.cache_tag))


def with_bytecode(program: Path) -> bytes:
    """Stored, as the packed program is; each source is followed by its bytecode."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(program) as sources, zipfile.ZipFile(buffer, "w") as archive:
        for entry in sources.infolist():
            source = sources.read(entry)
            code = compile(source, entry.filename, "exec", dont_inherit=True)
            archive.writestr(entry, source)
            content = MAGIC_NUMBER + UNCHECKED + source_hash(source) + marshal.dumps(code)
            archive.writestr(zipfile.ZipInfo(entry.filename + "c", entry.date_time), content)
        archive.comment = b"0" * DIGEST_CHARS
    content = buffer.getvalue()[:-DIGEST_CHARS]
    return content + hashlib.sha256(content).hexdigest().encode()


def write_compiled(program: Path) -> None:
    """For the connections to come; without room or right to write they run from the sources."""
    live = place(program)
    # Named as an agent on its way is, which `boot` sweeps when it is old.
    new = program.with_name("%s.%d-%s.part" % (program.stem, os.getpid(), os.urandom(4).hex()))
    with contextlib.suppress(OSError):
        try:
            with os.fdopen(os.open(str(new), os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "wb") as file:
                file.write(with_bytecode(program))
                file.flush()
                os.fsync(file.fileno())
            os.link(str(new), str(live))  # not over one that is there, which other agents may be running from
        finally:
            new.unlink()
