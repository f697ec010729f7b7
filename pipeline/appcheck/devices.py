"""What devices showed of the models in the app when their release was made, against what is asked of them now. Pure."""

from collections.abc import Iterator, Mapping

from pipeline.appcheck.app import App, Model
from pipeline.appcheck.asked import Asked, Candidate, OnDevice
from pipeline.appcheck.modelcheck import ModelCheck, ModelCheckStatus
from pipeline.appcheck.rules.finding import listed
from pipeline.quantities import milliseconds


def device_checks(app: App, asked: Asked) -> Iterator[ModelCheck]:
    """For each model of a release: every device's answer and latency, and required classes that have no device."""
    for model in app.models:
        candidate = next((r.candidates[model.sha256] for r in asked.releases if model.sha256 in r.candidates), None)
        if candidate is None:
            continue
        for name, device in sorted(candidate.devices.items()):
            yield _answer(model, name, device, candidate)
            if (check := _latency(model, name, device, candidate, asked)) is not None:
                yield check
        yield from _missing(model, candidate, asked.required)


def _answer(model: Model, name: str, device: OnDevice, candidate: Candidate) -> ModelCheck:
    steps, most = device.answer_steps, candidate.max_steps
    shown = "not measured" if steps is None else f"{steps:.3g} steps"
    status: ModelCheckStatus = "unjudged" if steps is None else "pass" if steps <= most else "fail"
    why = device.reason if steps is None else f"its answer on {name} is {shown} from the host's (tolerated: {most:g})"
    return ModelCheck(
        rule="golden-outputs",
        what="golden outputs",
        file=model.entry.name,
        where=_where(name, device),
        found=shown,
        limit=f"{most:g} steps",
        status=status,
        detail="" if status == "pass" else why,
        remedy=f"deploy run --target {name}; `deploy measure RECIPE --where-different` names the layer",
    )


def _latency(model: Model, name: str, device: OnDevice, candidate: Candidate, asked: Asked) -> ModelCheck | None:
    limit = asked.latency_p90_ms if asked.latency_p90_ms is not None else candidate.latency_p90_ms
    p90 = device.latency_p90_ms
    if limit is None and p90 is None:
        return None
    status: ModelCheckStatus = "pass"
    why = ""
    if p90 is None:
        status, why = "unjudged", f"was not measured on {name}: {device.reason}"
    elif limit is not None and device.emulated:
        status, why = "unjudged", f"{name} is emulated, so its latency says nothing of a device: {device.emulated}"
    elif limit is not None and p90 > limit:
        status = "fail"
        why = f"p90 latency {milliseconds(p90)} on {name} is over the budget of {milliseconds(limit)}"
    return ModelCheck(
        rule="device-latency",
        what="latency p90",
        file=model.entry.name,
        where=_where(name, device),
        found="" if p90 is None else milliseconds(p90),
        limit="" if limit is None else milliseconds(limit),
        status=status,
        detail=why,
        remedy="ship a smaller or faster candidate, or raise the budget" if status == "fail" else "measure it there",
    )


def _missing(model: Model, candidate: Candidate, required: Mapping[str, tuple[str, ...]]) -> Iterator[ModelCheck]:
    measured = {name for name, device in candidate.devices.items() if device.latency_p90_ms is not None}
    classes = {candidate.devices[name].device_class for name in measured}
    for wanted, targets in sorted(required.items()):
        if wanted in classes or wanted in measured or measured.intersection(targets):
            continue
        said = listed(targets) or f"a target with `class: {wanted}`"
        yield ModelCheck(
            rule="class-not-measured",
            what="latency p90",
            file=model.entry.name,
            where=f"class {wanted}",
            found="not measured",
            limit="",
            status="unjudged",
            detail=f"{candidate.recipe} was measured on no device of class {wanted}",
            remedy=f"deploy run with {said}",
        )


def _where(name: str, device: OnDevice) -> str:
    return f"{name} ({device.device_class})" if device.device_class not in ("", "default", name) else name
