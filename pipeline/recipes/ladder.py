"""The retry ladder: a candidate that cannot be made, loaded or run is made again, less boldly, and the record says so.

First as asked. Where the reason names a node of the float model, that one is left in float and the same is tried again;
then come the recipe's own fallbacks: other weights, one scale for the whole tensor. (The steps before these, folding
and shape inference, are those of the export: `pipeline.exporters.onnx_preparation`.)
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConversionFailed, DeployError
from pipeline.recipes.recipe import Ingredients, Recipe
from pipeline.runtimes.runtime import HostModel, open_model

# A graph that breaks at more nodes than this breaks everywhere: the next rung is sooner tried.
_MOST_EXCLUDED = 3
_REASON_CHARS = 200
_PLACE = re.compile(r"Load model from \S+ failed:\s*(This is an invalid model\.\s*)?")


def climb(
    chosen: Recipe, ingredients: Ingredients, output: Path, finish: Callable[[Path], None] = lambda made: None
) -> tuple[HostModel, tuple[str, ...]]:
    """Make the candidate at `output`, open it, and return it with what had to be given up.

    `finish` writes into a file that was made what belongs there whoever made it.

    Raises:
        ConversionFailed: no rung gave a model that runs. Of a recipe without fallbacks, its converter's own error.
    """
    fallbacks: Sequence[tuple[str, Recipe]] = getattr(chosen, "fallbacks", tuple)()
    notes: list[str] = []
    if not fallbacks:
        chosen.quantize(replace(ingredients, note=notes.append), output)
        finish(output)
        return open_model(chosen.format, output), tuple(notes)
    nodes = _node_names(ingredients.float_model)
    reason = ""
    rungs = [("as asked", chosen), *fallbacks]
    for said, rung in rungs:
        excluded: tuple[str, ...] = ()
        while True:
            noted: list[str] = []
            made = False
            try:
                rung.quantize(replace(ingredients, excluded=excluded, note=noted.append), output)
                finish(output)
                made = True
                model = open_model(rung.format, output)
                _check_answer(model, ingredients)
            except (ModuleNotFoundError, MemoryError):
                raise
            except Exception as error:  # onnx and onnxruntime raise direct children of Exception, by the dozen
                if isinstance(error, DeployError) and not made:
                    raise  # the recipe's own refusal, which no other rung changes
                whole = _told(error)
                reason, culprit = whole[:_REASON_CHARS], _culprit(whole, nodes)
                if culprit and culprit not in excluded and len(excluded) < _MOST_EXCLUDED:
                    notes.append(f"{said}: {reason}; {culprit} is left in float")
                    excluded += (culprit,)
                    continue
                notes.append(f"{said}: {reason}")
                break
            if notes:
                kept = f", {', '.join(excluded)} in float" if excluded else ""
                notes.append(f"made {said}{kept}")
            return model, (*notes, *noted)
    raise ConversionFailed(
        f"none of {len(rungs)} ways gave a model that runs; at last: {reason}", hint="; ".join(notes)
    )


def _check_answer(model: HostModel, ingredients: Ingredients) -> None:
    """Run the first calibration sample. The source's answers are finite, so the candidate's must be."""
    for inputs in ingredients.samples():
        for name, array in model.answer(inputs).items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ConversionFailed(f"output {name!r} is NaN or infinite on the first calibration sample")
        return


def _told(error: Exception) -> str:
    """The first line of what went wrong, without the names of our scratch files."""
    text = error.message if isinstance(error, DeployError) else str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return _PLACE.sub("", first)


def _culprit(reason: str, nodes: Sequence[str]) -> str:
    """The node that the reason speaks of: of those whose names are in it, the one with the longest."""
    if "ode" not in reason:  # `node`, `Node`: other texts have words that are names of nodes by accident
        return ""
    return max((name for name in nodes if name in reason), key=len, default="")


def _node_names(path: Path) -> list[str]:
    import onnx

    from pipeline.search.onnx_ops import with_node_names

    model: Any = with_node_names(onnx.load(str(path), load_external_data=False))
    return [node.name for node in model.graph.node]
