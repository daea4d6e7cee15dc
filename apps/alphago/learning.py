"""What a network learns from positions: losses, symmetries, and the stream of batches."""

import itertools

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.alphago.go import features
from apps.common import splits

# After Silver et al. 2017, equation 1, policy and value count alike; the others are there to shape the tower (Wu 2019).
LOSS_WEIGHTS = {"policy": 1.0, "value": 1.0, "ownership": 0.5, "score": 0.02}


def compile_model(model, optimizer, *, jit_compile=False, value_weight=1.0, metrics=None):
    """Compiles a network with the losses of the heads that it has; `value_weight` is that of the value's."""
    losses = {"policy": keras.losses.CategoricalCrossentropy(from_logits=True),
              "value": keras.losses.MeanSquaredError(), "ownership": keras.losses.MeanSquaredError(),
              "score": keras.losses.Huber(delta=10.0)}
    names, weights = list(model.output_names), {**LOSS_WEIGHTS, "value": value_weight}
    model.compile(optimizer, {name: losses[name] for name in names}, jit_compile=jit_compile, metrics=metrics,
                  loss_weights={name: weights[name] for name in names})


def stream(sample, model, *, batch_size, steps, seed):
    """Batches of positions, each under a symmetry of its own, as a `splits.Stream`.

    Args:
        sample: (number, noise) -> (planes [B, N, N, C], {name: [B, ...]}), such as `Replay.sample`.
        model: the network; what it has no head for is left out.
        batch_size: B.
        steps: that count as an epoch.
        seed: with the number of the step it determines a batch.
    """
    names, size = list(model.output_names), model.input_shape[1]
    shapes = {name: model.output_shape[name] for name in names}
    signature = (tf.TensorSpec([None, *model.input_shape[1:]]),
                 {name: tf.TensorSpec([None, *shapes[name][1:]]) for name in names})

    def batch(step):
        noise = np.random.default_rng([seed, step])
        planes, targets = sample(batch_size, noise)
        return turned(size, planes, {name: targets[name] for name in names}, noise.integers(0, 8, batch_size))

    def make(input_context, start_step, turn):
        first, rows = splits.rows_of_worker(input_context, batch_size)
        index, number = turn

        def batches():
            for step in itertools.count(start_step + index, number):
                yield tf.nest.map_structure(lambda part: part[first:first + rows], batch(step))

        return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(2)

    return splits.Stream(num_examples=steps * batch_size, batch_size=batch_size, make=make, is_training=True)


def turned(size, planes, targets, symmetry):
    """Images of positions and of what is to be learned from them, in NumPy.

    Args:
        size: N.
        planes: [B, N, N, C].
        targets: {name: [B, A], [B, N, N, 1] or [B, 1]}; with A = N² or, with a pass, N² + 1.
        symmetry: int [B], 0 to 7; see `features.symmetries`.
    """
    source = features.symmetries(size)[symmetry]  # [B, P + 1]

    def image(values):
        if values.ndim == 4:
            flat = values.reshape(len(values), size * size, -1)
            return np.take_along_axis(flat, source[:, :-1, None], axis=1).reshape(values.shape)
        if values.shape[1] >= size * size:
            return np.take_along_axis(values, source[:, :values.shape[1]], axis=1)
        return values

    return image(planes), {name: image(values) for name, values in targets.items()}
