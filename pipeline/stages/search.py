"""sensitivity: what every block of ops loses; search: the mix of precisions that meets the target at the least cost."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.flow import Results, Step
from pipeline.plugins import versions
from pipeline.recipes.recipe import recipe
from pipeline.records import BlockError, Exported, Format, Precision, Prepared, Ranges, Repair, Searched, Sensitivity
from pipeline.samples import DataSpec
from pipeline.search.evaluation import Judge, Prober, Target
from pipeline.search.messages import Baseline, Workbench
from pipeline.search.ops import Op, blocks
from pipeline.search.outcome import findings
from pipeline.search.sensitivity import Probe, explained, ranked
from pipeline.search.strategy import choose, finalists, pareto, search
from pipeline.stages.context import Context, Progress, refusing
from pipeline.stages.validate import quality_settings
from targets.records import TargetSpec

_PROBED = 4  # calibration samples; more move the ranking of blocks by less than their errors differ
_EXPLAINED = 8  # blocks whose cause and fix are looked for: rarely more than three make most of the loss
_LEAST_SHARE = 0.01  # of the loss, for that
# What a block may have instead of int8, the cheapest at run time first. Half-precision weights run as fast as float32
# ones and take half the room; onnxruntime's CPU kernels know no half
# precision, and compute on 16-bit integers in float.
OFFERS: Mapping[Format, tuple[Precision, ...]] = {
    "tflite": ("float16", "float32", "int16x8"),
    "onnx": ("float32", "int16x8"),
}
REPAIRS: Mapping[Format, tuple[tuple[Repair, ...], ...]] = {
    "tflite": (("bias",), ("octav",), ("octav", "bias")),
    "onnx": (("bias",),),
}
_AUTO: Mapping[Format, str] = {"tflite": "litert-auto", "onnx": "onnx-auto"}


def sensitivity_step(
    context: Context, format: Format, prepared: Step, exported: Step, calibrated: Step, calibrate: DataSpec
) -> Step:
    """The blocks of the float model in `format`, ranked by what they lose in int8."""
    tools = versions(*recipe(_AUTO[format]).tools, "ai-edge-litert" if format == "tflite" else "onnxruntime")

    def run(results: Results, report: Progress) -> Any:
        def work() -> Sensitivity:
            with context.scratch() as folder:
                bench = bench_of(
                    context, format, results[prepared], results[exported], results[calibrated], folder, calibrate
                )
                return _rank(context, bench, report, tools)

        return refusing(context, "sensitivity", work)

    return Step(
        stage="sensitivity",
        name=format,
        run=run,
        records=(Sensitivity,),
        needs=(prepared, exported, calibrated),
        tools=tools,
    )


def _rank(context: Context, bench: Workbench, report: Progress, tools: Mapping[str, str]) -> Sensitivity:
    ops: tuple[Op, ...] = context.worker.call("pipeline.search.jobs:list_ops", bench=bench)
    grouped = blocks(ops)
    total = len(grouped) + 1 + min(len(grouped), _EXPLAINED)
    prober = Prober(context.worker, bench, ops, grouped)
    samples = prober.open(_PROBED)
    probes = {}
    for number, block in enumerate(grouped):
        probes[block.name] = prober.probe([block], "int8")
        report(number + 1, total)
    usable = [block for block in grouped if not probes[block.name].refused]
    together = prober.probe(usable, "int8").output_sqnr_db if usable else 0.0
    by_name = {block.name: block for block in grouped}
    offered = [precision for precision in OFFERS[bench.format] if precision != "int16x8"]

    def explain(place: int, error: BlockError) -> BlockError:
        if place >= _EXPLAINED or error.refused or error.loss_share < _LEAST_SHARE:
            return error
        one = [by_name[error.block]]
        fixes: dict[Precision, Probe] = {precision: prober.probe(one, precision) for precision in offered}
        report(len(grouped) + 1 + place, total)
        return explained(error, prober.probe(one, "int16x8"), fixes)

    ranking = ranked(grouped, probes, sum(op.macs for op in ops))
    in_blocks = {op for block in grouped for op in block.ops}
    return Sensitivity(
        format=bench.format,
        blocks=tuple(explain(place, error) for place, error in enumerate(ranking)),
        float_ops=tuple(op.name for op in ops if op.name not in in_blocks),
        int8_sqnr_db=together,
        samples=samples,
        tools=tools,
    )


def search_step(
    context: Context,
    name: str,
    prepared: Step,
    exported: Step,
    calibrated: Step,
    sensitive: Step,
    calibrate: DataSpec,
    test: DataSpec,
    target: TargetSpec | None,
) -> Step:
    """The mix of recipe `name`, chosen by its loss on test samples and, with a target, by its latency there."""
    format = recipe(name).format
    config = context.loaded.config
    by_size = config.choose == "size"
    measured_on = None if by_size else target
    tools = versions(*recipe(name).tools, "ai-edge-litert" if format == "tflite" else "onnxruntime", "numpy")

    def run(results: Results, report: Progress) -> Any:
        source: Prepared = results[prepared]
        ranking: Sensitivity = results[sensitive]

        def work() -> Searched:
            with context.scratch() as folder:
                bench = bench_of(context, format, source, results[exported], results[calibrated], folder, calibrate)
                baseline = keep_samples(context, bench, source, test)
                judge = judge_of(
                    context,
                    bench,
                    baseline,
                    allowed=config.budgets.max_drop,
                    least_db=config.budgets.min_fidelity_db,
                    target=measured_on,
                )
                done = 0

                def ask(mix: Any) -> Any:
                    nonlocal done
                    trial = judge.judge(mix)
                    done += 1
                    report(done, config.search.evaluations)
                    return trial

                found = search(
                    ask,
                    ranking.blocks,
                    OFFERS[format],
                    REPAIRS[format],
                    most=config.search.evaluations,
                    by_size=by_size,
                )
                trials = judge.again(found.trials, finalists(found.trials))
                chosen = found.mixes[choose(trials, by_size)]
                return Searched(
                    recipe=name,
                    precisions=judge.precisions(chosen),
                    repairs=chosen.repairs,
                    chosen=chosen.name,
                    trials=trials,
                    pareto=pareto(trials, by_size),
                    cost=f"latency on {measured_on.name}" if measured_on else "size",
                    findings=(*findings(trials, chosen.name, baseline, format), *judge.findings),
                    tools=tools,
                )

        return refusing(context, "search", work)

    return Step(
        stage="search",
        name=name,
        run=run,
        records=(Searched,),
        needs=(prepared, exported, calibrated, sensitive),
        settings={
            **quality_settings(context, test),
            "max_drop": dict(config.budgets.max_drop),
            "min_fidelity_db": config.budgets.min_fidelity_db,
            "by_size": by_size,
            "search": config.search.model_dump(mode="json"),
            "target": asdict(measured_on) if measured_on else None,
            "measure": config.measure.model_dump(mode="json"),
        },
        tools=tools,
    )


def keep_samples(context: Context, bench: Workbench, source: Prepared, test: DataSpec) -> Baseline:
    """The test samples that mixes are judged by, and what the float source scores on them."""
    config = context.loaded.config
    found: Baseline = context.worker.call(
        "pipeline.search.jobs:keep_samples",
        bench=bench,
        test=test,
        reference=context.store.path(source.reference),
        metrics=config.quality.metrics,
        most=config.search.samples,
    )
    return found


def judge_of(
    context: Context,
    bench: Workbench,
    baseline: Baseline,
    *,
    allowed: Mapping[str, float],
    least_db: float | None = None,
    target: TargetSpec | None = None,
) -> Judge:
    """Who makes mixes of this float model and says what they lose."""
    config = context.loaded.config
    ops: tuple[Op, ...] = context.worker.call("pipeline.search.jobs:list_ops", bench=bench)
    return Judge(
        context.worker,
        bench,
        ops,
        blocks(ops),
        metrics=config.quality.metrics,
        baseline=baseline,
        allowed=allowed,
        least_db=least_db,
        target=Target(spec=target, state=context.store.root, measure=config.measure) if target else None,
    )


def bench_of(
    context: Context,
    format: Format,
    source: Prepared,
    exported: Exported,
    ranges: Ranges,
    folder: Path,
    calibrate: DataSpec,
) -> Workbench:
    """What the worker needs to make mixes of one float model."""
    return Workbench(
        recipe=_AUTO[format],
        format=format,
        float_model=context.store.path(exported.blob),
        ranges=context.store.path(ranges.blob),
        calibrate=calibrate,
        inputs=source.inputs,
        base=context.base,
        folder=folder,
    )
