"""What breaks an app's release because of its model: an APK or app bundle in, findings out.

    read (one pass over the archive) → `App`, immutable → rules, pure → findings → pipeline.reporting.appcheck

The archive is hostile until proven otherwise: `archive.py` refuses by name what it cannot read within bounds, and every
parser here gives a value or `Malformed`, for any bytes.
"""

from pipeline.appcheck.app import App, Finding, Severity
from pipeline.appcheck.asked import Asked, released
from pipeline.appcheck.check import Checked, check
from pipeline.appcheck.read import read_app

__all__ = ["App", "Asked", "Checked", "Finding", "Severity", "check", "read_app", "released"]
