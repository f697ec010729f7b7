"""A device as another tool's inventory describes it, before it becomes a target."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One host; `settings` are keys of an SSH target, `line` where it stands in its file."""

    name: str
    line: int
    settings: Mapping[str, str | int]
    groups: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
