"""Learning which arm to pull: epsilon-greedy, UCB1, LinUCB and Thompson sampling, many runs at once, compiled.

Sutton & Barto 2018, chapter 2; Auer et al. 2002; Li et al. 2010; Thompson 1933; Agrawal & Goyal 2013. R runs, K arms,
D numbers of context, T steps.
"""

import dataclasses
import math
import typing

import numpy as np
import tensorflow as tf

from apps.reinforcement import exploration
from apps.reinforcement.environments.bandit import gaussian, pull
from apps.reinforcement.environments.environment import fold, split, uniform
from layers.checking import unknown_name


@dataclasses.dataclass(frozen=True)
class Options:
    """How arms are chosen.

    Attributes:
        algorithm: of `ALGORITHMS`. Without the context: "epsilon_greedy", "ucb", "thompson" (rewards 0 or 1). With a
            linear model of each arm's reward, by ridge regression: "linear_epsilon_greedy", "linucb" (Li et al. 2010,
            algorithm 1), "linear_thompson" (Agrawal & Goyal 2013, algorithm 1, with a model for each arm).
        schedule, start, end, steps: `exploration.schedule` of epsilon.
        width: of the confidence: c of `exploration.upper_confidence`, alpha of LinUCB, v of linear_thompson. The
            default is UCB1's.
        ridge: weight of the prior of the linear models; 1 in the papers.
        initial_value: what an arm never pulled counts as (epsilon_greedy).
        num_runs: R.
    """

    algorithm: str = "epsilon_greedy"
    schedule: str = "constant"
    start: float = 0.1
    end: float = 0.1
    steps: int = 1
    width: float = math.sqrt(2)
    ridge: float = 1.0
    initial_value: float = 0.0
    num_runs: int = 1

    def __post_init__(self):
        if self.algorithm not in ALGORITHMS:
            raise unknown_name("bandit algorithm", self.algorithm, ALGORITHMS)
        if self.width < 0 or self.ridge <= 0:
            raise ValueError("width must be at least 0 and ridge above 0; received "
                             f"{self.width:g} and {self.ridge:g}.")
        exploration.schedule(self.schedule, self.start, self.end, self.steps)


class State(typing.NamedTuple):
    """All that the runs have to know to go on exactly."""

    parameters: typing.Any  # of the bandit
    counts: tf.Tensor  # int32 [R, K]: pulls
    sums: tf.Tensor  # float64 [R, K]: of rewards
    inverse: tf.Tensor  # float64 [R, K, D, D]: (ridge + sum x x^T)^-1
    weighted: tf.Tensor  # float64 [R, K, D]: sum of reward x
    step: tf.Tensor  # int32
    seed: tf.Tensor  # int32 [2]


class Result(typing.NamedTuple):
    """What `learn` gives back; arrays of NumPy."""

    regret: np.ndarray  # float32 [T, R]: expected reward of the best arm less that of the one pulled
    actions: np.ndarray  # int32 [T, R]
    rewards: np.ndarray  # float32 [T, R]
    state: State


def learn(bandit, options, seed=0, *, num_steps, state=None):
    """Pulls arms for a number of steps. `program` saves the compilation where it is called again and again.

    Args:
        bandit: `environments.bandit.Bandit`.
        options: `Options`.
        seed: of everything random.
        num_steps: T.
        state: of a `Result`, to go on from exactly; then `seed` is not used.

    Returns:
        `Result`.

    Raises:
        ValueError: thompson, whose model is of rewards 0 and 1, for another bandit.
    """
    if state is None:
        state = begin(bandit, options, seed)
    state = tf.nest.map_structure(tf.convert_to_tensor, state)
    state, *rows = program(bandit, options, num_steps)(state)
    return Result(*(part.numpy() for part in rows), tf.nest.map_structure(lambda part: part.numpy(), state))


def begin(bandit, options, seed):
    """The `State` before the first pull."""
    runs, arms, features = options.num_runs, bandit.num_arms, bandit.num_features
    seeds = split(tf.constant([seed, 0], tf.int32), 2)
    prior = tf.eye(features, batch_shape=[runs, arms], dtype=tf.float64) / options.ridge
    return State(bandit.begin(runs, seeds[0]), tf.zeros([runs, arms], tf.int32), tf.zeros([runs, arms], tf.float64),
                 prior, tf.zeros([runs, arms, features], tf.float64), tf.constant(0), seeds[1])


def program(bandit, options, num_steps):
    """Compiles `num_steps` pulls: State -> (State, regret, actions, rewards), [T, R] each."""
    if options.algorithm == "thompson" and bandit.rewards != "bernoulli":
        raise ValueError(f"thompson models rewards of 0 and 1; those of {bandit.name} are {bandit.rewards}. Take "
                         "linear_thompson, or a bandit with bernoulli rewards.")

    @tf.function(jit_compile=True)
    def steps(state):
        rows = [tf.TensorArray(dtype, num_steps, element_shape=[options.num_runs])
                for dtype in (tf.float32, tf.int32, tf.float32)]

        def one(number, state, *rows):
            state, *values = _step(bandit, options, state)
            return (number + 1, state, *(row.write(number, value) for row, value in zip(rows, values)))

        _, state, *rows = tf.while_loop(lambda number, *_: number < num_steps, one, (0, state, *rows))
        return (state, *(row.stack() for row in rows))

    return steps


