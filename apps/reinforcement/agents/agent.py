"""What an agent is, and how its network learns from rows: in one compiled program, or by `strategy.fit`.

Either way an agent turns experience into rows, inputs [N, ...] and a target [N, k] for each output, and the losses with
which the network was compiled say what is to be learned from them. N rows, M of them in a minibatch, U minibatches.
"""

import typing
from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from apps.reinforcement.environments.environment import uniform
from apps.reinforcement.policies import Policy


class LossInfo(typing.NamedTuple):
    """What `train` gives back: the loss, and {name: scalar} or other tensors beside it."""

    loss: tf.Tensor
    extra: dict


class Rows(typing.NamedTuple):
    """What a network learns from."""

    inputs: tf.Tensor  # [N, ...]
    targets: dict  # {output: float32 [N, k]}


class Agent(typing.NamedTuple):
    """A learner.

    Attributes:
        network: compiled `keras.Model`, whose outputs and losses have the same names.
        policy: `policies.Policy` that takes the best action.
        collect_policy: the one that tries others too.
        train: (experience, ...) -> `LossInfo`; changes the network. Can be compiled together with what collects.
        rows: (experience, ...) -> (`Rows`, what else there is to know): what `train` learns from, for `strategy.fit`.
        reports: names of the scalars in `LossInfo.extra`.
        variables: {name: `tf.Variable`} of the agent, beside the network and its optimizer, for checkpoints.
    """

    network: keras.Model
    policy: Policy
    collect_policy: Policy
    train: Callable
    rows: Callable
    reports: tuple
    variables: dict


def compile_network(network, optimizer, losses, weights):
    """Compiles a network and makes the slots of its optimizer.

    Args:
        network: `keras.Model` with a dictionary of outputs.
        optimizer: of Keras.
        losses: {output: `keras.losses.Loss` of targets [N, k]}.
        weights: {output: number}.
    """
    network.compile(optimizer, losses, loss_weights=weights)
    optimizer.build(network.trainable_variables)


def train_step(network, losses, weights, rows):
    """One step of the optimizer on `Rows`; returns {output: loss} before it. The losses are those of `fit`."""
    with tf.GradientTape() as tape:
        outputs = network(rows.inputs, training=True)
        found = {name: loss(rows.targets[name], outputs[name]) for name, loss in losses.items()}
        total = tf.add_n([weights[name] * value for name, value in found.items()])
    variables = network.trainable_variables
    network.optimizer.apply_gradients(zip(tape.gradient(total, variables), variables))
    return found


def minibatches(num_rows, passes, size, seed):
    """Numbers of the rows of each minibatch, int32 [U, M]: every row once a pass, in a new order each pass.

    What does not fill a minibatch at the end of a pass is left out of it.
    """
    number = num_rows // size
    if number == 1:  # one step takes them all
        return tf.tile(tf.range(num_rows)[None], [passes, 1])
    order = tf.argsort(uniform([passes, num_rows], seed))[:, :number * size]
    return tf.reshape(order, [passes * number, size])


def train_on_rows(network, losses, weights, rows, order, is_on=True):
    """Steps of the optimizer over minibatches of rows.

    Args:
        network, losses, weights: as of `compile_network`.
        rows: `Rows`.
        order: int32 [U, M], of `minibatches`.
        is_on: bool scalar; False makes no step.

    Returns:
        {output: mean loss}.
    """
    number = tf.where(is_on, order.shape[0], 0)

    def body(i, sums):
        batch = tf.nest.map_structure(lambda part: tf.gather(part, order[i]), rows)
        found = train_step(network, losses, weights, batch)
        return i + 1, {name: sums[name] + found[name] for name in sums}

    sums = tf.while_loop(lambda i, _: i < number, body, (0, {name: tf.zeros([]) for name in losses}))[1]
    return {name: value / tf.cast(tf.maximum(number, 1), tf.float32) for name, value in sums.items()}
