"""The worker's side of the search: what the samples say, what one block does, how good one mix is."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.model_files import total_bytes
from pipeline.quality import Fidelity, MetricScore, MetricSpec, open_metrics
from pipeline.quality.outputs import Array, OutputsReader, OutputsWriter, write_npz
from pipeline.recipes.recipe import Ingredients, recipe
from pipeline.records import Precision, Repair
from pipeline.runtimes.runtime import HostModel, open_model
from pipeline.samples import DataSpec, open_samples
from pipeline.search.messages import Baseline, Judged, Workbench
from pipeline.search.ops import Op, int8_share, read_ops
from pipeline.search.sensitivity import Probe
from pipeline.search.taps import answers_at
from pipeline.search.testing import chosen_samples, looks, rejected, sample_drops
from pipeline.stages.candidate_jobs import observed_ranges

Report = Callable[[int, int], None]
SAMPLES = "samples.npz"
PROBING = "probing.npz"


def list_ops(*, bench: Workbench, report: Report) -> tuple[Op, ...]:
    """The ops of the float model."""
    return read_ops(bench.format, bench.float_model)


def float_answers(*, bench: Workbench, tensors: Sequence[str], most: int, report: Report) -> int:
    """Keep the first calibration samples, the float model's answers to them, and its tensors on the first one."""
    model = open_model(bench.format, bench.float_model)
    count = 0
    with OutputsWriter(bench.folder / PROBING) as writer:
        for number, inputs in enumerate(_calibration_samples(bench)):
            if number == most:
                break
            writer.add("inputs", number, inputs)
            writer.add("outputs", number, model.answer(inputs))
            if number == 0:
                found = answers_at(bench.format, bench.float_model, tensors, inputs)
                writer.add("tensors", 0, {str(tensors.index(name)): array for name, array in found.items()})
            count += 1
            report(count, most)
    return count


def probe(
    *,
    bench: Workbench,
    ops: Sequence[str],
    inside: Mapping[str, Precision],
    tensor: str,
    place: int,
    samples: int,
    report: Report,
) -> Probe:
    """Make some ops as `inside` says and leave all others in float.

    `tensor` is where the error is looked at besides the outputs; its float values are number `place` of the kept ones.
    """
    output = bench.folder / f"probe.{bench.format}"
    precisions: dict[str, Precision] = dict.fromkeys(ops, "float32")
    recipe(bench.recipe).quantize(_ingredients(bench, {**precisions, **inside}, (), bench.folder), output)
    model, kept = open_model(bench.format, output), OutputsReader(bench.folder / PROBING)
    answers, here = Fidelity(classifier=False), Fidelity(classifier=False)
    for number in range(samples):
        inputs = kept.read("inputs", number)
        answers.update(model.answer(inputs), kept.read("outputs", number))
        if number == 0:
            wanted = kept.read("tensors", 0)
            found = answers_at(bench.format, output, (tensor,), inputs)
            if tensor in found and str(place) in wanted:
                here.update({"": found[tensor]}, {"": wanted[str(place)]})
    output_db = answers.result()["sqnr_db"]
    try:
        op_db = here.result()["sqnr_db"]
    except ValueError:  # the tensor is gone: the quantizer has fused it away
        op_db = output_db
    return Probe(op_sqnr_db=op_db, output_sqnr_db=output_db)


def keep_samples(
    *, bench: Workbench, test: DataSpec, reference: Path, metrics: Sequence[MetricSpec], most: int, report: Report
) -> Baseline:
    """Keep every second test sample, in a seeded order and at most `most` of them, so that none is made twice.

    The other half is for the final verdict alone: a mix chosen by its score on samples looks better on those than it
    is. Of fewer than `2 * LEAST_APART` test samples all are taken.
    """
    answers, theirs = OutputsReader(reference), open_metrics(metrics, bench.base)
    found = open_samples(test, bench.inputs, bench.base)
    chosen = chosen_samples(len(found), most)
    order = {number: place for place, number in enumerate(chosen)}
    kept: dict[int, tuple[str, Array | None]] = {}
    with OutputsWriter(bench.folder / SAMPLES) as writer:
        for number, sample in enumerate(found):
            if number not in order:
                continue
            place = order[number]
            writer.add("inputs", place, sample.inputs)
            writer.add("outputs", place, answers.read("test", number))
            if sample.truth is not None:
                writer.add("truth", place, {"truth": np.asarray(sample.truth)})
            kept[place] = (sample.id, sample.truth)
            report(len(kept), len(chosen))
    if metrics:
        reader = OutputsReader(bench.folder / SAMPLES)
        for place in range(len(chosen)):
            theirs.update(kept[place][0], reader.read("outputs", place), kept[place][1])
    return Baseline(scores=theirs.result() if metrics else {}, samples=len(chosen), of=len(found))


