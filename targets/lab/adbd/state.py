"""What the daemon is to be like now, as a JSON file that is replaced from outside while it runs."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from targets.lab.adbd.auth import key_of, public_key

Access = Literal["open", "keys", "offline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdbdState:
    """The daemon's condition; a new one holds at once, for connections under way as well."""

    access: Access = "open"  # to everybody; to holders of a key; or connections are accepted and never answered
    authorized_keys: tuple[str, ...] = ()  # lines of adbkey.pub
    user_allows: bool = False  # the user says yes when asked about another key, and has said so to those asked already
    cut_after_bytes: int = 0  # reset every connection once so many more have passed; once for every new file; 0: never

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError saying what is wrong."""
        values: Any = json.loads(text)
        if not isinstance(values, dict) or not values.keys() <= set(cls.__slots__):
            raise ValueError(f"not an object with some of {', '.join(cls.__slots__)}")
        keys = values.get("authorized_keys", [])
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("authorized_keys is a list of lines")
        state = cls(**{**values, "authorized_keys": tuple(keys)})
        if state.access not in get_args(Access):
            raise ValueError(f"access is one of {', '.join(get_args(Access))}")
        if type(state.user_allows) is not bool or type(state.cut_after_bytes) is not int or state.cut_after_bytes < 0:
            raise ValueError("user_allows is true or false, cut_after_bytes a whole number")
        for line in state.authorized_keys:
            public_key(line)
        return state

    def save(self, path: Path) -> None:
        """Replace the file in one step. Tell a running daemon by SIGHUP; else it notices at the next packet."""
        new = path.with_name(f"{path.name}.new")
        new.write_text(json.dumps(asdict(self)), encoding="utf-8")
        new.replace(path)

    def permits(self, key: str | None) -> bool:
        """Whether the holder of the key, or somebody who showed none, may be connected."""
        if self.access == "keys":
            return key is not None and (self.user_allows or key in map(key_of, self.authorized_keys))
        return self.access == "open"


class StateFile:
    """The file, read again whenever it has been replaced; while there is none, nothing is out of the ordinary."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.current = AdbdState()
        self._seen: tuple[int, ...] = ()

    def refresh(self) -> bool:
        """Whether there is a new file; costs one `stat`. Raises ValueError, once, for a file that is none."""
        if self.path is None:
            return False
        seen: tuple[int, ...] = ()
        with suppress(FileNotFoundError):
            found = os.stat(self.path)  # noqa: PTH116 - on every packet, and Path would take twice as long
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen == self._seen:
            return False
        self._seen = seen
        self.current = AdbdState.parse(self.path.read_text(encoding="utf-8")) if seen else AdbdState()
        return True
