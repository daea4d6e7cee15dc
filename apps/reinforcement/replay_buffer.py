"""Replay buffer: the last steps of B environments, [B, capacity, ...], uniform or prioritised.

All of it is a tuple of tensors that functions take and give back, so that it lives on the device, compiles together
with what fills and reads it, and is saved like any other state. B environments, C capacity, T steps, K sampled rows.
"""

import math
import typing

import tensorflow as tf

from apps.reinforcement.environments.environment import split, uniform
from apps.reinforcement.trajectories import StepType, Trajectory

_FAN_OUT = 32  # children of a node of the sum tree


class State(typing.NamedTuple):
    """What a buffer holds.

    Attributes:
        rows: `Trajectory` [B * C, ...]: row b C + p is place p of environment b.
        count: int32, steps ever added to each environment.
        tree: priorities^alpha [B * C, padded], then sums of 32 of them, and so on up to one number; () where uniform.
        highest: largest priority^alpha that was given, a scalar.
    """

    rows: Trajectory
    count: tf.Tensor
    tree: tuple
    highest: tf.Tensor


class Sample(typing.NamedTuple):
    """Sampled experience.

    Attributes:
        experience: `Trajectory` [K, n + 1, ...]: n steps, and the row after them for its observation.
        index: int32 [K], the first rows' places, for `update_priorities`.
        weight: float32 [K]: importance weights, largest 1; 0 where the first row is a boundary.
    """

    experience: Trajectory
    index: tf.Tensor
    weight: tf.Tensor


