"""sensitivity, second part: the ranking of blocks held against the task metrics on test samples."""

from typing import Any

from pipeline.flow import Results, Step
from pipeline.records import Format, Prepared, Sensitivity
from pipeline.samples import DataSpec
from pipeline.search.confirming import Confirmed, confirmed
from pipeline.search.strategy import Mix
from pipeline.stages.context import Context, Progress, refusing
from pipeline.stages.search import bench_of, judge_of, keep_samples
from pipeline.stages.validate import quality_settings

# What is looked at where deploy.yaml names no metric.
_CLOSENESS = "cosine"


def confirm_step(
    context: Context,
    format: Format,
    prepared: Step,
    exported: Step,
    calibrated: Step,
    sensitive: Step,
    calibrate: DataSpec,
    test: DataSpec,
    most: int,
) -> Step:
    """What the task metrics lose in int8, and with each of the `most` worst blocks mended."""

    def run(results: Results, report: Progress) -> Any:
        source: Prepared = results[prepared]
        ranking: Sensitivity = results[sensitive]

        def work() -> Confirmed:
            with context.scratch() as folder:
                bench = bench_of(context, format, source, results[exported], results[calibrated], folder, calibrate)
                baseline = keep_samples(context, bench, source, test)
                # Nothing is too much: every sample is to be seen.
                allowed = dict.fromkeys(baseline.scores or (_CLOSENESS,), float("inf"))
                judge = judge_of(context, bench, baseline, allowed=allowed)
                done = 0

                def ask(mix: Mix) -> Any:
                    nonlocal done
                    trial = judge.judge(mix)
                    done += 1
                    report(done, most + 1)
                    return trial

                return confirmed(format, ranking.blocks, most, ask)

        return refusing(context, "sensitivity", work)

    return Step(
        stage="sensitivity",
        name=f"{format}, on the task",
        run=run,
        records=(Confirmed,),
        needs=(prepared, exported, calibrated, sensitive),
        settings={**quality_settings(context, test), "samples": context.loaded.config.search.samples, "most": most},
        tools={},
    )
