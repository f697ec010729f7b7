"""push: every candidate and its golden vectors onto one device; measure: each of them there, in its own process."""

from collections.abc import Mapping
from typing import Any

from pipeline.config import MeasureConfig
from pipeline.errors import DeployError
from pipeline.flow import Results, Step
from pipeline.records import Artifact, Measured, Pushed, Quality, Refusal, Release
from pipeline.stages.context import Context, Progress
from targets.device import connect
from targets.records import BenchRequest, EnergyPlan, Failed, Measurement, TargetSpec


def push_step(
    context: Context, target: TargetSpec, packaged: Step, quantized: Mapping[str, Step], validated: Mapping[str, Step]
) -> Step:
    """The release's files on `target`; files that are there already are not sent."""

    def run(results: Results, report: Progress) -> Any:
        release = results[packaged]
        if isinstance(release, Refusal):
            return release
        paths = {
            digest: context.store.path(digest)
            for name in release.candidates
            for digest in _files(results[quantized[name]], results[validated[name]])
        }
        total = sum(path.stat().st_size for path in paths.values())
        sent = present = 0
        try:
            with connect(target, state=context.store.root) as device:
                facts = device.facts()
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
        return Pushed(target=target.name, release=release.id, facts=facts, sent_bytes=sent, present_bytes=present)

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
    """Latency, memory, energy and the golden answer of every candidate on `target`."""
    asked = context.loaded.config.measure
    plan = context.loaded.config.energy_plan()

    def run(results: Results, report: Progress) -> Any:
        release: Release = results[packaged]
        if isinstance(release, Refusal):
            return release
        if isinstance(results[pushed], Failed):
            return _all_failed(target, release, results[pushed])
        requests = {
            name: _request(results[quantized[name]], results[validated[name]], target, asked, plan)
            for name in release.candidates
        }
        return Measured(target=target.name, results=_measure(context, target, requests, report))

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


def _request(
    artifact: Artifact, quality: Quality, target: TargetSpec, asked: MeasureConfig, energy: EnergyPlan | None
) -> BenchRequest:
    return BenchRequest(
        blob=artifact.blob,
        format=artifact.format,
        inputs=quality.golden_inputs,
        expected=quality.golden_outputs,
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
                    roles = {"blob": request.blob, "inputs": request.inputs, "expected": request.expected}
                    files = {role: context.store.path(digest) for role, digest in roles.items()}
                    try:
                        found[name] = device.bench(request, target.step_timeout_s, files)
                    except DeployError as error:
                        found[name] = Failed(code=error.code, message=error.message, hint=error.hint)
                    report(len(found), len(requests))
        except DeployError as error:  # no connection: what was not measured cannot be
            failed = Failed(code=error.code, message=error.message, hint=error.hint)
            found |= {name: failed for name in requests if name not in found}
    return found


def _all_failed(target: TargetSpec, release: Release, failed: Failed) -> Measured:
    return Measured(target=target.name, results=dict.fromkeys(release.candidates, failed))


def _files(artifact: Artifact, quality: Quality) -> tuple[str, str, str]:
    return artifact.blob, quality.golden_inputs, quality.golden_outputs
