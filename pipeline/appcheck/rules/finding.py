"""Short ways to write a finding."""

from collections.abc import Iterable

from pipeline.appcheck.app import Entry, Finding


def blocking(rule: str, where: Entry | None, detail: str, remedy: str) -> Finding:
    return Finding(rule=rule, severity="blocking", file=_name(where), detail=detail, remedy=remedy)


def warning(rule: str, where: Entry | None, detail: str, remedy: str) -> Finding:
    return Finding(rule=rule, severity="warning", file=_name(where), detail=detail, remedy=remedy)


def unjudged(rule: str, where: Entry | None, detail: str, remedy: str) -> Finding:
    return Finding(rule=rule, severity="unjudged", file=_name(where), detail=detail, remedy=remedy)


def listed(names: Iterable[str], most: int = 5) -> str:
    """The names, or the first of them and how many more."""
    whole = list(names)
    return ", ".join(whole[:most]) + (f" and {len(whole) - most} more" if len(whole) > most else "")


def models(count: int) -> str:
    return f"{count} model{'' if count == 1 else 's'}"


def _name(where: Entry | None) -> str:
    return where.name if where else ""
