"""TD(lambda): values of the states under a given policy (Sutton 1988; Sutton & Barto 2018, chapter 12).

The forward view moves V(S_t) towards the lambda-return; the backward view carries traces. Off-line, with all changes
made after the episode, the two make the same changes (Sutton & Barto 1998, section 7.4). N learners, S states, A
actions, T steps.
"""

import dataclasses
import typing

import numpy as np
import tensorflow as tf

from apps.reinforcement import exploration
from apps.reinforcement.environments.environment import fold, split, uniform
from apps.reinforcement.tabular import TRACES, check
from apps.reinforcement.temporal_difference import mark
from layers.checking import unknown_name

VIEWS = ("forward", "backward", "online")


@dataclasses.dataclass(frozen=True)
class Options:
    """What is learned and how.

    Attributes:
        view: "forward" and "backward" change the values after each episode, "online" at every step.
        discount: of the return, 0 to 1.
        trace_decay: lambda, 0 to 1.
        step_size: above 0.
        traces: "accumulating" or "replacing" (not forward, which has none).
        initial_value: of every state at the beginning.
        num_learners: N.
    """

    view: str = "online"
    discount: float = 1.0
    trace_decay: float = 0.9
    step_size: float = 0.1
    traces: str = "accumulating"
    initial_value: float = 0.0
    num_learners: int = 1

    def __post_init__(self):
        for kind, name, known in (("view", self.view, VIEWS), ("kind of traces", self.traces, TRACES)):
            if name not in known:
                raise unknown_name(kind, name, known)
        for name in ("discount", "trace_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be 0 to 1; received {getattr(self, name)}.")
        if self.step_size <= 0:
            raise ValueError(f"step_size must be above 0; received {self.step_size}.")
        if self.view == "forward" and self.traces != "accumulating":
            raise ValueError("The forward view has no traces to replace; take traces='accumulating', whose changes are "
                             f"the same. Received {self.traces!r}.")


class State(typing.NamedTuple):
    """All that a learner has to know to go on exactly."""

    values: tf.Tensor  # float64 [N, S]
    episode: tf.Tensor  # int32
    seed: tf.Tensor  # int32 [2]


class Episode(typing.NamedTuple):
    """What happened to N learners, T steps; after its end a learner's rows do not count."""

    places: tf.Tensor  # int32 [T + 1, N]
    rewards: tf.Tensor  # float64 [T, N]
    ended: tf.Tensor  # bool [T, N]: the step led to a terminal state
    counts: tf.Tensor  # bool [T, N]: the step was taken


def learn(environment, policy, options, seed=0, *, num_episodes, state=None):
    """Learns the values of a policy for a number of episodes.

    Args:
        environment: `Environment` with numbered states and actions, and a limit of steps.
        policy: probabilities [S, A].
        options: `Options`.
        seed: of everything random.
        num_episodes: how many, each learner.
        state: that an earlier call returned, to go on from exactly; then `seed` is not used.

    Returns:
        (values, float64 [num_episodes, N, S], after each episode; `State` of arrays).

    Raises:
        ValueError: no numbered states or actions, or no limit of steps.
    """
    if state is None:
        state = begin(environment, options, seed)
    found = program(environment, policy, options, num_episodes)(State(*map(tf.convert_to_tensor, state)))
    return found.values.numpy(), State(*(part.numpy()[-1] for part in found))


def begin(environment, options, seed):
    """The `State` before the first episode."""
    check(environment)
    shape = [options.num_learners, environment.observation_spec.num_values]
    return State(tf.fill(shape, tf.constant(options.initial_value, tf.float64)), tf.constant(0),
                 tf.constant([seed, 0], tf.int32))


def program(environment, policy, options, num_episodes):
    """Compiles `num_episodes` episodes: State -> State with a first axis of episodes, as they were after each."""
    check(environment)
    chances = tf.constant(policy, tf.float64)

    @tf.function(jit_compile=True)
    def episodes(state):
        def one(state, _):
            happened = play(environment, chances, fold(state.seed, state.episode), state.values.shape[0])
            return state._replace(values=CHANGED[options.view](options, state.values, happened),
                                  episode=state.episode + 1)

        return tf.scan(one, tf.range(num_episodes), state)

    return episodes


