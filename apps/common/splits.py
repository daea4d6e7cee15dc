"""Data as a pure function of (seed, epoch, step): the contract between an application's data and its training.

A `Stream` is a factory of `tf.data.Dataset`s, because a parameter server's workers build their own. Which examples
stand in global step `s`, in which order, and how they are augmented follows from the seed and `s` alone; so a run that
starts at any step sees what an uninterrupted run saw, and N workers together see what one sees.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

# Named, since "auto" asks the device: then numbers differ between devices, and deterministic mode reads no batch ahead
# because it takes the question for a state.
_GENERATOR = "philox"
_PARALLEL_CALLS = min(16, os.cpu_count() or 1)  # batches in the making
_PREFETCHED = 4  # batches ready


@dataclasses.dataclass(frozen=True)
class Stream:
    """One split of a data set.

    Attributes:
        num_examples: number of examples.
        batch_size: examples a step, over all workers.
        make: `make(input_context, start_step, turn) -> tf.data.Dataset` of `(inputs, targets)` batches. Workers of one
            step each take their rows of its batch, as `input_context` says. Workers that take turns with the steps each
            take every n-th step, beginning with the i-th from `start_step`: turn = (i, n).
        with_teacher: of a training stream, `with_teacher(logits) -> Stream`: targets become {"targets": ..., "teacher":
            the example's row of logits [N, ...]}.
        examples: of a training stream, `examples(index, key) -> (inputs, targets)`: those of numbers int64 [B],
            augmented by the noise of key, int64 [2].
        relative_costs: of a training stream whose batches differ in length: `relative_costs(count) -> float [count]`,
            what the first batches cost in units of the mean one of an epoch; None: all cost the same.
    """

    num_examples: int
    batch_size: int
    make: Callable[[tf.distribute.InputContext | None, int, tuple], tf.data.Dataset]
    is_training: bool = False
    with_teacher: Callable[[np.ndarray], "Stream"] | None = None
    examples: Callable[[tf.Tensor, tf.Tensor], tuple] | None = None
    relative_costs: Callable[[int], np.ndarray] | None = None

    @property
    def steps_per_epoch(self):
        """Full batches an epoch in training (the rest falls to other epochs' shuffles); all batches otherwise."""
        if self.is_training:
            return self.num_examples // self.batch_size
        return -(-self.num_examples // self.batch_size)

    def __call__(self, input_context=None, start_step=0, turn=(0, 1)):
        return _with_options(self.make(input_context, start_step, turn))


@dataclasses.dataclass(frozen=True)
class Splits:
    """What `data.load(config)` returns. `validation` is None when nothing was set aside; `spec` belongs to the app."""

    train: Stream
    validation: Stream | None
    test: Stream
    spec: Any


def training_stream(num_examples, batch_size, seed, fetch, *, num_noise=0):
    """Endless, shuffled, augmented batches.

    Args:
        num_examples: examples in the split.
        batch_size: examples a step over all workers; at most `num_examples`.
        seed: seed of order and augmentation.
        fetch: `fetch(index, noise) -> (inputs, targets)` in TensorFlow operations. index: int64 [B], the examples of
            this worker's rows; noise: float32 [B, num_noise], uniform in [0, 1), the only randomness it may use.
        num_noise: random numbers that `fetch` needs for each row.

    Returns:
        a `Stream`.
    """
    if not 1 <= batch_size <= num_examples:
        raise ValueError(f"--batch_size must be between 1 and the number of training examples, {num_examples}; "
                         f"received {batch_size}. Use a smaller --batch_size or more data.")
    steps_per_epoch = num_examples // batch_size

    def make(input_context, start_step, turn):
        first_row, num_rows = rows_of_worker(input_context, batch_size)
        start_epoch, start_in_epoch = divmod(start_step, steps_per_epoch)

        def batches_of(epoch):
            order = tf.random.experimental.stateless_shuffle(tf.range(num_examples, dtype=tf.int64), seed=[seed, epoch],
                                                             alg=_GENERATOR)
            first = tf.where(tf.equal(epoch, start_epoch), tf.constant(start_in_epoch, tf.int64), 0)
            return tf.data.Dataset.range(first, steps_per_epoch).map(lambda step: (rows_at(order, step), epoch, step))

        def rows_at(order, step):
            begin = step * batch_size + first_row
            return tf.ensure_shape(order[begin:begin + num_rows], [num_rows])

        def fetch_rows(index, epoch, step):
            # Drawn for the whole global batch and then cut: a row's noise does not depend on how rows are shared out.
            # The odd constant keeps this stream apart from the shuffle's, which is keyed by (seed, epoch).
            key = tf.stack([tf.constant(seed ^ 0x5DEECE66D, tf.int64), epoch * steps_per_epoch + step])
            noise = tf.random.stateless_uniform([batch_size, num_noise], key, alg=_GENERATOR)
            return fetch(index, noise[first_row:first_row + num_rows])

        epochs = tf.data.Dataset.range(start_epoch, 2**62)
        batches = epochs.flat_map(batches_of)
        index, number = turn
        if number > 1:
            batches = batches.shard(number, index)
        dataset = batches.map(fetch_rows, num_parallel_calls=_PARALLEL_CALLS, deterministic=True)
        return dataset.prefetch(_PREFETCHED)

    def with_teacher(logits):
        with tf.device("CPU:0"):  # where tf.data runs
            rows = tf.constant(logits)

        def fetch_both(index, noise):
            inputs, targets = fetch(index, noise)
            return inputs, {"targets": targets, "teacher": tf.gather(rows, index)}

        return training_stream(num_examples, batch_size, seed, fetch_both, num_noise=num_noise)

    def examples(index, key):
        return fetch(index, tf.random.stateless_uniform([tf.size(index), num_noise], key, alg=_GENERATOR))

    return Stream(num_examples, batch_size, make, is_training=True, with_teacher=with_teacher, examples=examples)


def bucketed_stream(group, batch_size, seed, fetch, *, costs=None):
    """As `training_stream`, but a batch is of one group, so that its examples have about one length.

    Args:
        group: int [N], the group of each example, from 0; each has at least a batch.
        batch_size, seed: as of `training_stream`.
        fetch: `fetch(index, group) -> (inputs, targets)`; index int64 [B], group a scalar.
        costs: float [G], what a batch of each group costs, in any unit; None: all the same.

    Returns:
        a `Stream`. What is left of a group after its last full batch falls to other epochs' shuffles.
    """
    num_examples, sizes = len(group), np.bincount(group)
    if sizes.min() < batch_size:
        raise ValueError(f"Each group needs a batch of {batch_size} examples; received one with {sizes.min()}. Use a "
                         "smaller --batch_size or fewer --buckets.")
    first = np.cumsum(sizes) - sizes
    # Where each batch of an epoch begins among the examples in the order of their groups, and its group.
    begins = np.concatenate([f + np.arange(size // batch_size) * batch_size for f, size in zip(first, sizes)])
    groups = np.repeat(np.arange(len(sizes)), sizes // batch_size)
    steps_per_epoch = len(begins)

    def batches_at(epoch):
        return tf.random.experimental.stateless_shuffle(tf.range(steps_per_epoch, dtype=tf.int64),
                                                        seed=[seed ^ 0x2545F491, epoch], alg=_GENERATOR)

    def relative_costs(count):
        epochs = range(-(-count // steps_per_epoch))
        each = np.asarray(costs, float)[groups]
        return np.concatenate([each[batches_at(epoch).numpy()] for epoch in epochs])[:count] / each.mean()

    def make(input_context, start_step, turn):
        first_row, num_rows = rows_of_worker(input_context, batch_size)
        start_epoch, start_in_epoch = divmod(start_step, steps_per_epoch)

        def batches_of(epoch):
            shuffled = tf.random.experimental.stateless_shuffle(tf.range(num_examples, dtype=tf.int64),
                                                                seed=[seed, epoch], alg=_GENERATOR)
            order = tf.gather(shuffled, tf.argsort(tf.gather(tf.constant(group), shuffled), stable=True))
            batches = batches_at(epoch)
            start = tf.where(tf.equal(epoch, start_epoch), tf.constant(start_in_epoch, tf.int64), 0)
            return tf.data.Dataset.range(start, steps_per_epoch).map(lambda step: rows_at(order, batches[step]))

        def rows_at(order, batch):
            begin = tf.gather(tf.constant(begins, tf.int64), batch) + first_row
            return tf.ensure_shape(order[begin:begin + num_rows], [num_rows]), tf.gather(tf.constant(groups), batch)

        batches = tf.data.Dataset.range(start_epoch, 2**62).flat_map(batches_of)
        index, number = turn
        if number > 1:
            batches = batches.shard(number, index)
        dataset = batches.map(fetch, num_parallel_calls=_PARALLEL_CALLS, deterministic=True)
        return dataset.prefetch(_PREFETCHED)

    return Stream(steps_per_epoch * batch_size, batch_size, make, is_training=True,
                  relative_costs=None if costs is None else relative_costs)


def evaluation_stream(num_examples, batch_size, fetch):
    """All examples once, in order. `fetch(index) -> (inputs, targets)`; the last batch may be smaller.

    Several workers share each batch out, also the last one, of which some may have no row: all make the same steps.
    """

    def make(input_context, start_step, turn):
        index, number = turn
        pipeline, pipelines = 0, 1
        if input_context is not None:
            pipeline, pipelines = input_context.input_pipeline_id, input_context.num_input_pipelines

        def batch(start):
            rows = tf.minimum(num_examples - start, batch_size)
            return fetch(tf.range(start + rows * pipeline // pipelines, start + rows * (pipeline + 1) // pipelines))

        starts = tf.data.Dataset.range((start_step + index) * batch_size, num_examples, number * batch_size)
        return starts.map(batch, num_parallel_calls=_PARALLEL_CALLS, deterministic=True).prefetch(_PREFETCHED)

    return Stream(num_examples, batch_size, make)


def rows_of_worker(input_context, batch_size):
    """(first row, number of rows) of each global batch that belong to this worker."""
    if input_context is None:
        return 0, batch_size
    pipelines = input_context.num_input_pipelines
    if batch_size % pipelines:
        raise ValueError(f"--batch_size must be divisible by the {pipelines} workers; received {batch_size}.")
    share = batch_size // pipelines
    return input_context.input_pipeline_id * share, share


def _with_options(dataset):
    options = tf.data.Options()
    # The thread that tunes a pipeline wakes up after 10 ms, 20 ms, 40 ms, … up to a minute, and an iterator that is
    # dropped may have to wait for it.
    options.autotune.enabled = False
    # Rows are shared out above; TensorFlow must not share them out a second time.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
