"""What `deploy check` found as SARIF 2.1.0, which code hosts show beside a change.

Standard: https://docs.oasis-open.org/sarif/sarif/v2.1.0/. A result's place is the app, with the file inside it
as a logical location: the archive's members are no files of the repository.
"""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.appcheck.app import Finding, Severity
from pipeline.appcheck.check import Checked
from pipeline.appcheck.rules import SAYS
from pipeline.plugins import versions

_LEVELS: Mapping[Severity, str] = {"blocking": "error", "unjudged": "warning", "warning": "note"}
_DISTRIBUTION = "edge-deploy-pipeline"


def check_sarif(checked: Checked, uri: str) -> str:
    """The log; `uri` is the app's, as the code host knows it."""
    rules = list(SAYS)
    driver = {
        "name": "deploy check",
        "version": versions(_DISTRIBUTION).get(_DISTRIBUTION, "0"),
        "rules": [{"id": rule, "shortDescription": {"text": says}} for rule, says in SAYS.items()],
    }
    run: dict[str, Any] = {
        "tool": {"driver": driver},
        "artifacts": [{"location": {"uri": uri}, "hashes": {"sha-256": checked.app.sha256}}],
        "results": [_result(finding, rules.index(finding.rule), uri) for finding in checked.findings],
    }
    log = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def _result(finding: Finding, index: int, uri: str) -> dict[str, Any]:
    where: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": uri, "index": 0}}}
    if finding.file:
        where["logicalLocations"] = [{"fullyQualifiedName": finding.file, "kind": "resource"}]
    text = f"{finding.file}: {finding.detail}" if finding.file else finding.detail
    return {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{text}. Remedy: {finding.remedy}"},
        "locations": [where],
        # The same finding in the next build is the same alert, although the app's bytes differ.
        "partialFingerprints": {"finding/v1": f"{finding.rule}:{finding.file}"},
    }
