"""The agent's modules as one file that Python runs, the same bytes for the same sources."""

import functools
import io
import zipfile
from pathlib import Path

FOLDER = Path(__file__).parent / "edge"
_MAIN = b"import sys\nfrom edge.main import main\nmain(sys.argv)\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name


@functools.cache
def packed() -> bytes:
    """A zip archive with a `__main__`; stored, so that neither its bytes nor the device depend on a zlib."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py", _EPOCH), _MAIN)
        for path in sorted(FOLDER.glob("*.py")):
            archive.writestr(zipfile.ZipInfo(f"edge/{path.name}", _EPOCH), path.read_bytes())
    return buffer.getvalue()
