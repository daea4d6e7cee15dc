"""Synchronous data parallelism: every replica takes its share of the batch, gradients are summed, all update alike."""

import tensorflow as tf

from strategies.copying import copy_model
from strategies.distribution import devices, segments
from strategies.distribution.micro_batches import micro_batches
from strategies.distribution.peers import Alone
from strategies.distribution.sharing import check_batch, synchronized_batch_norm


class Synchronous:
    """Replicas on the devices of one machine (`tf.distribute.MirroredStrategy`).

    Args:
        num_devices: replicas; 0: one on each accelerator.
        micro_batches: parts in which each replica takes its share of a batch.
        synchronize_batch_norm: batch normalisation takes its statistics over the batch of all replicas.
    """

    compiles = False  # XLA looks for all replicas' variables on the first of several logical devices
    refuses = {}
    sees_steps = True
    peers = Alone()

    def __init__(self, *, num_devices=0, micro_batches=1, synchronize_batch_norm=False):
        names = devices.local_devices(num_devices)
        # On processors the default sum over devices fails with synchronised batch normalisation, and its order is not
        # fixed.
        operations = tf.distribute.ReductionToOneDevice(accumulation_fn=tf.add_n) if names[0].startswith("CPU") \
            else None
        self._strategy = tf.distribute.MirroredStrategy(names, cross_device_ops=operations)
        self._parts = micro_batches
        self._synchronize_batch_norm = synchronize_batch_norm

    @staticmethod
    def obstacle(model):
        """As of `Single`."""
        return ""

    def check(self, model, train):
        """Raises ValueError when the batch cannot be shared out."""
        check_batch(train.batch_size, self._strategy.num_replicas_in_sync, self._parts)

    def scope(self):
        """Context in which the model and its optimizer are built."""
        return self._strategy.scope()

    def fit(self, model, train, *, start_step, total_steps, validation=None, callbacks=(), verbose=1):
        """As `Single.fit`. Keras shares each global batch out: replica i takes the i-th part of its rows."""
        with synchronized_batch_norm(model, self._synchronize_batch_norm), micro_batches(model, self._parts):
            return segments.fit(model, lambda step: train(None, step), train.steps_per_epoch, start_step=start_step,
                                total_steps=total_steps, validation=None if validation is None else validation(),
                                callbacks=callbacks, verbose=verbose)

    def gather(self, model):
        """The trained weights as one ordinary model. Statistics that differ between replicas are averaged."""
        return copy_model(model)
