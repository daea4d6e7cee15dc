"""One episode of SARSA, expected SARSA or Q-learning for every learner, with or without traces. See `tabular`.

N learners, S states, A actions.
"""

import typing

import tensorflow as tf

from apps.reinforcement import exploration
from apps.reinforcement.environments.environment import fold, split, uniform


class _Play(typing.NamedTuple):
    """An episode under way; [N] each."""

    time: tf.Tensor  # a scalar
    world: typing.Any  # the environment's state
    place: tf.Tensor  # int32
    action: tf.Tensor  # int32, the next one
    is_over: tf.Tensor  # bool
    gained: tf.Tensor  # float64
    traces: typing.Any  # float64 [N, S, A], or () without


def episode(environment, options):
    """tabular.State -> (tabular.State, undiscounted return float64 [N]) after one episode of every learner.

    Args:
        environment: `Environment` with numbered states and actions.
        options: `tabular.Options`.
    """
    def run(state):
        seed = fold(state.seed, state.episode)
        play, state = tf.while_loop(
            lambda play, _: (play.time < environment.max_steps) & ~tf.reduce_all(play.is_over),
            lambda play, state: _move(environment, options, seed, play, state),
            (_begin(environment, options, seed, state), state))
        return state._replace(episode=state.episode + 1), play.gained

    return run


def _begin(environment, options, seed, state):
    number, seeds = state.steps.shape[0], split(seed, 2)
    world = environment.initial(number, seeds[0])
    place = environment.observe(world)
    action = exploration.choose(_chances(options, state, place), uniform([number], seeds[1]))
    return _Play(tf.constant(0), world, place, action, tf.zeros([number], tf.bool), tf.zeros([number], tf.float64),
                 tf.zeros_like(state.values) if options.trace_decay else ())


def _move(environment, options, seed, play, state):
    """(play, state) one step later. Learners whose episode is over neither learn nor count."""
    number, seeds = state.steps.shape[0], split(fold(seed, play.time), 2)
    world, reward, terminated = environment.dynamics(play.world, play.action, seeds[0])
    place, reward = environment.observe(world), tf.cast(reward, tf.float64)
    is_active = ~play.is_over
    state = state._replace(steps=state.steps + tf.cast(is_active, tf.int32))
    chances, numbers = _chances(options, state, place), uniform([number], seeds[1])
    action = exploration.choose(chances, numbers)
    ahead = _ahead(options, tf.gather(state.values, place, batch_dims=1), chances, action)
    target = reward + options.discount * tf.where(terminated, tf.zeros_like(ahead), ahead)
    state, traces = _learn(options, play, state, target, is_active)
    if options.algorithm != "sarsa":  # which alone has used the action that it will take
        action = exploration.choose(_chances(options, state, place), numbers)
    gained = play.gained + tf.where(is_active, reward, tf.zeros_like(reward))
    return _Play(play.time + 1, world, place, action, play.is_over | terminated, gained,
                 _faded(options, traces, state.values, place, action)), state


def _chances(options, state, place):
    rows = (tf.gather(table, place, batch_dims=1) for table in (state.values, state.counts))
    return options.chances(*rows, state.steps)


def _ahead(options, values, chances, action):
    """[N]: what the state that was reached is worth, of its action values and their probabilities [N, A]."""
    if options.algorithm == "q_learning":
        return tf.reduce_max(values, axis=1)
    if options.algorithm == "expected_sarsa":
        return tf.reduce_sum(chances * values, axis=1)
    return tf.gather(values, action, batch_dims=1)


def _learn(options, play, state, target, is_active):
    """(state, traces) after the values have moved towards the target [N]."""
    where = tf.stack([tf.range(target.shape[0]), play.place, play.action], axis=1)
    counts = tf.tensor_scatter_nd_add(state.counts, where, tf.cast(is_active, tf.int32))
    error = target - tf.gather_nd(state.values, where)
    change = tf.where(is_active, options.share(tf.gather_nd(counts, where)) * error, tf.zeros_like(error))
    if not options.trace_decay:
        return state._replace(values=tf.tensor_scatter_nd_add(state.values, where, change), counts=counts), ()
    traces = mark(play.traces, where, options.traces)
    return state._replace(values=state.values + change[:, None, None] * traces, counts=counts), traces


def mark(traces, where, kind):
    """Traces whose entries `where` were just met: one more ("accumulating") or one ("replacing").

    Sutton & Barto 2018, equation 12.5, and section 12.7.
    """
    ones = tf.ones([where.shape[0]], traces.dtype)
    update = tf.tensor_scatter_nd_update if kind == "replacing" else tf.tensor_scatter_nd_add
    return update(traces, where, ones)


def _faded(options, traces, values, place, action):
    """Traces before the next step; those of Q-learning end where the next action is not a best one."""
    if not options.trace_decay:
        return ()
    factor = tf.fill([action.shape[0]], tf.constant(options.discount * options.trace_decay, tf.float64))
    if options.algorithm == "q_learning":
        values = tf.gather(values, place, batch_dims=1)
        is_best = tf.gather(values, action, batch_dims=1) >= tf.reduce_max(values, axis=1)
        factor = tf.where(is_best, factor, tf.zeros_like(factor))
    return traces * factor[:, None, None]
