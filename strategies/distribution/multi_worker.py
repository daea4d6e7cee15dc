"""Synchronous data parallelism over processes, on one machine or several, as `TF_CONFIG` describes them."""

import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context as eager_context

from strategies import cluster
from strategies.copying import copy_model
from strategies.distribution import segments
from strategies.distribution.micro_batches import micro_batches
from strategies.distribution.peers import Peers, lost_peers
from strategies.distribution.sharing import check_batch, synchronized_batch_norm

_HEARTBEAT_SECONDS = 5  # after which a process that was killed is missed


class MultiWorker:
    """Replicas in several processes (`tf.distribute.MultiWorkerMirroredStrategy`), on all accelerators of each.

    Args:
        micro_batches: parts in which each replica takes its share of a batch.
        synchronize_batch_norm: batch normalisation takes its statistics over the batch of all replicas.
        cluster_timeout: seconds after which a process that does not come, or does not answer, is an error.

    Raises:
        ValueError: `TF_CONFIG` is missing or malformed, or the port of this process is in use.
        ClusterError: other processes do not come.
    """

    compiles = False  # XLA has no collective operations between processes
    refuses = {}
    sees_steps = True

    def __init__(self, *, micro_batches=1, synchronize_batch_norm=False, cluster_timeout=60.0):
        own = cluster.read(["worker"])
        cluster.meet(own, cluster_timeout)
        with cluster.deadline(cluster_timeout):
            self._strategy = _connect(own, cluster_timeout)
        self.peers = Peers(self._strategy, own)
        self._parts, self._synchronize_batch_norm = micro_batches, synchronize_batch_norm

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
        """As `Single.fit`. Each process reads its own rows of each global batch.

        Raises:
            ClusterError: another process is gone or silent.
        """
        def rows_of(stream, step=0):
            def of_worker(context):
                return _in_parts(stream(context, step), context.num_replicas_in_sync // context.num_input_pipelines)

            return self._strategy.distribute_datasets_from_function(of_worker)

        with synchronized_batch_norm(model, self._synchronize_batch_norm), micro_batches(model, self._parts), \
                lost_peers():
            return segments.fit(model, lambda step: rows_of(train, step), train.steps_per_epoch,
                                start_step=start_step, total_steps=total_steps,
                                validation=None if validation is None else rows_of(validation),
                                validation_steps=None if validation is None else validation.steps_per_epoch,
                                callbacks=callbacks, verbose=verbose if self.peers.is_chief else 0)

    def gather(self, model):
        """The trained weights as one ordinary model. Statistics that differ between replicas are averaged."""
        return copy_model(model)


def _connect(own, seconds):
    # Not public, and the only way to miss a killed process sooner than after 10 s, and to bound the wait for one that
    # does not come.
    leader = "/job:chief/replica:0/task:0" if "chief" in own.jobs else "/job:worker/replica:0/task:0"
    eager_context.context().configure_coordination_service(
        service_type="standalone", service_leader=leader, cluster_register_timeout_in_ms=int(seconds * 1000),
        heartbeat_timeout_in_ms=_HEARTBEAT_SECONDS * 1000, shutdown_barrier_timeout_in_ms=0,
        coordinated_jobs=[coordination_config_pb2.CoordinatedJob(name=job, num_tasks=len(addresses))
                          for job, addresses in own.jobs.items()])
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=seconds)
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def _in_parts(dataset, number):
    """The batches of a dataset, each as `number` batches: one for each device of this process."""
    if number == 1:
        return dataset

    def parts(*batch):
        def part(i):
            return tf.nest.map_structure(
                lambda t: t[tf.shape(t, tf.int64)[0] * i // number:tf.shape(t, tf.int64)[0] * (i + 1) // number], batch)

        return tf.data.Dataset.range(number).map(part)

    return dataset.flat_map(parts)
