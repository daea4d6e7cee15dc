"""Average return and average length of the last episodes, kept up by the compiled program. B environments, T steps."""

import typing

import tensorflow as tf

from apps.reinforcement.trajectories import StepType

WINDOW = 100  # episodes


class State(typing.NamedTuple):
    """Attributes: sums of the episodes under way [B], and a ring of the last 100 that ended; place 100 is waste."""

    running_return: tf.Tensor  # float32 [B]
    running_length: tf.Tensor  # int32 [B]
    returns: tf.Tensor  # float32 [101]
    lengths: tf.Tensor  # int32 [101]
    num_episodes: tf.Tensor  # int32
    num_steps: tf.Tensor  # int64, over all environments, without those from LAST to FIRST


def initial(batch):
    """The `State` before the first step."""
    return State(tf.zeros([batch]), tf.zeros([batch], tf.int32), tf.zeros([WINDOW + 1]),
                 tf.zeros([WINDOW + 1], tf.int32), tf.constant(0), tf.constant(0, tf.int64))


def update(state, trajectory):
    """The `State` after a `Trajectory` [B, T, ...]."""
    is_step = ~trajectory.is_boundary()
    ends = is_step & tf.equal(trajectory.next_step_type, int(StepType.LAST))
    columns = [tf.transpose(part) for part in (trajectory.reward, is_step, ends)]

    def body(t, state):
        reward, stepped, ended = (column[t] for column in columns)
        total = state.running_return + tf.where(stepped, reward, 0.0)
        length = state.running_length + tf.cast(stepped, tf.int32)
        number = tf.cast(ended, tf.int32)
        place = tf.where(ended, (state.num_episodes + tf.cumsum(number) - 1) % WINDOW, WINDOW)[:, None]
        return t + 1, State(
            tf.where(ended, 0.0, total), tf.where(ended, 0, length),
            tf.tensor_scatter_nd_update(state.returns, place, total),
            tf.tensor_scatter_nd_update(state.lengths, place, length),
            state.num_episodes + tf.reduce_sum(number),
            state.num_steps + tf.reduce_sum(tf.cast(stepped, tf.int64)))

    time = trajectory.reward.shape[1]
    return tf.while_loop(lambda t, _: t < time, body, (0, state), maximum_iterations=time)[1]


def average_return(state):
    """Mean return of the last 100 episodes; NaN before the first has ended."""
    return _mean(state.returns, state.num_episodes)


def average_length(state):
    """Mean length of the last 100 episodes; NaN before the first has ended."""
    return _mean(tf.cast(state.lengths, tf.float32), state.num_episodes)


def _mean(ring, number):
    number = tf.minimum(number, WINDOW)
    kept = tf.where(tf.range(WINDOW) < number, ring[:WINDOW], 0.0)
    return tf.reduce_sum(kept) / tf.cast(number, tf.float32)
