"""Evidence in, findings and a verdict out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pipeline.appcheck.app import App, Finding, Severity
from pipeline.appcheck.asked import Asked
from pipeline.appcheck.devices import device_checks
from pipeline.appcheck.modelcheck import ModelCheck
from pipeline.appcheck.rules import RULES
from pipeline.appcheck.rules.finding import listed

CheckStatus = Literal["pass", "fail", "inconclusive"]
_ORDER: tuple[Severity, ...] = ("blocking", "unjudged", "warning")
# MediaPipe's bundles, LiteRT-LM, ExecuTorch, PyTorch Mobile, llama.cpp, ncnn, MNN.
_NOT_READ = (".task", ".litertlm", ".pte", ".ptl", ".gguf", ".param.bin", ".mnn")
EXIT_CODES: dict[CheckStatus, int] = {"pass": 0, "fail": 1, "inconclusive": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """An app, what was found, and what follows from it. `notes` say what no rule looked at."""

    app: App
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    checks: tuple[ModelCheck, ...] = ()  # of the models themselves, those that passed too

    @property
    def status(self) -> CheckStatus:
        """fail: something blocks. inconclusive: nothing does, but something could not be judged."""
        found = {finding.severity for finding in self.findings}
        return "fail" if "blocking" in found else "inconclusive" if "unjudged" in found else "pass"


def check(app: App, asked: Asked, more: Iterable[Finding] = (), ran: Iterable[ModelCheck] = ()) -> Checked:
    """Apply every rule; `more` and `ran` are made elsewhere, by running the models."""
    checks = (*ran, *device_checks(app, asked))
    fallen = [finding for one in checks if (finding := one.finding()) is not None]
    found = [*(finding for rule in RULES for finding in rule(app, asked)), *more, *fallen]
    ordered = sorted(found, key=lambda finding: (_ORDER.index(finding.severity), finding.rule, finding.file))
    return Checked(app=app, findings=tuple(ordered), notes=tuple(_notes(app, asked)), checks=checks)


def _notes(app: App, asked: Asked) -> Iterable[str]:
    if not app.models:
        yield "there is no .tflite, .onnx or .ort file in the app: rules about models had nothing to look at"
    others = [entry.name for entry in app.entries if entry.path.lower().endswith(_NOT_READ)]
    if others:
        yield f"models of formats that are not read, of which nothing was judged: {listed(others)}"
    if asked.releases:
        unsigned = [release.path for release in asked.releases if not release.signed_by]
        if unsigned:
            yield f"compared by SHA-256 with {listed(unsigned)}, of which no signature was asked: --release-key FILE"