def judge(
    *,
    bench: Workbench,
    precisions: Mapping[str, Precision],
    repairs: tuple[Repair, ...],
    metrics: Sequence[MetricSpec],
    baseline: Mapping[str, MetricScore],
    allowed: Mapping[str, float],
    samples: int,
    slowest_s: float,
    output: Path,
    report: Report,
) -> Judged:
    """Make the mix at `output`, with golden vectors beside it, and run the samples until it is clear that it will
    not do.

    `slowest_s`: an inference that takes longer on this host ends it.
    """
    recipe(bench.recipe).quantize(_ingredients(bench, precisions, repairs, bench.folder), output)
    model, kept = open_model(bench.format, output), OutputsReader(bench.folder / SAMPLES)
    fidelity = Fidelity({spec.name: spec.scale for spec in model.outputs})
    ours = open_metrics(metrics, bench.base)
    closeness: dict[str, list[float]] = {"cosine": [], "top1_agreement": []}
    first_s, too_slow, seen, stops = 0.0, False, 0, looks(samples)
    for place in range(samples):
        inputs, expected = kept.read("inputs", place), kept.read("outputs", place)
        answered, took_s = _timed(model, inputs)
        fidelity.update(answered, expected)
        if metrics:
            ours.update(f"sample {place}", answered, kept.read("truth", place).get("truth"))
        _add_closeness(closeness, answered, expected)
        seen += 1
        if place == 0:
            golden = model.encode(inputs)
            write_npz(output.with_name("golden_inputs"), golden)
            write_npz(output.with_name("golden_outputs"), model.invoke(golden))
        if place == 1:  # the first one also pays for what is set up once
            first_s, too_slow = took_s, took_s > slowest_s
        report(seen, samples)
        if too_slow:
            break
        if seen in stops and _hopeless(ours.result() if metrics else {}, closeness, baseline, allowed):
            break
    return Judged(
        size_bytes=total_bytes(bench.format, output),
        int8_share=int8_share(read_ops(bench.format, output)),
        scores=ours.result() if metrics else {},
        fidelity=fidelity.result(),
        per_sample={name: tuple(values) for name, values in closeness.items() if values},
        samples=seen,
        first_s=first_s,
        too_slow=too_slow,
    )


def _timed(model: HostModel, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], float]:
    started = time.perf_counter()
    answered = model.answer(inputs)
    return answered, time.perf_counter() - started


def _add_closeness(closeness: dict[str, list[float]], got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Cosine and, for one row of scores, agreement of the top class, of this sample alone."""
    one = Fidelity(classifier=False)
    one.update(got, expected)
    closeness["cosine"].append(one.result()["cosine"])
    shapes = [array.shape for array in expected.values()]
    if len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][0] == 1 and shapes[0][1] > 1:
        [ours], [theirs] = got.values(), expected.values()
        closeness["top1_agreement"].append(float(ours.argmax() == theirs.argmax() and not np.isnan(ours).any()))


def _hopeless(
    scores: Mapping[str, MetricScore],
    closeness: Mapping[str, Sequence[float]],
    baseline: Mapping[str, MetricScore],
    allowed: Mapping[str, float],
) -> bool:
    for name, most in allowed.items():
        drops = sample_drops(name, scores, closeness, baseline)
        if drops and rejected(drops, most):
            return True
    return False


def _ingredients(
    bench: Workbench, precisions: Mapping[str, Precision], repairs: tuple[Repair, ...], scratch: Path
) -> Ingredients:
    return Ingredients(
        source=bench.float_model,
        float_model=bench.float_model,
        ranges=observed_ranges(bench.ranges),
        scratch=scratch,
        precisions=precisions,
        repairs=repairs,
        samples=lambda: _calibration_samples(bench),
    )


def _calibration_samples(bench: Workbench) -> Iterator[Mapping[str, Array]]:
    for sample in open_samples(bench.calibrate, bench.inputs, bench.base):
        yield sample.inputs
