"""`.keras` files and SavedModels: written under another name and renamed, so that a kill leaves the last whole one."""

import numpy as np
import tensorflow as tf
import tf_keras as keras

from strategies.export.files import replacing
from strategies.export.interface import Interface

SIGNATURE = "serving_default"
BATCH_SIZE = 32


def write_keras(model, path):
    """Writes a model with its configuration (and optimizer, when compiled) as one `.keras` file."""
    with replacing(path) as temporary:
        model.save(temporary)


def write_saved_model(model, directory, *, batch_size=None, samples=None):
    """Writes a model's inference function as a SavedModel with the signature `serving_default`.

    Inputs and outputs have the names of `Interface`. The folder holds the function and its weights, no Keras
    configuration: TensorFlow, TensorFlow Serving and the TFLite converter read it without this suite.

    Args:
        model: functional or built sequential `keras.Model`.
        directory: folder to write.
        batch_size: B of every input; None leaves it open.
        samples: example inputs that settle open dimensions, or None.

    Raises:
        ValueError: as `Interface` and `Interface.function`.
    """
    write_signatures({SIGNATURE: model}, directory, batch_size=batch_size, samples={SIGNATURE: samples})


def write_signatures(models, directory, *, batch_size=None, samples=None):
    """Writes several models, which may share weights, as one SavedModel with a signature each.

    Args:
        models: {signature: functional or built sequential `keras.Model`}.
        directory, batch_size: as of `write_saved_model`.
        samples: {signature: example inputs or None}, or None.

    Raises:
        ValueError: as `write_saved_model`.
    """
    samples = samples or {}
    functions = {name: Interface(model, samples.get(name)).function(batch_size) for name, model in models.items()}
    module = tf.Module()
    # A signature saves only those variables that the object holds.
    module.model_weights = [weight for model in models.values() for weight in model.weights]
    with replacing(directory) as temporary:
        tf.saved_model.save(module, str(temporary), signatures=functions)


def load_keras(path):
    """Reads a `.keras` file back as a function: inputs of the model's structure -> outputs as NumPy arrays."""
    model = keras.models.load_model(path, compile=False)
    return lambda inputs: predict(model, inputs)


def predict(model, inputs):
    """Outputs of a Keras model as NumPy arrays, in batches of 32.

    `model.predict` puts arrays through an input pipeline which, under deterministic operations, logs an error a call;
    `model.predict_on_batch` makes an iterator a call, whose end may wait for the thread that tunes it.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = tf.data.Dataset.from_tensor_slices((inputs,)).batch(BATCH_SIZE).with_options(options)
    if isinstance(model.distribute_strategy, tf.distribute.ParameterServerStrategy):  # whose workers are busy, or gone
        parts = [model(batch, training=False) for (batch,) in dataset]
    else:
        dataset = model.distribute_strategy.experimental_distribute_dataset(dataset)  # replicas share each batch out
        function = model.make_predict_function()
        batches, num_samples = iter(dataset), len(tf.nest.flatten(inputs)[0])
        parts = [function(batches) for _ in range(-(-num_samples // BATCH_SIZE))]
    return tf.nest.map_structure(lambda *tensors: np.concatenate([t.numpy() for t in tensors]), *parts)


def load_saved_model(directory, signature=SIGNATURE):
    """Reads a SavedModel back as a function: {name: array [N, ...]} -> {name: array [N, ...]}, in batches of 32."""
    loaded = tf.saved_model.load(str(directory))
    function = loaded.signatures[signature]

    def run(inputs):
        num_samples = len(next(iter(inputs.values())))
        parts = [function(**{name: tf.constant(array[start:start + BATCH_SIZE]) for name, array in inputs.items()})
                 for start in range(0, num_samples, BATCH_SIZE)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    run.loaded = loaded  # the variables live as long as this object
    return run
