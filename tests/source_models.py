"""TensorFlow models of a few kilobytes, made in the worker process, where TensorFlow is imported once."""

from collections.abc import Callable
from pathlib import Path

Report = Callable[[int, int], None]


def keras_classifier(*, path: Path, report: Report) -> None:
    """Convolution, pooling, 5 classes; takes any number of samples of any size."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3), name="image")
    deep = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(image)
    deep = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu", name="second")(deep)
    scores = keras.layers.Dense(5, name="scores")(keras.layers.GlobalAveragePooling2D()(deep))
    keras.Model(image, scores).save(path)


def keras_sequential(*, path: Path, report: Report) -> None:
    """What most tutorials build."""
    import keras

    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((8, 8, 3), name="image"),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(5, name="scores"),
    ]
    keras.Sequential(layers).save(path)


def keras_h5(*, path: Path, report: Report) -> None:
    """What Keras 2 wrote: the whole model, or, where the name says so, its weights alone."""
    import h5py
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input((8, 8, 3), name="image")
    deep = tf_keras.layers.Conv2D(4, 3, activation="relu", name="first")(image)
    model = tf_keras.Model(image, tf_keras.layers.Dense(5, name="scores")(tf_keras.layers.Flatten()(deep)))
    # An open file, because tf_keras warns of the format when it is given a path.
    with h5py.File(path, "w") as file:
        if "weights" in path.name:
            tf_keras.src.saving.legacy.hdf5_format.save_weights_to_hdf5_group(file, model)
        else:
            model.save(file)


def keras3_h5(*, path: Path, report: Report) -> None:
    """The same format, written by Keras 3."""
    import keras

    keras.utils.set_random_seed(0)
    given = keras.Input((6,), name="given")
    keras.Model(given, keras.layers.Dense(3, name="answer")(given)).save(path)


def keras_recurrent(*, path: Path, report: Report) -> None:
    """Nothing but a recurrent layer."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    keras.Model(image, keras.layers.GRU(5, name="scores")(keras.layers.Reshape((8, 24))(image))).save(path)


def keras_two_inputs(*, path: Path, report: Report) -> None:
    import keras

    keras.utils.set_random_seed(0)
    left, right = keras.Input((8,), name="left"), keras.Input((6,), name="right")
    joined = keras.layers.Add()([keras.layers.Dense(4)(left), keras.layers.Dense(4)(right)])
    outputs = [keras.layers.Dense(3, name="first")(joined), keras.layers.Dense(2, name="second")(joined)]
    keras.Model([left, right], outputs).save(path)


def keras_with_nan(*, path: Path, report: Report) -> None:
    import keras
    import numpy as np

    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(2, name="dense")(x))
    kernel, bias = model.layers[1].get_weights()
    kernel[1, 1] = np.nan
    model.layers[1].set_weights([kernel, bias])
    model.save(path)


def keras_with_lambda(*, path: Path, report: Report) -> None:
    import keras

    x = keras.Input((4,), name="x")
    keras.Model(x, keras.layers.Lambda(lambda t: t * 2, name="twice")(x)).save(path)


def saved_model(*, path: Path, report: Report) -> None:
    """Two signatures of one function over a variable."""
    import tensorflow as tf

    module = tf.Module()
    module.kernel = tf.Variable(tf.random.stateless_normal((8, 4), (1, 2)))
    given = tf.TensorSpec([None, 8], name="given")
    plain = tf.function(lambda given: {"answer": tf.nn.relu(given @ module.kernel)})
    double = tf.function(lambda given: {"answer": 2 * (given @ module.kernel)})
    signatures = {"plain": plain.get_concrete_function(given), "double": double.get_concrete_function(given)}
    tf.saved_model.save(module, str(path), signatures=signatures)