class ReplayBuffer:
    """The functions of a buffer of one kind and size.

    Args:
        row: a `Trajectory` [B, ...] of tensors or specs, for shapes and dtypes.
        capacity: C, steps kept of each environment.
        num_steps: n of the returns that are learned from: sampled rows never reach over the write position.
        alpha: exponent of the priorities (Schaul et al. 2016, arXiv 1511.05952, equation 1); 0: uniform.
        longest: largest number of steps T that are added at once.

    Raises:
        ValueError: a capacity that cannot hold a sample.
    """

    def __init__(self, row, capacity, *, num_steps=1, alpha=0.0, longest=1):
        if capacity < num_steps + longest:
            raise ValueError(f"A replay buffer must keep the {num_steps} steps of a return and the {longest} that are "
                             f"added at once, {num_steps + longest} of each environment; received room for {capacity}. "
                             "Raise --replay_capacity.")
        self._row, self.capacity, self.num_steps, self.alpha = row, capacity, num_steps, alpha
        self._batch = tf.nest.flatten(row)[0].shape[0]

    def initial(self):
        """An empty buffer."""
        size = self._batch * self.capacity
        rows = tf.nest.map_structure(lambda part: tf.zeros([size, *part.shape[1:]], part.dtype), self._row)
        tree = ()
        if self.alpha:
            sizes = [size]
            while sizes[-1] > 1:
                sizes.append(math.ceil(sizes[-1] / _FAN_OUT))
            tree = (*(tf.zeros([number * _FAN_OUT]) for number in sizes[1:]), tf.zeros([1]))
        return State(rows, tf.constant(0), tree, tf.constant(1.0))

    def num_frames(self, state):
        """Steps that are in the buffer, over all environments."""
        return tf.minimum(state.count, self.capacity) * self._batch

    def add_batch(self, state, trajectory, accept=True):
        """Adds T steps of each environment over the oldest ones.

        Args:
            state: `State`.
            trajectory: `Trajectory` [B, T, ...], T at most `longest`.
            accept: bool scalar; False leaves the buffer as it is.

        Returns:
            `State`.
        """
        length = trajectory.step_type.shape[1]
        index = self._places(state.count + tf.range(length))

        def write(old, new):
            new = tf.reshape(new, [-1, *new.shape[2:]])
            kept = tf.gather(old, index)
            return tf.tensor_scatter_nd_update(old, index[:, None], tf.where(accept, new, kept))

        after = state._replace(rows=tf.nest.map_structure(write, state.rows, trajectory),
                               count=state.count + tf.where(accept, length, 0))
        if not self.alpha:
            return after
        # Rows can be sampled once the n after them are there, and never where they are a boundary.
        ready = state.count + tf.range(-self.num_steps, length - self.num_steps)
        places = self._places(tf.maximum(ready, 0))
        is_boundary = tf.equal(tf.gather(after.rows.step_type, places), int(StepType.LAST))
        is_ready = tf.tile(ready >= 0, [self._batch]) & ~is_boundary
        newest = self._places(state.count + tf.range(max(length - self.num_steps, 0), length))
        leaves = tf.concat([newest, places], 0)
        values = tf.concat([tf.zeros_like(newest, tf.float32), tf.where(is_ready, state.highest, 0.0)], 0)
        old = tf.gather(state.tree[0], leaves)
        return after._replace(tree=self._updated(state.tree, leaves, tf.where(accept, values, old)))

    def get_next(self, state, number, seed, beta=1.0):
        """Samples `number` rows, with those that their returns need. The buffer must hold more than n steps.

        Args:
            state: `State`.
            number: K.
            seed: int32 [2].
            beta: exponent of the importance weights (Schaul et al. 2016, section 3.4).

        Returns:
            `Sample`.
        """
        seeds = split(seed, 2)
        if self.alpha:
            index, share = self._by_priority(state, number, seeds[0])
            weight = (tf.cast(self.num_frames(state), tf.float32) * share) ** -beta
            weight /= tf.reduce_max(weight)
        else:
            length = tf.minimum(state.count, self.capacity)
            starts = tf.cast(tf.maximum(length - self.num_steps, 1), tf.float32)
            age = tf.cast(uniform([number], seeds[0]) * starts, tf.int32)
            age = tf.minimum(age, length - self.num_steps - 1)
            place = (state.count - length + age) % self.capacity
            environment = tf.cast(uniform([number], seeds[1]) * self._batch, tf.int32)
            index = tf.minimum(environment, self._batch - 1) * self.capacity + place
            is_boundary = tf.equal(tf.gather(state.rows.step_type, index), int(StepType.LAST))
            weight = tf.where(is_boundary, 0.0, 1.0)
        return Sample(self._windows(state, index), index, weight)

    def update_priorities(self, state, index, priority, accept=True):
        """Gives rows the priority |error| of what was learned from them; those that cannot be sampled keep none.

        Args:
            state: `State`.
            index: of `Sample`.
            priority: float [K], not negative.
            accept: as of `add_batch`.
        """
        if not self.alpha:
            return state
        old = tf.gather(state.tree[0], index)
        new = tf.where(accept & (old > 0), (priority + 1e-6) ** self.alpha, old)
        return state._replace(tree=self._updated(state.tree, index, new),
                              highest=tf.maximum(state.highest, tf.reduce_max(new)))

    def gather_all(self, state):
        """All rows in the order of their age, `Trajectory` [B, C, ...]; the first `C - count` are empty before the
        buffer is full."""
        order = (state.count + tf.range(self.capacity)) % self.capacity

        def part(rows):
            return tf.gather(tf.reshape(rows, [self._batch, self.capacity, *rows.shape[1:]]), order, axis=1)

        return tf.nest.map_structure(part, state.rows)

    def _places(self, steps):
        """Rows [B * T] of the steps with these numbers [T]."""
        offsets = tf.range(self._batch) * self.capacity
        return tf.reshape(offsets[:, None] + (steps % self.capacity)[None, :], [-1])

    def _windows(self, state, index):
        base, place = index // self.capacity * self.capacity, index % self.capacity
        window = base[:, None] + (place[:, None] + tf.range(self.num_steps + 1)) % self.capacity
        return tf.nest.map_structure(lambda rows: tf.gather(rows, window), state.rows)

    def _by_priority(self, state, number, seed):
        """(rows [K], probability of each) in proportion to the priorities: one of each K-th of their sum."""
        total = tf.maximum(state.tree[-1][0], 1e-30)
        wanted = (tf.range(number, dtype=tf.float32) + uniform([number], seed)) / number * total
        index = tf.zeros([number], tf.int32)
        for level in reversed(state.tree[:-1]):
            children = tf.gather(tf.reshape(level, [-1, _FAN_OUT]), index)  # [K, 32]
            limits = tf.cumsum(children, axis=1)
            # Rounding must not lead past the last child that has any priority.
            last = _FAN_OUT - 1 - tf.argmax(tf.reverse(children > 0, [1]), axis=1, output_type=tf.int32)
            child = tf.minimum(tf.reduce_sum(tf.cast(limits <= wanted[:, None], tf.int32), axis=1), last)
            wanted -= tf.gather(limits - children, child, batch_dims=1)
            index = index * _FAN_OUT + child
        return index, tf.maximum(tf.gather(state.tree[0], index), 1e-30) / total

    def _updated(self, tree, leaves, values):
        """The tree with new leaves, and the sums above them."""
        levels, index = [tf.tensor_scatter_nd_update(tree[0], leaves[:, None], values)], leaves
        for level in tree[1:]:
            index = index // _FAN_OUT
            sums = tf.reduce_sum(tf.gather(tf.reshape(levels[-1], [-1, _FAN_OUT]), index), axis=1)
            levels.append(tf.tensor_scatter_nd_update(level, index[:, None], sums))
        return tuple(levels)
