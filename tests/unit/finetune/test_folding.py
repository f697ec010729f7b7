"""A folded model answers as the one it was made from, and fake quantization stands where the runtime quantizes."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")
import pipeline.finetune.keras  # noqa: F401  isort: skip  chooses Keras's backend

import keras
from keras import layers

from pipeline.finetune.keras.folding import folded
from pipeline.finetune.keras.quantized_model import quantized_model


def normalization(**options: Any) -> Any:
    """One with statistics that are not 0 and 1."""
    random = keras.initializers.RandomUniform(0.5, 2.0, seed=1)
    return layers.BatchNormalization(
        gamma_initializer=random, beta_initializer=random, moving_mean_initializer=random, **options,
        moving_variance_initializer=random,
    )  # fmt: skip


def residual() -> Any:
    image = keras.Input((12, 12, 3), name="image")
    first = normalization()(layers.Conv2D(8, 3, padding="same", use_bias=False, name="first")(image))
    first = layers.ReLU(6, name="first_relu")(first)
    deep = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(first)
    deep = layers.Activation("swish", name="swish")(normalization(scale=False)(deep))
    deep = layers.Conv2D(8, 1, activation="gelu", name="second")(deep)
    deep = layers.MaxPooling2D()(layers.Add(name="sum")([first, deep]))
    deep = normalization(name="kept")(deep)  # nothing to fold it into
    up = layers.Conv2DTranspose(6, 3, strides=2, activation="relu", name="up")(deep)
    separable = layers.SeparableConv2D(4, 3, name="separable")
    inner = keras.Sequential([keras.Input((13, 13, 6)), separable, normalization(), layers.ReLU(name="inner_relu")])
    pooled = layers.GlobalAveragePooling2D(name="pool")(inner(up))
    return keras.Model(image, layers.Dense(5, activation="softmax", name="scores")(pooled))


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(3)
    return residual()


def test_folding_keeps_the_answers_and_the_names(model: Any) -> None:
    images = np.random.default_rng(0).normal(size=(4, 12, 12, 3)).astype(np.float32)
    plain = folded(model)
    np.testing.assert_allclose(plain(images), model(images, training=False), rtol=1e-5, atol=1e-6)
    assert (plain.inputs[0].name, plain.output_names) == ("image", ["scores"])
    normalizers = [layer.name for layer in plain.layers if isinstance(layer, layers.BatchNormalization)]
    assert normalizers == ["kept"]


def test_what_is_quantized_and_what_is_not(model: Any) -> None:
    quantized = quantized_model(folded(model), weight_bits=4)
    assert [layer.name for layer in quantized.weights] == [
        "first", "depthwise", "second_linear", "up_linear", "separable", "scores_linear"
    ]  # fmt: skip
    assert [layer._bits for layer in quantized.weights] == [[4], [8], [4], [8], [8, 4], [4]]
    # A convolution before its ReLU has no tensor of its own in LiteRT, and pooling keeps the grid of its input.
    grids = [layer.name.rpartition("_grid")[0] for layer in quantized.activations]
    assert grids == [
        "image",
        "first_relu",
        "depthwise",
        "swish",
        "second_linear",
        "second",
        "sum",
        "kept",
        "up_linear",
        "up",
        "inner_relu",
        "pool",
        "scores_linear",
        "scores",
    ]
    assert quantized.untrained == ("kept (BatchNormalization)",)
    assert quantized.softmax == (True,)
    fixed = {layer.name.rpartition("_grid")[0] for layer in quantized.activations if layer.fixed}
    assert fixed == {"scores"}


def test_layers_without_a_known_kernel_are_named() -> None:
    words = keras.Input((6, 4), name="words")
    model = keras.Model(words, layers.Dense(3, name="last")(layers.GRU(5, name="memory")(words)))
    assert quantized_model(folded(model), weight_bits=8).untrained == ("memory (GRU)",)
    with pytest.raises(ValueError, match="no layer to train"):
        quantized_model(folded(keras.Model(words, layers.GRU(5)(words))), weight_bits=8)