def play(environment, chances, seed, number):
    """One `Episode` of `number` learners, as long as the environment's limit, by probabilities [S, A]."""
    seeds = split(seed, 2)
    world = environment.initial(number, seeds[0])

    def step(carry, time):
        world, place, is_over, *_ = carry
        seeds = split(fold(seed, time), 2)
        action = exploration.choose(tf.gather(chances, place), uniform([number], seeds[1]))
        world, reward, ended = environment.dynamics(world, action, seeds[0])
        after = environment.observe(world)
        return world, after, is_over | ended, tf.cast(reward, tf.float64), ended & ~is_over, ~is_over

    nothing = tf.zeros([number], tf.bool)
    first = environment.observe(world)
    _, places, _, rewards, ended, counts = tf.scan(
        step, tf.range(environment.max_steps),
        (world, first, nothing, tf.zeros([number], tf.float64), nothing, nothing))
    return Episode(tf.concat([first[None], places], axis=0), rewards, ended, counts)


def lambda_returns(rewards, discounts, values, trace_decay):
    """G_t = r + d ((1 - lambda) V + lambda G_{t+1}), [T, N], of what follows each step (equation 12.2, recursively).

    Args:
        rewards, discounts: [T, N]; a discount of 0 ends an episode.
        values: [T, N], of the states after each step; the last one stands for what comes after.
        trace_decay: lambda.
    """
    def back(ahead, item):
        reward, discount, value = item
        return reward + discount * ((1 - trace_decay) * value + trace_decay * ahead)

    return tf.scan(back, (rewards, discounts, values), values[-1], reverse=True)


def forward(options, values, happened):
    """Values [N, S] after an `Episode`, each moved by step_size x (lambda-return - value) for each of its visits.

    The return ends where the episode does; a cut one goes on with the value of its last state.
    """
    shown = _values_at(values, happened.places)
    ahead = tf.where(happened.ended, tf.zeros_like(shown[1:]), shown[1:])
    discounts = tf.where(happened.ended, tf.zeros_like(ahead), options.discount * tf.ones_like(ahead))
    # A step that was not taken: the return stays the value of the state that a cut episode ended in.
    rewards = tf.where(happened.counts, happened.rewards, shown[:-1])
    discounts = tf.where(happened.counts, discounts, tf.zeros_like(discounts))
    errors = lambda_returns(rewards, discounts, ahead, options.trace_decay) - shown[:-1]
    changes = options.step_size * tf.where(happened.counts, errors, tf.zeros_like(errors))
    rows = tf.broadcast_to(tf.range(values.shape[0]), happened.places[:-1].shape)
    return tf.tensor_scatter_nd_add(values, tf.stack([rows, happened.places[:-1]], axis=2), changes)


def backward(options, values, happened):
    """The same by traces; the values that errors are made of stay as they were before the episode."""
    return _by_traces(options, values, happened, is_online=False)


def online(options, values, happened):
    """The same with values that change at every step (section 12.2, and 12.7 for replacing traces)."""
    return _by_traces(options, values, happened, is_online=True)


CHANGED = {"forward": forward, "backward": backward, "online": online}


def _by_traces(options, values, happened, is_online):
    rows = tf.range(values.shape[0])

    def step(carry, item):
        learned, traces = carry
        place, after, reward, ended, counts = item
        known = learned if is_online else values
        ahead = tf.where(ended, tf.zeros_like(reward), tf.gather(known, after, batch_dims=1))
        error = reward + options.discount * ahead - tf.gather(known, place, batch_dims=1)
        traces = mark(options.discount * options.trace_decay * traces, tf.stack([rows, place], axis=1), options.traces)
        change = options.step_size * tf.where(counts, error, tf.zeros_like(error))
        return learned + change[:, None] * traces, traces

    items = (happened.places[:-1], happened.places[1:], happened.rewards, happened.ended, happened.counts)
    carry = (values, tf.zeros_like(values))
    length = happened.rewards.shape[0]
    return tf.while_loop(lambda time, _: time < length,
                         lambda time, carry: (time + 1, step(carry, [part[time] for part in items])),
                         (tf.constant(0), carry))[1][0]


def _values_at(values, places):
    """[T + 1, N] of values [N, S] at places [T + 1, N]."""
    return tf.transpose(tf.gather(values, tf.transpose(places), batch_dims=1))


def root_mean_square(values, truth, states):
    """Error [...] of values [..., S] over the listed states, as in figure 12.3."""
    return np.sqrt(np.mean((np.asarray(values)[..., states] - np.asarray(truth)[states]) ** 2, axis=-1))
