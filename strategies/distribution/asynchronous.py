"""Asynchronous data parallelism: workers read weights from parameter servers and update them without waiting.

    coordinator (job "chief")   runs the program: builds the model, sends steps to the workers, evaluates, saves
    worker                      computes gradients: `serve`
    ps                          holds the weights and optimizer slots: `serve`

Dean et al. 2012 ("Large Scale Distributed Deep Networks", section 4.1) on `tf.distribute.ParameterServerStrategy`.
"""

import contextlib
import os
import pathlib
import threading
import time

import tensorflow as tf
import tf_keras as keras

from strategies import cluster
from strategies.copying import copy_model
from strategies.distribution import downpour, segments, staleness
from strategies.distribution.peers import Alone

JOBS = ("worker", "ps")
_SMALLEST_PART = 256 << 10  # bytes of a variable on one of several servers
_SLOW_STAGES = 10  # times as long as a step may take what comes before the first one, evaluation and saving


class Asynchronous:
    """Workers and parameter servers in processes of their own, as `TF_CONFIG` describes them; this is the coordinator.

    Args:
        max_staleness: gradients computed on weights that more updates than that have changed since are dropped;
            -1: none are.
        n_push, n_fetch: steps after which a worker sends its gradients, and reads the weights (`downpour`).
        split_weights: whether several servers share out the parts of large weights, rather than whole weights only.
        cluster_timeout: seconds after which a process that does not come, or a cluster that makes no step, is an
            error.

    Raises:
        ValueError: `TF_CONFIG` is missing or malformed, or the port of this process is in use.
        ClusterError: a server does not answer.
    """

    compiles = False  # XLA cannot read weights on a server
    refuses = {}
    sees_steps = sees_rounds = False  # steps end on workers, in any order
    peers = Alone()

    def __init__(self, *, max_staleness=-1, n_push=1, n_fetch=1, cluster_timeout=60.0, split_weights=True):
        own = cluster.read(JOBS)
        if own.job != "chief":
            raise ValueError(f"This process is {own.job} {own.index} of TF_CONFIG, and trains for the coordinator, job "
                             "chief. Call serve() in it.")
        cluster.check_port(own.address)
        cluster.wait_for(own.others, cluster_timeout)
        self._timeout, self._bound = cluster_timeout, None if max_staleness < 0 else max_staleness
        servers = len(own.jobs["ps"])
        partitioner = tf.distribute.experimental.partitioners.MinSizePartitioner(
            min_shard_bytes=_SMALLEST_PART, max_shards=servers) if servers > 1 and split_weights else None
        with cluster.deadline(_SLOW_STAGES * cluster_timeout):
            self._strategy = tf.distribute.ParameterServerStrategy(
                tf.distribute.cluster_resolver.TFConfigClusterResolver(), variable_partitioner=partitioner)
        if self._strategy.num_replicas_in_sync > 1:
            raise ValueError(f"Each worker has {self._strategy.num_replicas_in_sync} accelerators; expected one. Start "
                             "a worker for each of them, with CUDA_VISIBLE_DEVICES set to it.")
        self._num_workers = len(own.jobs["worker"])
        self._n_push, self._n_fetch = n_push, n_fetch

    @staticmethod
    def obstacle(model):
        """As of `Single`."""
        return ""

    def check(self, model, train):
        """Raises ValueError when an epoch is shorter than what a worker does at once."""
        size = downpour.steps_of_closure(self._n_push, self._n_fetch)
        if size > train.steps_per_epoch:
            raise ValueError(f"--n_push={self._n_push} --n_fetch={self._n_fetch}: a worker takes {size} steps at once; "
                             f"an epoch has {train.steps_per_epoch}. Lower them, or --batch_size.")

    def scope(self):
        """Context in which the model and its optimizer are built: their variables are spread over the servers."""
        return self._strategy.scope()

    def fit(self, model, train, *, start_step, total_steps, validation=None, callbacks=(), verbose=1):
        """As `Single.fit`, with --batch_size examples a gradient. Workers take turns with the steps of the stream.

        Callbacks are called at the end of epochs only. A step that a worker did not finish is made again, so there may
        be a few more steps than asked for.

        Raises:
            ClusterError: a parameter server is gone.
        """
        with self._strategy.scope():
            meter = staleness.Meter()
        log = staleness.StalenessLog(meter, self._bound, _writer_beside(callbacks))
        watch = Watch(model, self._timeout)
        model._pss_evaluation_shards = self._num_workers
        size = downpour.steps_of_closure(self._n_push, self._n_fetch)

        def batches_from(closure):
            def of_worker(context):
                turn = tf.distribute.coordinator.experimental_get_current_worker_index(), self._num_workers
                batches = train(None, closure * size, turn)
                return batches if size == 1 else batches.batch(size, drop_remainder=True)

            return keras.utils.experimental.DatasetCreator(of_worker)

        try:
            with contextlib.ExitStack() as changes:
                if size > 1:
                    changes.enter_context(downpour.local_steps(model, self._n_push, self._n_fetch, lambda: note()))
                note = changes.enter_context(staleness.bounded(model, meter, self._bound))
                changes.enter_context(watch)
                return segments.fit(model, batches_from, train.steps_per_epoch // size, start_step=start_step // size,
                                    total_steps=-(-total_steps // size), validation=_in_shards(validation),
                                    callbacks=[watch.callback, log, *callbacks], verbose=verbose and 2)
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.FailedPreconditionError) as error:
            raise cluster.ClusterError("a parameter server is gone, and the weights with it "
                                       f"({cluster.reason(error)}). Start the cluster again: training resumes from its "
                                       "checkpoint.") from error

    def gather(self, model):
        """The trained weights as one ordinary model."""
        return copy_model(model)


