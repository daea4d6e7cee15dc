"""What training on several devices is compared with: the same shares of a batch one after another on one device."""

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.common import splits


def stream(inputs, targets, batch_size):
    """A training stream over arrays, in the order that the seed gives."""
    x, y = tf.constant(inputs), tf.constant(targets)
    return splits.training_stream(len(inputs), batch_size, 0, lambda index, noise: (tf.gather(x, index),
                                                                                   tf.gather(y, index)))


def train(strategy, build, compile_model, data, *, steps=3, finish=lambda model: model):
    """The plain model that a strategy leaves after `steps` steps."""
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = build()
        compile_model(model)
        model.optimizer.build(model.trainable_variables)
    strategy.fit(model, data, start_step=0, total_steps=steps, verbose=0)
    return strategy.gather(finish(model))


def halves(build, make_optimizer, loss, data, steps=3, shares=2):
    """The oracle of synchronous training: copies of the model on one device take their share of each batch in turn,
    gradients are added, one update serves all. Statistics end as their mean over the copies.

    Args:
        build: () -> model, with the same weights whenever it is called.
        make_optimizer: model -> optimizer.
        loss: function of (targets, outputs), [B].
    """
    models = [build() for _ in range(shares)]
    optimizer = make_optimizer(models[0])
    optimizer.build(models[0].trainable_variables)

    @tf.function
    def step(batch):
        gradients = []
        for index, model in enumerate(models):
            x, y = tf.nest.map_structure(lambda t, i=index: tf.split(t, shares)[i], batch)
            with tf.distribute.ReplicaContext(tf.distribute.get_strategy(), index), tf.GradientTape() as tape:
                value = tf.reduce_mean(loss(y, model(x, training=True))) / shares
                if model.losses:
                    value += tf.add_n(model.losses) / shares
            gradients.append(tape.gradient(value, model.trainable_variables))
        optimizer.apply_gradients([(tf.add_n(parts), v)
                                   for *parts, v in zip(*gradients, models[0].trainable_variables)])
        for model in models[1:]:
            for mine, first in zip(model.trainable_variables, models[0].trainable_variables):
                mine.assign(first)

    for batch in data().take(steps):
        step(batch)
    for variables in zip(*(model.non_trainable_variables for model in models)):
        if variables[0].dtype.is_floating:
            variables[0].assign(tf.add_n([tf.convert_to_tensor(v) for v in variables]) / shares)
    return models[0]


def largest_difference(a, b):
    """Largest difference between the weights of two models, relative to the largest of each weight."""
    return largest_difference_of(a.get_weights(), b.get_weights())


def largest_difference_of(a, b):
    """The same of two lists of arrays."""
    found = 0.0
    for x, y in zip(a, b, strict=True):
        x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
        found = max(found, float(np.max(np.abs(x - y)) / max(np.max(np.abs(x)), 1e-3)))
    return found
