"""What the app is to be judged by: what the user asked for, and the releases its models should be of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import codec
from pipeline.errors import InputError
from pipeline.fit.records import RuntimeName
from pipeline.quantities import parse_quantity
from pipeline.records import Report, TargetResult, VerdictKind
from targets.records import Absent

if TYPE_CHECKING:
    from pipeline.release.bundle import Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDevice:
    """What one device showed of a candidate; None is not measured, for `reason`."""

    device_class: str = ""  # empty: not told
    latency_p90_ms: float | None = None
    answer_steps: float | None = None
    emulated: str = ""  # why its latency says nothing
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One candidate of a release."""

    recipe: str
    file: str  # relative to the release's folder
    verdict: VerdictKind
    reason: str
    chosen: bool  # over all targets, or for one of them
    targets: tuple[str, ...]  # on which it was judged
    devices: Mapping[str, OnDevice] = field(default_factory=dict)
    max_steps: float = 3.0  # how far a device's answer may be from the host's: as the gate has it
    latency_p90_ms: float | None = None  # the release's own budget


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedModels:
    """What a run of the pipeline decided, by the SHA-256 of its models."""

    path: str
    name: str
    chosen: str | None
    candidates: Mapping[str, Candidate]
    signed_by: str = ""  # fingerprint, where a signature was asked for
    opened: "Bundle | None" = field(default=None, repr=False)  # it, or the one that a run wrote: has golden samples

    def choice(self) -> Candidate | None:
        """The candidate chosen over all targets, else one that was chosen for some."""
        chosen = [candidate for candidate in self.candidates.values() if candidate.chosen]
        return next((c for c in chosen if c.recipe == self.chosen), chosen[0] if chosen else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to judge an app by."""

    releases: tuple[ReleasedModels, ...] = ()
    budget_bytes: float | None = None  # all models of the app together
    model_budget_bytes: float | None = None  # each of them: deploy.yaml's budgets.size
    runtimes: Mapping[RuntimeName, str] = field(default_factory=dict)  # versions as the user says
    targets: tuple[str, ...] = ()  # of deploy.yaml, on all of which a shipped candidate was measured
    required: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # device class -> its targets, if known
    latency_p90_ms: float | None = None  # on every device that was measured; None: the release's own budget


def released(folder: Path, keys: Sequence[Path] = ()) -> ReleasedModels:
    """The release in the output folder of a run, or in a bundle, which one of `keys` must have signed, if given.

    Raises:
        InputError: there is none.
        BundleRefused: the bundle is not whole, or not signed by any of the keys.
    """
    if folder.is_file():
        return _of_bundle(folder, keys)
    if keys:
        raise InputError(f"{folder}: is a folder, only bundles are signed", hint=f"{folder}/NAME-SEQ.release")
    path = folder / "report.json"
    try:
        report = codec.decode(Report, path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: there is no report of a run ({error.strerror})",
            hint="give the folder that `deploy run` wrote: --release deploy-out",
        ) from None
    except codec.DamagedRecord as error:
        raise InputError(f"{path}: {error.message}", hint="run `deploy run` again; it writes the report anew") from None
    chosen = {report.chosen, *report.chosen_by_target.values()} - {None}
    opened = _bundle_beside(folder, report)
    classes = _classes(opened)
    return ReleasedModels(
        path=str(folder),
        name=report.name,
        chosen=report.chosen,
        candidates={
            candidate.sha256: Candidate(
                recipe=candidate.recipe,
                file=candidate.path,
                verdict=candidate.verdict,
                reason=candidate.reason,
                chosen=candidate.recipe in chosen,
                targets=tuple(candidate.targets),
                devices={
                    target: _of_report(result, classes.get(target, "")) for target, result in candidate.targets.items()
                },
                latency_p90_ms=_budget(report),
            )
            # Two recipes may give the same bytes: what is said of the better one holds for both.
            for candidate in sorted(report.candidates, key=lambda c: (c.verdict == "pass", c.recipe in chosen))
            if candidate.sha256
        },
        opened=opened,
    )


def _bundle_beside(folder: Path, report: Report) -> "Bundle | None":
    path = folder / report.bundle
    if not report.bundle or not path.is_file():
        return None
    from pipeline.release.bundle import open_bundle

    return open_bundle(path, None)


def _classes(opened: "Bundle | None") -> Mapping[str, str]:
    """Target -> class, of those that the release was measured on."""
    observed = opened.record.observed.devices if opened else {}
    return {target: name for name, devices in observed.items() for target in devices}


def _budget(report: Report) -> float | None:
    written = report.budgets.get("latency_p90")
    return parse_quantity(written, "ms") if written else None


def _of_report(result: TargetResult, device_class: str) -> OnDevice:
    answer = result.answer
    steps = None if isinstance(answer, Absent) else answer.max_steps if answer.finite else math.inf
    return OnDevice(
        device_class=device_class,
        latency_p90_ms=None if isinstance(result.warm_ms, Absent) else result.warm_ms.p90,
        answer_steps=steps,
        emulated=result.conditions.get("emulated", ""),
        reason=result.reason,
    )


def _of_bundle(path: Path, keys: Sequence[Path]) -> ReleasedModels:
    from pipeline.release.bundle import open_bundle  # with its keys, which take longer than all else here
    from pipeline.release.keys import load_public_key

    opened = open_bundle(path, [load_public_key(key) for key in keys] if keys else None)
    return ReleasedModels(
        path=str(path),
        name=opened.name,
        chosen=next(iter(opened.classes.values())).recipe,
        candidates={
            model.blob: Candidate(
                recipe=model.recipe,
                file=f"blobs/sha256/{model.blob}",  # any tar takes it out
                verdict="pass",  # nothing else gets into a release
                reason="within every budget",
                chosen=True,
                targets=model.targets,
                devices={
                    target: OnDevice(
                        device_class=name,
                        latency_p90_ms=measured.warm_ms.p90,
                        answer_steps=measured.answer_steps,
                        emulated=measured.emulated,
                    )
                    for target, measured in opened.record.observed.devices.get(name, {}).items()
                },
                max_steps=model.max_steps,
                latency_p90_ms=model.budgets.latency_p90_ms,
            )
            for name, model in opened.classes.items()
        },
        opened=opened,
        signed_by=opened.signed_by.fingerprint if opened.signed_by else "",
    )
