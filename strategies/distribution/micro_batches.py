"""A training step in parts: gradients of equal parts of a batch are added up, then there is one update.

With one part after another a step needs the memory of one part (gradient accumulation); with all parts free to overlap,
stages of a model on different devices work on different parts at once (GPipe, Huang et al. 2019, section 2.2). Sum and
update are the same. Batch normalisation sees each part alone, as in the paper.
"""

import contextlib
import copy
import threading

import tensorflow as tf

from strategies.replacing import replaced, trained_by


@contextlib.contextmanager
def micro_batches(model, parts, *, overlap=False):
    """Within it a compiled model trains in `parts` parts of each batch, whatever its `train_step` does, provided it
    updates through its optimizer's `apply_gradients` or `minimize`.

    Args:
        model: compiled `keras.Model`.
        parts: number of parts; the batch of a replica is divisible by it.
        overlap: whether a part may begin before the one before it has ended.
    """
    if parts == 1:
        yield
        return
    whole_step, collector = model.train_step, Collector(model.optimizer)

    def train_step(data):
        counters = counters_of(model)
        before = [tf.identity(counter) for counter in counters]
        sums, finished = None, []
        for index in range(parts):
            with tf.control_dependencies([] if overlap else finished):
                part = tf.nest.map_structure(lambda t, index=index: rows_of_part(t, index, parts), data)
            with as_part(index, parts), collector as pairs:
                metrics = whole_step(part)
            if index < parts - 1:
                for counter, value in zip(counters, before):
                    counter.assign(value)
            gradients, variables = zip(*pairs)
            gradients = [None if g is None else tf.convert_to_tensor(g) for g in gradients]
            sums = gradients if sums is None else [_sum(s, g) for s, g in zip(sums, gradients)]
            finished = [g for g in sums if g is not None]
        model.optimizer.apply_gradients([(None if s is None else s / parts, v) for s, v in zip(sums, variables)])
        return metrics

    with trained_by(model, train_step), collector.attached():
        yield


def counters_of(model):
    """Weights in which layers count steps: a step in parts is one step."""
    return [weight for weight in model.non_trainable_weights if weight.dtype.is_integer]


def rows_of_part(value, index, parts):
    """Rows [index B / parts, (index + 1) B / parts) of a tensor [B, ...]."""
    size = tf.shape(value)[0] // parts
    part = value[index * size:(index + 1) * size]
    if value.shape[0] is not None:
        part.set_shape([value.shape[0] // parts, *value.shape[1:]])
    return part


def _sum(a, b):
    return b if a is None else a if b is None else a + b


class Collector:
    """Within it the optimizer's `apply_gradients` keeps its pairs in the list that is given, and updates nothing.

    In one thread: replicas are threads that share the optimizer.
    """

    def __init__(self, optimizer):
        self._optimizer, self._apply, self._thread = optimizer, optimizer.apply_gradients, threading.local()

    def attached(self):
        """Context in which the optimizer is under its control."""
        return replaced(self._optimizer, apply_gradients=self._apply_or_collect)

    def _apply_or_collect(self, grads_and_vars, *args, **kwargs):
        pairs = getattr(self._thread, "pairs", None)
        if pairs is None:
            return self._apply(grads_and_vars, *args, **kwargs)
        pairs.extend(grads_and_vars)
        return None

    def __enter__(self):
        self._thread.pairs = []
        return self._thread.pairs

    def __exit__(self, *error):
        self._thread.pairs = None


@contextlib.contextmanager
def as_part(index, parts):
    """Lets layers see part `index` of `parts` as a replica's share: so they number its rows in the global batch."""
    own = tf.distribute.get_replica_context()
    if not tf.distribute.has_strategy():  # whose context says 0 whatever it holds
        own = tf.distribute.ReplicaContext(tf.distribute.get_strategy(), 0)
    context = copy.copy(own)
    context._replica_id_in_sync_group = own.replica_id_in_sync_group * parts + index
    context._thread_context = type(own._thread_context)(context)
    with context:
        yield
