"""Rebuild `esrgan_x2.keras` from the npm package `@upscalerjs/default-model` 1.0.0 (MIT, Kevin Scott).

    npm pack @upscalerjs/default-model@1.0.0 && tar xzf upscalerjs-default-model-1.0.0.tgz
    python models/build_esrgan_x2.py package/models models/esrgan_x2.keras

The package holds a tfjs layers model: `model.json` (topology, weight manifest) and raw float32 shards.
The network maps an RGB image, float32 NHWC in 0..1, to one of twice the height and width, same range.
"""

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

# The layer arguments the network uses that mean the same in Keras 2 (the file) and Keras 3 (what we build).
_KEPT_ARGUMENTS = {
    "Conv2D": ("name", "filters", "kernel_size", "strides", "padding", "activation", "use_bias"),
    "UpSampling2D": ("name", "size", "interpolation"),
    "Activation": ("name", "activation"),
    "Add": ("name",),
    "Concatenate": ("name", "axis"),
}


def read_weights(folder: Path, manifest: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Read every float32 array of a tfjs weight manifest, by name."""
    weights: dict[str, np.ndarray] = {}
    for group in manifest:
        data, offset = b"".join((folder / path).read_bytes() for path in group["paths"]), 0
        for spec in group["weights"]:
            count = int(np.prod(spec["shape"]))
            weights[spec["name"]] = np.frombuffer(data, "<f4", count, offset).reshape(spec["shape"])
            offset += 4 * count
        if offset != len(data):
            raise SystemExit(f"{folder}: the manifest describes {offset} bytes, the shards hold {len(data)}")
    return weights


def build(folder: Path) -> keras.Model:
    """Build the Keras 3 functional model with the package's weights."""
    described = json.loads((folder / "model.json").read_text())
    weights = read_weights(folder, described["weightsManifest"])
    config = described["modelTopology"]["model_config"]["config"]
    tensors: dict[str, Any] = {}
    for layer_config in config["layers"]:
        kind, name, arguments = layer_config["class_name"], layer_config["name"], layer_config["config"]
        if kind == "InputLayer":
            tensors[name] = keras.Input(arguments["batch_input_shape"][1:], name=name)
            continue
        kept = {key: arguments[key] for key in _KEPT_ARGUMENTS[kind]}
        if kind == "Conv2D":
            # The weights follow; the default initializer's description cannot be read by a Keras before 3.15.
            kept["kernel_initializer"] = "zeros"
        layer = getattr(keras.layers, kind)(**kept)
        sources = [tensors[source[0]] for source in layer_config["inbound_nodes"][0]]
        tensors[name] = layer(sources if len(sources) > 1 else sources[0])
        if layer.weights:
            layer.set_weights([weights[f"{name}/{weight.name}"] for weight in layer.weights])
    return keras.Model(
        [tensors[spec[0]] for spec in config["input_layers"]],
        [tensors[spec[0]] for spec in config["output_layers"]],
        name="esrgan_x2",
    )


if __name__ == "__main__":
    model = build(Path(sys.argv[1]))
    model.save(sys.argv[2])
    print(f"{sys.argv[2]}: {model.count_params():,} parameters")
