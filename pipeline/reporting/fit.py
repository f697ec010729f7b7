"""`deploy fit` as text and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.text import Text

from pipeline import codec
from pipeline.fit.records import Answer, Fit, Lowered, Reason, Weight
from pipeline.quantities import number, size
from pipeline.reporting.printable import printable
from targets.records import Facts, Failed

_STATUS: Mapping[Answer, tuple[str, str, str]] = {
    "fits": ("✓", "fits", "bold green"),
    "lowering": ("✓", "fits after lowering", "bold yellow"),
    "unsure": ("?", "nobody knows", "bold yellow"),
    "no": ("✗", "does not fit", "bold red"),
}
_SIGNS: Mapping[Weight, tuple[str, str]] = {
    "no": ("✗", "red"),
    "lowerable": ("✗", "red"),
    "unsure": ("?", "yellow"),
    "note": ("!", "yellow"),
}


_LEAST_PERCENT = 0.001  # below that it is the order in which floats are added


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One device: its facts and the answer, or why it could not be asked."""

    target: str
    facts: Facts | Failed
    fit: Fit | None


class FitView:
    """A rich renderable: `console.print(FitView(name, judged))`."""

    def __init__(self, name: str, judged: Sequence[Judged]) -> None:
        self._name, self._judged = name, judged

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        needed = next((found.fit.memory_bytes for found in self._judged if found.fit), 0)
        more = f"  {size(needed)} of weights and activations" if needed else ""
        yield Text.assemble((printable(self._name), "bold"), more)
        for found in self._judged:
            if isinstance(found.facts, Failed) or found.fit is None:
                yield from _unreached(found)
                continue
            mark, says, style = _STATUS[found.fit.answer]
            yield Text.assemble((f"{mark} {printable(found.target)}", style), "  ", (says, style))
            yield _indented(Text(printable(_device(found.facts, found.fit)), style="dim"))
            for reason in found.fit.reasons:
                yield from _reason(reason, found.fit.answer)
            if lowered := found.fit.lowered:
                for step in lowered.steps:
                    yield _indented(Text(f"+ {printable(step)}"))
                yield _indented(Text(f"{size(lowered.size_bytes)}; {_away(lowered)}"), more=2)


def _unreached(found: Judged) -> RenderResult:
    assert isinstance(found.facts, Failed)
    yield Text.assemble((f"? {printable(found.target)}", "bold yellow"), "  ", ("not reached", "bold yellow"))
    yield _indented(Text(printable(found.facts.message)))
    if found.facts.hint:
        yield _indented(Text.assemble(("→ ", "cyan"), printable(found.facts.hint)))


def _reason(reason: Reason, answer: Answer) -> RenderResult:
    mended = answer == "lowering" and reason.weight == "lowerable"
    sign, style = _SIGNS["note" if mended else reason.weight]
    yield _indented(Text.assemble((f"{sign} ", style), printable(reason.detail)))
    if reason.remedy and not mended:
        yield _indented(Text.assemble(("→ ", "cyan"), printable(reason.remedy)), more=2)


def _indented(text: Text, more: int = 0) -> Padding:
    """Also in the lines that a narrow terminal breaks it into."""
    return Padding(text, (0, 0, 0, 4 + more))


def _away(lowered: Lowered) -> str:
    """How far the lowered file's answers are from the original's."""
    share = 100 * lowered.max_error
    if share == 0:
        away = "the same"
    else:
        away = f"{number(share, 2)} % apart" if share >= _LEAST_PERCENT else "the same to float rounding"
    return f"answers to {lowered.samples} samples on this host are {away}"


def _device(facts: Facts, fit: Fit) -> str:
    """What of the device the answer came from."""
    parts = [fit.runtime or "no runtime", facts.cpu_model, facts.arch, facts.libc]
    if facts.python:
        parts.append(f"Python {facts.python}" + (f", NumPy {facts.numpy}" if facts.numpy else ""))
    if facts.page_bytes > 4096:
        parts.append(f"pages of {facts.page_bytes // 1024} KiB")
    return ", ".join(parts)


def fit_json(model: str, judged: Sequence[Judged]) -> str:
    """Canonical JSON: an entry per target, with the facts that the answer came from."""
    targets: dict[str, Any] = {}
    for found in judged:
        entry: dict[str, Any] = {"facts": codec.plain(found.facts)}
        if found.fit:
            entry |= {"text": found.fit.text, "remedy": found.fit.remedy, **codec.plain(found.fit)}
        targets[found.target] = entry
    return codec.canonical({"version": 1, "model": model, "targets": targets}).decode()
