"""What the app is to be judged by: what the user asked for, and the releases its models should be of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import codec
from pipeline.errors import InputError
from pipeline.fit.records import RuntimeName
from pipeline.records import Report, VerdictKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One candidate of a release."""

    recipe: str
    file: str  # relative to the release's folder
    verdict: VerdictKind
    reason: str
    chosen: bool  # over all targets, or for one of them
    targets: tuple[str, ...]  # on which it was judged


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedModels:
    """What a run of the pipeline decided, by the SHA-256 of its models."""

    path: str
    name: str
    chosen: str | None
    candidates: Mapping[str, Candidate]
    signed_by: str = ""  # fingerprint, where a signature was asked for

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
    targets: tuple[str, ...] = ()  # device classes of deploy.yaml, on all of which a shipped candidate was measured


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
            )
            # Two recipes may give the same bytes: what is said of the better one holds for both.
            for candidate in sorted(report.candidates, key=lambda c: (c.verdict == "pass", c.recipe in chosen))
            if candidate.sha256
        },
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
            )
            for model in opened.classes.values()
        },
        signed_by=opened.signed_by.fingerprint if opened.signed_by else "",
    )
