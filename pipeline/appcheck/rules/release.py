"""Are the models in the app those that a run of the pipeline decided to ship?"""

from collections.abc import Iterator

from pipeline.appcheck.app import App, Finding, Model
from pipeline.appcheck.asked import Asked, Candidate, ReleasedModels
from pipeline.appcheck.rules.finding import blocking, listed, models, unjudged, warning


def released_bytes(app: App, asked: Asked) -> Iterator[Finding]:
    """Each release is in the app, by its bytes; each model of the app is known, has passed, and was chosen."""
    if app.models and not asked.releases:
        detail = f"{models(len(app.models))}, compared with no release: nobody says that they were measured and passed"
        yield warning("release-not-given", None, detail, "say which run they are of: --release deploy-out")
        return
    for release in asked.releases:
        yield from _missing(app, release)
    for model in app.models:
        known = [(r, r.candidates[model.sha256]) for r in asked.releases if model.sha256 in r.candidates]
        if known:
            yield from _candidate(model, *known[0])
            yield from _targets(model, *known[0], asked.targets)
        elif asked.releases:
            detail = f"SHA-256 {model.sha256[:16]}… is no model of {listed(r.path for r in asked.releases)}"
            remedy = "if it is yours, run the pipeline on it and give that run too: --release FOLDER"
            yield warning("release-model-unknown", model.entry, detail, remedy)


def _missing(app: App, release: ReleasedModels) -> Iterator[Finding]:
    choice = release.choice()
    if choice is None:
        remedy = f"see {release.path}/report.md for why, then `deploy run` again"
        yield blocking("release-no-choice", None, f"{release.path} chose no candidate: nothing may ship", remedy)
    elif not any(model.sha256 in release.candidates for model in app.models):
        detail = f"no model in it has the bytes of {release.name!r} ({choice.recipe}) in {release.path}"
        remedy = f"copy {release.path}/{choice.file} into app/src/main/assets/ and build again"
        yield blocking("release-missing", None, detail, remedy)


def _targets(
    model: Model, release: ReleasedModels, candidate: Candidate, targets: tuple[str, ...]
) -> Iterator[Finding]:
    missing = [target for target in targets if target not in candidate.targets]
    if missing:
        detail = f"{candidate.recipe} of {release.path} was not measured on {listed(missing)}"
        yield unjudged("target-not-measured", model.entry, detail, f"deploy run --target {missing[0]}")


def _candidate(model: Model, release: ReleasedModels, candidate: Candidate) -> Iterator[Finding]:
    choice = release.choice()
    other = f"copy {release.path}/{choice.file} over it and build again" if choice else f"see {release.path}/report.md"
    detail = f"is {candidate.recipe} of {release.path}, "
    if candidate.verdict == "inconclusive":
        yield unjudged(
            "release-not-passed", model.entry, f"{detail}inconclusive: {candidate.reason}", "measure it again"
        )
    elif candidate.verdict != "pass":
        yield blocking("release-not-passed", model.entry, f"{detail}{candidate.verdict}: {candidate.reason}", other)
    elif choice and not candidate.chosen:
        yield warning("release-not-chosen", model.entry, f"{detail}which passed, but {choice.recipe} was chosen", other)
