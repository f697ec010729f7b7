"""What a search has to say about its result, in words. Pure."""

from collections.abc import Sequence

from pipeline.records import Format, Trial
from pipeline.search.messages import Baseline


def findings(trials: Sequence[Trial], chosen: str, baseline: Baseline, format: Format) -> tuple[str, ...]:
    """Why this mix, whether int8 alone does, what repairs gained, and on which samples that rests."""
    by_name = {trial.name: trial for trial in trials}
    taken, plain, whole = by_name[chosen], by_name.get("int8"), by_name.get("float32")
    said = [f"{len(trials)} mixes were made and judged"]
    if plain is not None and plain.verdict != "meets":
        said.append(_no_int8(plain, taken, whole, format))
    said += [_gained(trial, plain) for trial in trials if plain and trial.repairs and set(trial.blocks) == {"int8"}]
    if taken.verdict != "meets":
        said.append("nothing meets the target, not even float32: see what its export loses")
    if baseline.samples < baseline.of:
        said.append(f"judged on {baseline.samples} of {baseline.of} test samples; the verdict is over all of them")
    else:
        said.append(
            f"judged on the {baseline.of} test samples that the verdict is over too: it may flatter a little; "
            "with 40 or more the search keeps to one half"
        )
    return tuple(said)


def _no_int8(plain: Trial, taken: Trial, whole: Trial | None, format: Format) -> str:
    fails = {"refused": "cannot be made", "unsure": "is not sure to meet the target", "misses": "misses the target"}
    text = f"int8 for all ops {fails[plain.verdict]} ({plain.reason})" if plain.verdict in fails else ""
    options = []
    if taken.verdict == "meets" and taken.name != "float32":
        share = f"{taken.int8_share:.0%} of the compute in int8"
        if taken.latency_ms and plain.latency_ms and whole and whole.latency_ms:
            share += f", {taken.latency_ms:.3g} ms (int8: {plain.latency_ms:.3g}, float32: {whole.latency_ms:.3g})"
        options.append(f"a mix with {share}")
    elif taken.name == "float32":
        options.append("float32 is the cheapest that does")
    if plain.verdict == "unsure":
        options.append("more test samples, which may show that int8 does")
    options.append("training with quantization in the loop (QAT)")
    return f"{text}; options: {', '.join(options)}"


def _gained(trial: Trial, plain: Trial) -> str:
    """What a repair gained over the same precision without it."""
    parts = [f"{trial.sqnr_db - plain.sqnr_db:+.1f} dB SQNR"]
    if trial.samples == plain.samples:
        losses = {drop.metric: drop.value for drop in plain.drops}
        parts += [f"{d.metric} loss {losses[d.metric]:.3g} → {d.value:.3g}" for d in trial.drops if d.metric in losses]
    return f"{' + '.join(trial.repairs)}: {', '.join(parts)}"
