"""Bandits: problems of one step, whose expected rewards are known, so that regret is exact.

B runs at once, K arms, D numbers of context.
"""

import math
import typing
from collections.abc import Callable

import tensorflow as tf

from apps.reinforcement.environments.environment import Environment, split, uniform
from apps.reinforcement.trajectories import Spec
from layers.checking import unknown_name

REWARDS = ("bernoulli", "gaussian")


class Bandit(typing.NamedTuple):
    """What a bandit is.

    Attributes:
        name: of it.
        num_arms: K.
        num_features: D; contexts without information are one number that is always 1.
        begin: (batch, seed) -> parameters of that many runs, any tensors [B, ...].
        context: (parameters, seed) -> float32 [B, D], of the next visitor.
        means: (parameters, context) -> float32 [B, K], expected reward of each arm.
        rewards: "bernoulli", 0 or 1, or "gaussian", of variance 1.
    """

    name: str
    num_arms: int
    num_features: int
    begin: Callable
    context: Callable
    means: Callable
    rewards: str


def pull(bandit, means, seed):
    """Rewards, float32 [B], of chosen arms with expected rewards [B].

    Raises:
        ValueError: the bandit's kind of rewards is unknown.
    """
    if bandit.rewards == "bernoulli":
        return tf.cast(uniform(means.shape, seed) < means, tf.float32)
    if bandit.rewards == "gaussian":
        return means + gaussian(means.shape, seed)
    raise unknown_name("kind of rewards", bandit.rewards, REWARDS)


def gaussian(shape, seed):
    """Standard normal numbers, float32; by Box and Muller (1958), of which XLA and TensorFlow make the same."""
    first, second = tf.unstack(uniform([2, *shape], seed))
    return tf.sqrt(-2 * tf.math.log(1 - first)) * tf.cos(2 * math.pi * second)


def k_armed(num_arms=10, rewards="gaussian"):
    """Arms without context: the testbed of Sutton & Barto 2018, section 2.3, each run with means of its own.

    Args:
        num_arms: K.
        rewards: "gaussian": means are standard normal; "bernoulli": means are uniform in [0, 1).
    """
    draw = gaussian if rewards == "gaussian" else uniform
    return Bandit("k_armed", num_arms, 1, lambda batch, seed: draw([batch, num_arms], seed),
                  lambda means, seed: tf.ones([means.shape[0], 1]), lambda means, context: means, rewards)


def environment(bandit, *, draw=None):
    """The `Environment` of a bandit: an episode is a visitor, seen by its context, and one action.

    The state is (parameters, context); every episode draws both.
    """
    def initial(batch, seed):
        seeds = split(seed, 2)
        parameters = bandit.begin(batch, seeds[0])
        return parameters, bandit.context(parameters, seeds[1])

    def dynamics(state, action, seed):
        means = tf.gather(bandit.means(*state), tf.cast(action, tf.int32), batch_dims=1)
        return state, pull(bandit, means, seed), tf.ones(means.shape, tf.bool)

    return Environment(bandit.name, Spec((bandit.num_features,), tf.float32),
                       Spec((), tf.int32, 0, bandit.num_arms - 1), initial, dynamics, lambda state: state[1], 1, draw)
