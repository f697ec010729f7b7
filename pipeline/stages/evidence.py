"""What is judged, put together from the records of a run."""

from collections.abc import Mapping

from pipeline.recipes.recipe import promise
from pipeline.records import Artifact, Measured, Pushed, Quality
from pipeline.stages.context import Context
from pipeline.stages.judging import Budgets, Evidence


def budgets(context: Context) -> Budgets:
    """deploy.yaml's budgets as the gate wants them."""
    asked = context.loaded.config.budgets
    return Budgets(
        size_bytes=asked.size,
        latency_p90_ms=asked.latency_p90,
        peak_memory_bytes=asked.peak_memory,
        energy_j=asked.energy,
        max_drop=asked.max_drop,
        min_fidelity_db=asked.min_fidelity_db,
    )


def evidence_of(
    candidates: Mapping[str, tuple[Artifact, Quality]], found: Measured, there: object
) -> dict[str, Evidence]:
    """Of every candidate on one target.

    Args:
        candidates: by recipe, as the target got them.
        there: what became of the push.
    """
    facts = there.facts if isinstance(there, Pushed) else None
    features = frozenset({facts.arch, *facts.cpu_features}) if facts else frozenset[str]()
    return {
        name: Evidence(
            artifact=artifact,
            quality=quality,
            measured=found.results[name],
            promised_size=promise(name).size,
            features=features,
            again={number: round[name] for number, round in enumerate(found.rounds) if name in round},
        )
        for name, (artifact, quality) in candidates.items()
    }
