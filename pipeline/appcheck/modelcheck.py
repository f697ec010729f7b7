"""What was asked of a model itself, on this host or on a device, and what came of it: one row each."""

from dataclasses import dataclass
from typing import Literal

from pipeline.appcheck.app import Finding, Severity

ModelCheckStatus = Literal["pass", "fail", "unjudged"]
_SEVERITY: dict[ModelCheckStatus, Severity] = {"fail": "blocking", "unjudged": "unjudged"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCheck:
    """One row. `rule` is that of the finding which it becomes unless it passed."""

    rule: str
    what: str  # golden outputs, quality gate, latency p90
    file: str  # the model's path inside the app
    where: str  # a device and its class, or this host
    found: str  # in words; empty when nothing was
    limit: str
    status: ModelCheckStatus
    detail: str = ""  # why it did not pass
    remedy: str = ""

    def finding(self) -> Finding | None:
        """None when it passed."""
        if self.status == "pass":
            return None
        severity = _SEVERITY[self.status]
        return Finding(rule=self.rule, severity=severity, file=self.file, detail=self.detail, remedy=self.remedy)
