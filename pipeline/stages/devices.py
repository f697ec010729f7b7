"""push: every candidate that fits a device and its golden vectors onto it; measure: each there, in its own process.

Whether a candidate fits is judged with the connection that is there for the push, from what the device is right now.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import MeasureConfig
from pipeline.errors import ConversionFailed, DeployError, InputError
from pipeline.fit.fitter import Fitter, probed
from pipeline.fit.judge import RUNTIMES, is_unprepared
from pipeline.fit.records import UNFIT, Fit, Reason
from pipeline.flow import Results, Step
from pipeline.records import Artifact, Measured, Pushed, Quality, Refusal, Release
from pipeline.stages.context import Context, Progress
from pipeline.stages.evidence import budgets, evidence_of
from pipeline.stages.rounds import contested
from targets.device import connect
from targets.errors import NoRuntime
from targets.records import BenchRequest, EnergyPlan, Facts, Failed, Measurement, TargetSpec


def push_step(
    context: Context, target: TargetSpec, packaged: Step, quantized: Mapping[str, Step], validated: Mapping[str, Step]
) -> Step:
    """The release's files on `target`, lowered where it takes that; files that are there already are not sent."""

    def run(results: Results, report: Progress) -> Any:
        release = results[packaged]
        if isinstance(release, Refusal):
            return release
        candidates = {name: (results[quantized[name]], results[validated[name]]) for name in release.candidates}
        sent = present = 0
        try:
            with connect(target, state=context.store.root) as device:
                facts = probed(device)
                fits = _fits(context, facts, candidates)
                paths = {
                    digest: context.store.path(digest)
                    for name, pair in candidates.items()
                    if name not in fits or fits[name].answer != "no"
                    for digest in _files(*fitting(*pair, fits.get(name)))
                }
                total = sum(path.stat().st_size for path in paths.values())
                for digest, path in paths.items():
                    size = path.stat().st_size
                    done = sent + present

                    def advance(sent_bytes: int, _: int, done: int = done) -> None:
                        report(done + sent_bytes, total)

                    if device.push(path, digest, advance):
                        sent += size
                    else:
                        present += size
                    report(sent + present, total)
        except DeployError as error:
            return Failed(code=error.code, message=error.message, hint=error.hint)
        return Pushed(
            target=target.name, release=release.id, facts=facts, sent_bytes=sent, present_bytes=present, fits=fits
        )

    return Step(
        stage="push",
        name=target.name,
        run=run,
        records=(Pushed, Failed),
        needs=(packaged, *quantized.values(), *validated.values()),
        reusable=False,
        tolerant=True,
    )


def measure_step(
    context: Context,
    target: TargetSpec,
    pushed: Step,
    packaged: Step,
    quantized: Mapping[str, Step],
    validated: Mapping[str, Step],
) -> Step:
    """Latency, memory, energy and the golden answer of every candidate on `target`.

    Each in one process; those whose verdict would turn on that are measured again, in rounds that take turns.
    """
    asked = context.loaded.config.measure
    plan, limits = context.loaded.config.energy_plan(), budgets(context)

    def run(results: Results, report: Progress) -> Any:
        release: Release = results[packaged]
        if isinstance(release, Refusal):
            return release
        there: Pushed | Failed = results[pushed]
        if isinstance(there, Failed):
            return _all_failed(target, release, there)
        candidates = {
            name: fitting(results[quantized[name]], results[validated[name]], there.fits.get(name))
            for name in release.candidates
        }
        requests = {
            name: _request(*candidates[name], target, asked, plan)
            for name in release.candidates
            if name not in there.fits or there.fits[name].answer != "no"
        }
        unfit = {name: _unfit(fit) for name, fit in there.fits.items() if fit.answer == "no"}
        first = Measured(target=target.name, results={**unfit, **_measure(context, target, requests, report)})

        def contested_now(found: Measured) -> set[str]:
            return contested(evidence_of(candidates, found, there), limits, context.loaded.config.choose)

        return _again(context, target, requests, first, contested_now)

    return Step(
        stage="measure",
        name=target.name,
        run=run,
        records=(Measured,),
        needs=(pushed, packaged, *quantized.values(), *validated.values()),
        settings={"measure": asked.model_dump(mode="json")},
        reusable=False,
        tolerant=True,
    )


