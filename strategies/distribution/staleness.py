"""Staleness of asynchronous updates: how many others were made between reading the weights and updating them.

A worker reads the number of updates before the weights, and again when its gradient is ready; the difference is the
gradient's staleness (Ho et al. 2013, arXiv 1312.1666, name what it does; Dean et al. 2012, section 4.1, live with it).
Workers do not lock the weights, so an update that lands between the second reading and its own is not counted.
"""

import contextlib
import threading

import tensorflow as tf
import tf_keras as keras

from strategies.replacing import replaced, trained_by

LARGEST = 256  # staleness counted apart; larger ones are counted together


class Meter:
    """Counts on the parameter servers. Make it inside the strategy's scope.

    Attributes:
        counts: int64 [LARGEST + 1], gradients by staleness.
        updates: int64 [], gradients that were applied.
    """

    def __init__(self):
        self.counts = tf.Variable(tf.zeros([LARGEST + 1], tf.int64), trainable=False, name="staleness_counts")
        self.updates = tf.Variable(tf.zeros([], tf.int64), trainable=False, name="staleness_updates")


@contextlib.contextmanager
def bounded(model, meter, largest=None):
    """Within it a compiled model counts each gradient by its staleness, and leaves out those above the bound.

    A gradient that is left out moves neither weights nor slots nor decay; it counts as a step of the run. What this
    gives is a function for a training step that reads the weights again: it notes that, in the graph.

    Args:
        model: compiled `keras.Model`.
        meter: `Meter`.
        largest: largest staleness that is applied; None: any.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    whole_step, in_thread = model.train_step, threading.local()

    def note_fetch():
        in_thread.before = meter.updates.read_value()
        return in_thread.before

    def train_step(data):
        with tf.control_dependencies([note_fetch()]):  # weights are read after it
            return whole_step(data)

    def apply(pairs):
        pairs = list(pairs)
        return tf.distribute.get_replica_context().merge_call(update, [pairs, in_thread.before])

    def update(strategy, pairs, before):
        with tf.control_dependencies([tensor for gradient, _ in pairs for tensor in tf.nest.flatten(
                gradient, expand_composites=True)]):
            stale = meter.updates.read_value() - before

        def keep():
            _decay(optimizer, strategy, [variable for _, variable in pairs])
            optimizer._distributed_apply_gradients_fn(strategy, pairs)
            meter.updates.assign_add(1)
            return tf.constant(True)

        def leave_out():
            optimizer.iterations.assign_add(1)  # the schedule goes on
            return tf.constant(False)

        kept = keep() if largest is None else tf.cond(stale <= largest, keep, leave_out)
        with tf.control_dependencies([kept]):
            meter.counts.assign_add(tf.one_hot(tf.minimum(stale, LARGEST), LARGEST + 1, dtype=tf.int64))
        return optimizer.iterations

    # Decay belongs to the update, and must be left out with it.
    with trained_by(model, train_step), replaced(optimizer, _internal_apply_gradients=apply,
                                                 _apply_weight_decay=lambda variables: None):
        yield note_fetch


def _decay(optimizer, strategy, variables):
    """As Keras' `_apply_weight_decay`, which cannot be called where an update is decided on."""
    if optimizer.weight_decay is None:
        return

    def shrink(variable):
        rate = tf.cast(optimizer.learning_rate, variable.dtype)
        variable.assign_sub(variable * tf.cast(optimizer.weight_decay, variable.dtype) * rate)

    for variable in variables:
        if optimizer._use_weight_decay(variable):
            strategy.extended.update(variable, shrink, group=False)


class StalenessLog(keras.callbacks.Callback):
    """Adds mean and largest staleness and the share of gradients left out to an epoch's logs, and their histogram to
    TensorBoard.

    Args:
        meter: `Meter`.
        largest: bound, or None.
        writer: `tf.summary` writer, or None.
    """

    def __init__(self, meter, largest, writer=None):
        super().__init__()
        self._meter, self._largest, self._writer = meter, largest, writer
        self._before = meter.counts.numpy()

    def on_epoch_end(self, epoch, logs=None):
        total = self._meter.counts.numpy()
        counts, self._before = total - self._before, total
        number = max(int(counts.sum()), 1)
        values = range(LARGEST + 1)
        mean = sum(value * int(count) for value, count in zip(values, counts)) / number
        dropped = 0 if self._largest is None else int(counts[self._largest + 1:].sum())
        logs.update(staleness_mean=mean, staleness_max=max((v for v in values if counts[v]), default=0),
                    dropped_share=dropped / number)
        if self._writer is not None:
            with self._writer.as_default():
                tf.summary.histogram("staleness", tf.repeat(tf.range(LARGEST + 1), counts), epoch)
            self._writer.flush()
