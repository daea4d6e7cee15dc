"""One episode of on-policy Monte-Carlo control for every learner (Sutton & Barto 2018, section 5.4). See `tabular`.

An episode that the limit of steps cuts counts as if it ended there. N learners, S states, A actions, T steps.
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
    is_over: tf.Tensor  # bool
    steps: tf.Tensor  # int32
    was_met: tf.Tensor  # bool [N, S, A]
    record: "_Record"


class _Record(typing.NamedTuple):
    """What happened: TensorArrays of T times [N]."""

    place: tf.TensorArray  # int32
    action: tf.TensorArray  # int32
    reward: tf.TensorArray  # float64; 0 after the end
    counts: tf.TensorArray  # bool: the table learns from this step


def episode(environment, options):
    """tabular.State -> (tabular.State, undiscounted return float64 [N]) after one episode of every learner.

    Args:
        environment: `Environment` with numbered states and actions.
        options: `tabular.Options`.
    """
    def run(state):
        seed = fold(state.seed, state.episode)
        play = tf.while_loop(
            lambda play: (play.time < environment.max_steps) & ~tf.reduce_all(play.is_over),
            lambda play: _move(environment, options, seed, play, state), (_begin(environment, seed, state),))[0]
        values, counts, gained = _learn(options, play, state)
        return state._replace(values=values, counts=counts, steps=play.steps, episode=state.episode + 1), gained

    return run


def _begin(environment, seed, state):
    number, length = state.steps.shape[0], environment.max_steps
    world = environment.initial(number, split(seed, 2)[0])
    record = _Record(*(tf.TensorArray(dtype, length, element_shape=[number], clear_after_read=False)
                       for dtype in (tf.int32, tf.int32, tf.float64, tf.bool)))
    return _Play(tf.constant(0), world, environment.observe(world), tf.zeros([number], tf.bool), state.steps,
                 tf.zeros(state.values.shape, tf.bool), record)


def _move(environment, options, seed, play, state):
    number, seeds = state.steps.shape[0], split(fold(seed, play.time), 2)
    rows = (tf.gather(table, play.place, batch_dims=1) for table in (state.values, state.counts))
    action = exploration.choose(options.chances(*rows, play.steps), uniform([number], seeds[1]))
    world, reward, terminated = environment.dynamics(play.world, action, seeds[0])
    where = tf.stack([tf.range(number), play.place, action], axis=1)
    is_active = ~play.is_over
    counts = is_active & ~tf.gather_nd(play.was_met, where) if options.visits == "first" else is_active
    reward = tf.where(is_active, tf.cast(reward, tf.float64), tf.zeros([number], tf.float64))
    record = _Record(*(array.write(play.time, value)
                       for array, value in zip(play.record, (play.place, action, reward, counts))))
    return (_Play(play.time + 1, world, environment.observe(world), play.is_over | terminated,
                  play.steps + tf.cast(is_active, tf.int32),
                  tf.tensor_scatter_nd_update(play.was_met, where, tf.fill([number], True)), record),)


def _learn(options, play, state):
    """(values, counts, undiscounted return [N]): from the last step to the first."""
    number = state.steps.shape[0]
    nothing = tf.zeros([number], tf.float64)

    def back(time, ahead, gained, values, counts):
        time -= 1
        place, action, reward, is_counted = (array.read(time) for array in play.record)
        ahead, gained = reward + options.discount * ahead, gained + reward
        where = tf.stack([tf.range(number), place, action], axis=1)
        counts = tf.tensor_scatter_nd_add(counts, where, tf.cast(is_counted, tf.int32))
        error = ahead - tf.gather_nd(values, where)
        change = tf.where(is_counted, options.share(tf.gather_nd(counts, where)) * error, nothing)
        return time, ahead, gained, tf.tensor_scatter_nd_add(values, where, change), counts

    *_, gained, values, counts = tf.while_loop(lambda time, *_: time > 0, back,
                                               (play.time, nothing, nothing, state.values, state.counts))
    return values, counts, gained