def fitting(artifact: Artifact, quality: Quality, fit: Fit | None) -> tuple[Artifact, Quality]:
    """The candidate as a device got it: lowered, with the lowered file's golden answers, where it had to be."""
    if fit is None or fit.lowered is None:
        return artifact, quality
    lowered = fit.lowered
    return (
        replace(
            artifact,
            blob=lowered.blob,
            size_bytes=lowered.size_bytes,
            beside=lowered.beside,
            notes=(*artifact.notes, *lowered.steps),
        ),
        replace(quality, golden_outputs=lowered.golden_outputs or quality.golden_outputs),
    )


def _fits(context: Context, facts: Facts, candidates: Mapping[str, tuple[Artifact, Quality]]) -> dict[str, Fit]:
    fitter = Fitter(context.worker, context.store, context.scratch)
    found = {}
    for name, (artifact, quality) in candidates.items():
        if artifact.format == "pt" or artifact.format not in RUNTIMES:
            continue  # of another kind of runtime, which nobody asked what it can load
        model, golden = context.store.path(artifact.blob), context.store.path(quality.golden_inputs)
        try:
            found[name] = fitter.fit(model, facts, format=artifact.format, golden=golden)
        except (ConversionFailed, InputError) as error:  # it loaded when it was made: let the device say
            reason = Reason(code="not-read", weight="unsure", detail=f"its needs cannot be read: {error.message}")
            memory = artifact.size_bytes
            found[name] = Fit(target=facts.target, answer="unsure", runtime="", memory_bytes=memory, reasons=(reason,))
    return found


def _unfit(fit: Fit) -> Failed:
    """A verdict on the candidate; or, where only the device lacks something, no measurement."""
    if is_unprepared(fit):
        blocking = "; ".join(reason.detail for reason in fit.reasons if reason.weight == "no")
        return Failed(code=NoRuntime.code, message=f"{fit.target}: {blocking}", hint=fit.remedy)
    return Failed(code=UNFIT, message=fit.text, hint=fit.remedy)


def _request(
    artifact: Artifact, quality: Quality, target: TargetSpec, asked: MeasureConfig, energy: EnergyPlan | None
) -> BenchRequest:
    return BenchRequest(
        blob=artifact.blob,
        format=artifact.format,
        inputs=quality.golden_inputs,
        expected=quality.golden_outputs,
        beside=tuple(artifact.beside),
        threads=target.threads,
        warm_max_s=asked.warm,
        warm_min_samples=asked.min_samples,
        warm_max_samples=asked.max_samples,
        energy=energy,
    )


def _measure(
    context: Context, target: TargetSpec, requests: Mapping[str, BenchRequest], report: Progress
) -> dict[str, Measurement | Failed]:
    """Each candidate in turn. One that takes the session down with it costs the others a new connection, no more."""
    found: dict[str, Measurement | Failed] = {}
    while left := [name for name in requests if name not in found]:
        try:
            with connect(target, state=context.store.root) as device:
                for name in left:
                    if device.over:
                        break
                    request = requests[name]
                    try:
                        found[name] = device.bench(request, target.step_timeout_s, _roles(context, request))
                    except DeployError as error:
                        found[name] = Failed(code=error.code, message=error.message, hint=error.hint)
                    report(len(found), len(requests))
        except DeployError as error:  # no connection: what was not measured cannot be
            failed = Failed(code=error.code, message=error.message, hint=error.hint)
            found |= {name: failed for name in requests if name not in found}
    return found


def _again(
    context: Context,
    target: TargetSpec,
    requests: Mapping[str, BenchRequest],
    found: Measured,
    contested_now: Callable[[Measured], set[str]],
) -> Measured:
    """With more rounds, as long as there is something that they would tell; what breaks one ends them."""
    asked = contested_now(found)
    if not asked:
        return found
    draw = random.Random(0)
    try:
        with connect(target, state=context.store.root) as device:
            while asked:
                round = {}
                for name in draw.sample(sorted(asked), len(asked)):
                    request = replace(requests[name], energy=None)
                    round[name] = device.bench(request, target.step_timeout_s, _roles(context, request))
                found = replace(found, rounds=(*found.rounds, round))
                asked = contested_now(found)
    except DeployError:
        return found  # the gate says what it cannot decide
    return found


def _roles(context: Context, request: BenchRequest) -> dict[str, Path]:
    return {role: context.store.path(digest) for role, digest in request.files.items()}


def _all_failed(target: TargetSpec, release: Release, failed: Failed) -> Measured:
    return Measured(target=target.name, results=dict.fromkeys(release.candidates, failed))


def _files(artifact: Artifact, quality: Quality) -> tuple[str, ...]:
    return artifact.blob, *artifact.beside, quality.golden_inputs, quality.golden_outputs
