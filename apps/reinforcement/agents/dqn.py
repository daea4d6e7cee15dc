"""DQN (Mnih et al. 2015) with double learning, n-step returns and importance weights; dueling is the network's.

K rows of experience, n steps, A actions.
"""

import dataclasses

import tensorflow as tf
import tf_keras as keras

from apps.reinforcement import exploration, losses, policies
from apps.reinforcement.agents.agent import Agent, LossInfo, Rows, compile_network, train_step
from apps.reinforcement.trajectories import StepType
from strategies.copying import copy_model


@dataclasses.dataclass(frozen=True)
class Options:
    """How an agent learns.

    Attributes:
        discount: gamma.
        double: the network that learns chooses the action that the target network values.
        target_period: steps of learning between two updates of the target network.
        target_share: part of the network that an update takes over; 1 in the paper.
        start, end, steps: epsilon of the collect policy goes from `start` to `end` over so many steps of the
            environments.
    """

    discount: float = 0.99
    double: bool = False
    target_period: int = 1
    target_share: float = 1.0
    start: float = 1.0
    end: float = 0.05
    steps: int = 10_000


class ValuesLoss(keras.losses.Loss):
    """`losses.td_loss` of targets [K, 3], columns weight, target, action, and values [K, A]."""

    def __init__(self):
        super().__init__(name="td_loss")

    def call(self, targets, values):
        return targets[:, 0] * losses.td_loss(values, tf.cast(targets[:, 2], tf.int32), targets[:, 1])[0]


def objectives_of():
    """({output: loss}, {output: weight}) with which a network is compiled."""
    return {"q": ValuesLoss()}, {"q": 1.0}


def make(network, optimizer, action_spec, options):
    """An `Agent`.

    Args:
        network: of `networks.q_network`.
        optimizer: of Keras, new.
        action_spec: discrete `Spec`.
        options: `Options`.

    Returns:
        `Agent`. Its `train(experience, weights)` makes one step: experience is `Trajectory` [K, n + 1, ...], weights
        [K]; `extra["td_error"]` [K] is what priorities are made of. Its variables are the target network's weights,
        and `num_steps`, the steps of the environments so far, on which epsilon depends.
    """
    target = copy_model(network)
    objectives, weights = objectives_of()
    compile_network(network, optimizer, objectives, weights)
    num_steps = tf.Variable(0, dtype=tf.int64, trainable=False, name="num_steps")
    epsilon = exploration.schedule("linear", options.start, options.end, max(options.steps, 1))

    def values(observation):
        return network(observation)["q"]

    def rows(experience, importance):
        return rows_of(network, target, options, experience, importance)

    def train(experience, importance):
        batch, error = rows(experience, importance)
        found = train_step(network, objectives, weights, batch)
        now = network.optimizer.iterations
        move_target(network.weights, target.weights, options, now - 1, now)
        return LossInfo(found["q"], {"td_error": error})

    variables = {f"target_{i:04d}": variable for i, variable in enumerate(target.weights)}
    collect = policies.epsilon_greedy(values, action_spec, lambda: epsilon(num_steps))
    return Agent(network, policies.greedy(values, action_spec), collect, train, rows, (),
                 variables | {"num_steps": num_steps})


def rows_of(network, target, options, experience, importance):
    """(`Rows` [K, ...], |error| [K]): what the network is to learn from n-step experience [K, n + 1, ...]."""
    size = experience.reward.shape[1] - 1
    is_last = tf.equal(experience.step_type, int(StepType.LAST))
    discounts = options.discount * experience.discount[:, :size]
    reward, discount, steps = losses.n_step(experience.reward[:, :size], discounts, is_last)
    following = tf.gather(experience.observation, steps, batch_dims=1)
    observation, action = experience.observation[:, 0], experience.action[:, 0]
    ahead = network(following)["q"] if options.double else None
    wanted = losses.q_targets(reward, discount, target(following)["q"], ahead)
    error = losses.td_loss(network(observation)["q"], action, wanted)[1]
    targets = tf.stack([importance, wanted, tf.cast(action, tf.float32)], axis=1)
    return Rows(observation, {"q": tf.stop_gradient(targets)}), tf.abs(error)


def move_target(weights, target, options, before, after):
    """Moves the target network's weights as the steps of learning from number `before` to `after` ask for."""
    due = after // options.target_period - before // options.target_period
    share = 1 - (1 - options.target_share) ** tf.cast(due, tf.float32)
    for old, new in zip(target, weights, strict=True):
        old.assign(old + share * (new - old))