class Watch:
    """Ends this process, with the code for another try, when a cluster makes no step for some time.

    The thread that reads the number of steps may itself wait for a server for ever, so another one looks at the clock.
    """

    def __init__(self, model, seconds):
        self._model, self._seconds = model, seconds
        self._ended, self._limit = threading.Event(), _SLOW_STAGES * seconds
        self._moved, self.stepped = time.monotonic(), False
        watch = self

        class Stages(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                watch.stage(1 if watch.stepped else _SLOW_STAGES)

            def on_test_begin(self, logs=None):
                watch.stage(_SLOW_STAGES)

            def on_epoch_end(self, epoch, logs=None):
                watch.stage(_SLOW_STAGES)

        self.callback = Stages()

    def stage(self, factor):
        """From now on `factor` times the seconds may pass without a step."""
        self._moved, self._limit = time.monotonic(), factor * self._seconds

    def __enter__(self):
        for target in (self._read, self._look):
            threading.Thread(target=target, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._ended.set()

    def _read(self):
        last = None
        while not self._ended.wait(1):
            try:
                now = int(self._model.optimizer.iterations.numpy()), int(self._model._test_counter.numpy())
            except tf.errors.OpError:
                continue  # `fit` sees it too
            if last is not None and now != last:
                self._moved = time.monotonic()
                if now[0] != last[0]:
                    self._limit, self.stepped = self._seconds, True
            last = now

    def _look(self):
        while not self._ended.wait(1):
            if time.monotonic() - self._moved > self._limit:
                cluster.give_up(f"the workers have not made a step for {self._limit:g} s (--cluster_timeout="
                                f"{self._seconds:g}). Start the cluster again: training resumes from its checkpoint.")


def serve(cluster_timeout):
    """Works for the coordinator, as the worker or parameter server that `TF_CONFIG` makes of this process.

    Returns when the coordinator has been away for `cluster_timeout` seconds.

    Raises:
        ValueError: `TF_CONFIG` is missing or malformed, or the port of this process is in use.
        ClusterError: the coordinator never came.
    """
    own = cluster.read(JOBS)
    cluster.check_port(own.address)
    if "chief" not in own.jobs:
        raise ValueError("TF_CONFIG names no coordinator: expected its address as job chief.")
    server = tf.distribute.Server(tf.train.ClusterSpec({job: list(a) for job, a in own.jobs.items()}),
                                  job_name=own.job, task_index=own.index, protocol="grpc",
                                  # With one thread, as on a single core, operations wait for each other for ever.
                                  config=tf.compat.v1.ConfigProto(inter_op_parallelism_threads=max(os.cpu_count(), 8)))
    came, last = False, time.monotonic()
    while time.monotonic() - last < cluster_timeout:
        time.sleep(1)
        if cluster.answers(own.chief):
            came, last = True, time.monotonic()
    del server
    if not came:
        raise cluster.ClusterError(f"no answer from the coordinator, {own.chief}, within "
                                   f"--cluster_timeout={cluster_timeout:g} s. Start it, or correct its address.")
    cluster.give_up(f"the coordinator, {own.chief}, has ended or is gone; so does this {own.job}.", code=0)


def _in_shards(validation):
    """The validation stream as Keras shares it out, so that each example is evaluated once."""
    if validation is None:
        return None
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return validation().with_options(options)


def _writer_beside(callbacks):
    """A writer to the folder of the TensorBoard callback, or None."""
    folder = next((callback.log_dir for callback in callbacks if isinstance(callback, keras.callbacks.TensorBoard)),
                  None)
    return None if folder is None else tf.summary.create_file_writer(str(pathlib.Path(folder) / "train"))
