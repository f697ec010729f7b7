"""The model card: Markdown with Hugging Face's metadata on top, made of the manifest and nothing else."""

import io
from collections.abc import Mapping, Sequence

from ruamel.yaml import YAML

from pipeline.quantities import joules, metric, milliseconds, size
from pipeline.release.records import ClassModel, Manifest, Measured, ReleasedData
from pipeline.reporting.markdown import escape
from targets.records import Absent, TensorSpec


def model_card(manifest: Manifest) -> str:
    """Markdown that Hugging Face and GitHub render."""
    parts = [
        f"---\n{_metadata(manifest)}---",
        f"# {escape(manifest.name)}, release {manifest.sequence}",
    ]
    if manifest.summary:
        parts.append(escape(manifest.summary))
    several = len(manifest.classes) > 1
    for name, model in manifest.classes.items():
        parts += [f"## {'For ' + escape(name) if several or name != 'default' else 'The model'}", *_model(model)]
        parts += _devices(manifest.observed.devices.get(name, {}))
        if why := manifest.observed.reasons.get(name):
            parts.append(f"Why this one: {escape(why)}.")
    for name, reason in manifest.observed.reasons.items():
        if name not in manifest.classes:
            parts += [f"## For {escape(name)}", f"No model: {escape(reason)}."]
    parts += ["## Where it comes from", _origin(manifest), "## Limits", _limits(manifest)]
    return "\n\n".join(parts) + "\n"


def _metadata(manifest: Manifest) -> str:
    formats = sorted({model.format for model in manifest.classes.values()})
    quantized = any(model.ops_quantized for model in manifest.classes.values())
    document: dict[str, object] = {
        "license": manifest.license.lower() or "unknown",
        "tags": ["edge", *formats, *(["quantized"] if quantized else [])],
        "model_name": manifest.name,
    }
    if len(formats) == 1:
        document["library_name"] = {"tflite": "tflite", "onnx": "onnx", "pt": "pytorch"}.get(formats[0], formats[0])
    results = [
        {"type": name, "value": value.value, "name": f"{name} ({model.recipe})"}
        for model in manifest.classes.values()
        if model.quality
        for name, value in model.quality.metrics.items()
    ]
    if results:
        data = {"name": f"{manifest.test.count} test samples", "type": "private"}
        document["model-index"] = [
            {"name": manifest.name, "results": [{"task": {"type": "other"}, "dataset": data, "metrics": results}]}
        ]
    out = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(document, out)
    return out.getvalue()


def _model(model: ClassModel) -> list[str]:
    quantized = sum(model.ops_quantized.values())
    rows = [
        ("Recipe", f"`{escape(model.recipe)}`"),
        ("File", f"`{escape(model.file)}`, {size(model.total_bytes)}"),
        ("SHA-256", f"`{model.blob}`"),
        ("Runtime that answered", ", ".join(f"{escape(n)} {escape(v)}" for n, v in model.runtime.items())),
        ("Ops on quantized data", f"{quantized} of {model.ops_total}"),
        *((f"In float: {escape(op)}", escape(why)) for op, why in model.ops_left_float.items() if quantized),
        *((escape(f"Parameter: {name}"), escape(value)) for name, value in model.parameters.items() if value),
    ]
    parts = [_table(("", ""), rows)]
    tensors = [("input", spec) for spec in model.inputs] + [("output", spec) for spec in model.outputs]
    if tensors:
        parts.append(_table(("Tensor", "Name", "Shape", "Type", "Quantization"), [_tensor(*row) for row in tensors]))
    if model.quality:
        metrics = [
            (
                escape(name),
                metric(value.value, value.unit),
                metric(value.reference, value.unit),
                f"{value.better} is better",
            )
            for name, value in model.quality.metrics.items()
        ]
        fidelity = [
            (f"{escape(name)} against the float model", f"{value:.4g}", "", "")
            for name, value in model.quality.fidelity.items()
        ]
        parts.append(f"Quality on {model.quality.samples} test samples:")
        parts.append(_table(("", "This model", "Float source", ""), [*metrics, *fidelity]))
    return parts


def _tensor(role: str, spec: TensorSpec) -> tuple[str, ...]:
    shape = " × ".join("any" if extent < 0 else str(extent) for extent in spec.shape)
    scale = f"scale {spec.scale:.6g}, zero point {spec.zero_point}" if spec.scale else ""
    return role, f"`{escape(spec.name)}`", shape or "scalar", spec.dtype, scale


def _devices(devices: Mapping[str, Measured]) -> list[str]:
    if not devices:
        return []
    rows = []
    for target, seen in devices.items():
        peak = seen.peak_memory_bytes
        rows.append(
            (
                escape(target) + (" (emulated)" if seen.emulated else ""),
                escape(f"{seen.cpu}, {seen.arch}, {seen.os}"),
                escape(f"{seen.runtime}, {seen.threads} thread{'s' * (seen.threads != 1)}"),
                milliseconds(seen.warm_ms.median),
                milliseconds(seen.warm_ms.p90),
                "not measured" if isinstance(peak, Absent) else size(peak),
                "not measured" if isinstance(seen.energy_j, Absent) else joules(seen.energy_j),
                f"{seen.answer_steps:.2g}",
            )
        )
    columns = (
        "Device",
        "Hardware",
        "Runtime",
        "Median",
        "p90",
        "Peak memory",
        "Energy",
        "Steps from the host's answer",
    )
    return ["Measured when it was released:", _table(columns, rows)]


def _origin(manifest: Manifest) -> str:
    source = manifest.source
    lines = [
        f"Source: `{escape(source.file)}` ({escape(source.kind)}), SHA-256 `{source.sha256}`",
        f"Calibration: {_data(manifest.calibration)}",
        f"Test: {_data(manifest.test)}",
        f"Tools: {escape(', '.join(f'{name} {version}' for name, version in manifest.tools.items()))}",
        f"Budgets: {escape('; '.join(f'{key}: {value}' for key, value in manifest.budgets.items())) or 'none'}",
        f"Content: `{manifest.content}`, the same wherever it is made again from the same inputs",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _data(data: ReleasedData) -> str:
    parts = [f"{data.count} samples, SHA-256 `{data.sha256}`", f"preprocessing `{data.preprocess[:16]}`"]
    if data.seed is not None:
        parts.append(f"chosen with seed {data.seed}")
    parts.append(f"licence {escape(data.license)}" if data.license else "licence not stated")
    return ", ".join(parts)


def _limits(manifest: Manifest) -> str:
    lines = [
        "It was judged on the test samples above and on the devices above; nothing is known of others.",
        "A device answers like the host within the tolerance of the golden vectors; that is checked after installing.",
    ]
    if not manifest.license:
        lines.append("Its licence is not stated: set `release.license`.")
    findings = {f for model in manifest.classes.values() if model.quality for f in model.quality.findings}
    lines += [escape(finding) for finding in sorted(findings)]
    return "\n".join(f"- {line}" for line in lines)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(columns), ["---"] * len(columns), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
