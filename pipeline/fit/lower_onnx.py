"""An `.onnx` file for a runtime that is too old for its opset or IR version.

The IR version is the file format's own: an older number is as good as long as nothing in the file is newer. An opset is
lowered by writing the older number where every operator is the same in both, by ONNX's version converter where one has
changed, and last by the older number alone where only data types were added since, which the host's runtime checks.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, defs, inliner, version_converter

from pipeline import onnx_file
from pipeline.errors import ConversionFailed

_DOMAINS = ("", "ai.onnx")
# Data types to the IR version that has them first.
_TYPES = {
    **dict.fromkeys(("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"), 9),
    "INT4": 10,
    "UINT4": 10,
    "FLOAT4E2M1": 11,
    "FLOAT8E8M0": 12,
    "INT2": 13,
    "UINT2": 13,
}

Way = tuple[str, Callable[[], ModelProto]]


def ways(model: Path, opset: int, ir: int) -> Iterator[Way]:
    """Ways to a file of at most this opset and IR version, the safest first: what is done, and the doing of it.

    Raises:
        ConversionFailed: there is none.
    """
    loaded = onnx_file.read_graph(model)
    if loaded.functions:
        loaded = inliner.inline_local_functions(loaded)
    _check_types(loaded, ir)
    has = max((entry.version for entry in loaded.opset_import if entry.domain in _DOMAINS), default=0)
    said = [f"IR version {loaded.ir_version} → {ir}"] if loaded.ir_version > ir else []
    if unused := _drop_unused(loaded):
        said.append(f"{_listed(unused)} no longer named, of which it uses nothing")
    if has <= opset:
        yield "; ".join(said), lambda: _stamped(loaded, has, ir)
        return
    loaded, apart = _taken_apart(loaded, has, opset)
    if apart:
        said.append(f"{_listed(apart)} taken apart")
    changed = sorted(_changed(loaded, has, opset))
    if not changed:
        yield (
            "; ".join([*said, f"opset {has} → {opset}, no operator of it changed"]),
            lambda: _stamped(loaded, opset, ir),
        )
        return
    names = _listed(changed)
    yield (
        "; ".join([*said, f"opset {has} → {opset}, {names} converted"]),
        lambda: _stamped(version_converter.convert_version(loaded, opset), opset, ir),
    )
    if all(_alike(node, has, opset) for node in _nodes(loaded.graph)):
        yield (
            "; ".join([*said, f"opset {has} → {opset}, {names} used as before"]),
            lambda: _stamped(loaded, opset, ir),
        )


def _taken_apart(model: ModelProto, has: int, wanted: int) -> tuple[ModelProto, list[str]]:
    """Operators that the older opset does not have, as the simpler ones that ONNX itself defines them by."""
    missing = set()
    for name in _changed(model, has, wanted):
        schema = defs.get_schema(name, has, "")
        try:
            defs.get_schema(name, wanted, "")
        except defs.SchemaError:
            # onnx's stubs leave these two out.
            if schema.has_function or schema.has_context_dependent_function:  # type: ignore[attr-defined]
                missing.add(name)
    if not missing:
        return model, []
    functions = [("", name) for name in missing]
    return inliner.inline_selected_functions(model, functions, inline_schema_functions=True), sorted(missing)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _drop_unused(model: ModelProto) -> list[str]:
    """Take out the domains that no operator is of; an old runtime refuses their opsets all the same."""
    used = {node.domain for node in _nodes(model.graph)} | set(_DOMAINS)
    kept = [entry for entry in model.opset_import if entry.domain in used]
    unused = sorted({entry.domain for entry in model.opset_import} - used)
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return unused


def _stamped(model: ModelProto, opset: int, ir: int) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(model)
    made.ir_version = min(made.ir_version, ir)
    for entry in made.opset_import:
        if entry.domain in _DOMAINS:
            entry.version = opset
    return made


def _check_types(model: ModelProto, ir: int) -> None:
    used = {tensor.data_type for tensor in model.graph.initializer}
    used |= {
        attribute.t.data_type for node in _nodes(model.graph) for attribute in node.attribute if attribute.HasField("t")
    }
    names = {TensorProto.DataType.Name(number) for number in used}
    newer = {name: _TYPES[name] for name in names if _TYPES.get(name, 0) > ir}
    if newer:
        name, first = max(newer.items(), key=lambda item: item[1])
        raise ConversionFailed(
            f"it has tensors of {name}, which IR version {first} is the first to have",
            hint="quantize it another way (`deploy recipes`) or update the runtime",
        )


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nodes(attribute.g)
            for inner in attribute.graphs:
                yield from _nodes(inner)


def _changed(model: ModelProto, has: int, wanted: int) -> set[str]:
    """Operators that are not the same in both opsets."""
    return {
        node.op_type
        for node in _nodes(model.graph)
        if node.domain in _DOMAINS and defs.get_schema(node.op_type, has, "").since_version > wanted
    }


def _alike(node: NodeProto, has: int, wanted: int) -> bool:
    """Whether the older operator has every attribute that is used, with what it means when it is left out."""
    if node.domain not in _DOMAINS:
        return True
    newer = defs.get_schema(node.op_type, has, "")
    try:
        older = defs.get_schema(node.op_type, wanted, "")
    except defs.SchemaError:
        return False
    used = {attribute.name for attribute in node.attribute}
    return (
        used <= set(older.attributes)
        and len(node.input) <= older.max_input
        and len(node.output) <= older.max_output
        and all(
            name in used or newer.attributes[name].default_value == older.attributes[name].default_value
            for name in older.attributes
            if name in newer.attributes
        )
    )
