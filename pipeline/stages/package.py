"""package: the candidates of this run as one release, described by a manifest that names everything by hash."""

from collections.abc import Mapping
from typing import Any

from pipeline import codec
from pipeline.flow import Results, Step
from pipeline.records import Artifact, Format, Prepared, Quality, Refusal, Release
from pipeline.stages.context import Context, Progress
from pipeline.stages.export import model_path


def package_step(
    context: Context,
    prepared: Step,
    calibrated: Mapping[Format, Step],
    quantized: Mapping[str, Step],
    validated: Mapping[str, Step],
) -> Step:
    """The release of every candidate that gave an artifact and could be validated."""

    def run(results: Results, report: Progress) -> Any:
        source: Prepared = results[prepared]
        candidates: dict[str, Artifact] = {}
        described: dict[str, Any] = {}
        for name, step in quantized.items():
            artifact, quality = results[step], results[validated[name]]
            if isinstance(artifact, Artifact) and isinstance(quality, Quality):
                candidates[name] = artifact
                described[name] = {"artifact": artifact, "quality": quality}
        if not candidates:
            reasons = "; ".join(
                f"{n}: {r.reason}" for n, s in quantized.items() if isinstance(r := results[s], Refusal)
            )
            return Refusal(stage="package", reason=f"no recipe gave a model ({reasons})")
        manifest = context.store.add_bytes(
            codec.encode(
                {
                    "name": context.loaded.config.name or model_path(context).stem,
                    "source": {"sha256": prepared.settings["model"], "kind": source.source_kind},
                    "calibration": source.calibration,
                    # The sketches too, as what later data is compared with.
                    "ranges": {format: results[step] for format, step in calibrated.items()},
                    "test": source.test,
                    "tools": source.tools,
                    "candidates": described,
                }
            )
        )
        return Release(
            id=manifest[:16], manifest=manifest, candidates={name: found.blob for name, found in candidates.items()}
        )

    needs = (prepared, *calibrated.values(), *quantized.values(), *validated.values())
    return Step(
        stage="package",
        name="package",
        run=run,
        records=(Release,),
        needs=needs,
        settings={"name": context.loaded.config.name},
        tolerant=True,
    )