def _step(bandit, options, state):
    """(State, regret [R], actions [R], rewards [R]) of one pull of every run."""
    seeds = split(fold(state.seed, state.step), 4)
    context = bandit.context(state.parameters, seeds[0])
    chances = ALGORITHMS[options.algorithm](options, state, tf.cast(context, tf.float64), seeds[1])
    action = exploration.choose(chances, uniform([options.num_runs], seeds[2]))
    means = bandit.means(state.parameters, context)
    mean = tf.gather(means, action, batch_dims=1)
    reward = pull(bandit, mean, seeds[3])
    state = _updated(state, tf.cast(context, tf.float64), action, tf.cast(reward, tf.float64))
    return state, tf.reduce_max(means, axis=1) - mean, action, reward


def _updated(state, context, action, reward):
    """The state that knows of a reward [R]; inverses by Sherman and Morrison (1950)."""
    where = tf.stack([tf.range(action.shape[0]), action], axis=1)
    inverse = tf.gather_nd(state.inverse, where)
    turned = tf.linalg.matvec(inverse, context)
    less = turned[:, :, None] * turned[:, None, :] / (1 + tf.reduce_sum(turned * context, axis=1))[:, None, None]
    return state._replace(
        counts=tf.tensor_scatter_nd_add(state.counts, where, tf.ones_like(action)),
        sums=tf.tensor_scatter_nd_add(state.sums, where, reward),
        inverse=tf.tensor_scatter_nd_sub(state.inverse, where, less),
        weighted=tf.tensor_scatter_nd_add(state.weighted, where, reward[:, None] * context), step=state.step + 1)


def _means(options, state):
    """Mean reward of every arm, [R, K]."""
    counts = tf.cast(state.counts, tf.float64)
    return tf.where(counts > 0, state.sums / tf.maximum(counts, 1), tf.cast(options.initial_value, tf.float64))


def _linear(state, context):
    """Expected reward of every arm, x^T A^-1 b, and its deviation (x^T A^-1 x)^1/2, [R, K] each."""
    turned = tf.einsum("rkde,re->rkd", state.inverse, context)
    return tf.reduce_sum(turned * state.weighted, axis=2), tf.sqrt(tf.einsum("rkd,rd->rk", turned, context))


def _epsilon(options, state):
    amount = exploration.schedule(options.schedule, options.start, options.end, options.steps)(state.step)
    return tf.fill([state.counts.shape[0]], amount)


def _epsilon_greedy(options, state, context, seed):
    return exploration.probabilities("epsilon_greedy", _means(options, state), state.counts, _epsilon(options, state))


def _ucb(options, state, context, seed):
    return exploration.probabilities("ucb", _means(options, state), state.counts,
                                     tf.fill([state.counts.shape[0]], tf.cast(options.width, tf.float64)))


def _thompson(options, state, context, seed):
    """From Beta(1 + successes, 1 + failures)."""
    return exploration.best(beta(1 + state.sums, 1 + tf.cast(state.counts, tf.float64) - state.sums, seed))


def _linear_epsilon_greedy(options, state, context, seed):
    return exploration.probabilities("epsilon_greedy", _linear(state, context)[0], state.counts,
                                     _epsilon(options, state))


def _linucb(options, state, context, seed):
    mean, deviation = _linear(state, context)
    return exploration.best(mean + options.width * deviation)


def _linear_thompson(options, state, context, seed):
    """x^T theta of theta ~ N(A^-1 b, v^2 A^-1): only this product is needed, and it is normal itself."""
    mean, deviation = _linear(state, context)
    return exploration.best(mean + options.width * deviation * tf.cast(gaussian(mean.shape, seed), tf.float64))


ALGORITHMS = {"epsilon_greedy": _epsilon_greedy, "ucb": _ucb, "thompson": _thompson,
              "linear_epsilon_greedy": _linear_epsilon_greedy, "linucb": _linucb, "linear_thompson": _linear_thompson}


def beta(first, second, seed):
    """Draws of Beta(first, second), float64, of arrays of parameters of at least 1."""
    seeds = split(seed, 2)
    one, other = gamma(first, seeds[0]), gamma(second, seeds[1])
    return one / (one + other)


def gamma(shape, seed):
    """Draws of Gamma(shape, 1), float64, of an array of shapes of at least 1, NaN for others; Marsaglia & Tsang 2000.

    TensorFlow's own does not compile with XLA.
    """
    is_possible = shape >= 1
    d = shape - 1 / 3
    c = 1 / tf.sqrt(9 * d)

    def again(number, drawn, is_done):
        seeds = split(fold(seed, number), 2)
        x = tf.cast(gaussian(shape.shape, seeds[0]), tf.float64)
        v = tf.maximum(1 + c * x, 0) ** 3
        bound = 0.5 * x * x + d - d * v + d * tf.math.log(tf.maximum(v, 1e-300))
        fits = (v > 0) & (tf.math.log(1 - uniform(shape.shape, seeds[1], dtype=tf.float64)) < bound)
        return number + 1, tf.where(is_done, drawn, d * v), is_done | fits

    return tf.while_loop(lambda number, drawn, is_done: ~tf.reduce_all(is_done), again,
                         (0, tf.where(is_possible, tf.zeros_like(shape), math.nan), ~is_possible))[1]
