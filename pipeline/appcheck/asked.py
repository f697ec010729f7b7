"""What the app is to be judged by: what the user asked for, and the releases its models should be of."""

from collections.abc import Mapping
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


def released(folder: Path) -> ReleasedModels:
    """The release in the output folder of a run.

    Raises:
        InputError: there is none.
    """
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
