"""What a shared batch asks of a run and of its layers."""

import contextlib
import functools

import tensorflow as tf
import tf_keras as keras

from strategies.replacing import replaced


def check_batch(batch_size, replicas, parts=1):
    """Raises ValueError unless a batch can be shared out evenly over replicas, and each share over parts."""
    if batch_size % (replicas * parts):
        shares = f"{replicas} replicas" if parts == 1 else f"{replicas} replicas × {parts} micro-batches"
        raise ValueError(f"--batch_size={batch_size} cannot be shared out over {shares}. Give a multiple of "
                         f"{replicas * parts}.")


def raise_obstacle(strategy, model):
    """Raises ValueError when a strategy cannot train a model."""
    reason = strategy.obstacle(model)
    if reason:
        raise ValueError(reason)


def batch_norms(model):
    """The batch normalisations of a model, at any depth."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


@contextlib.contextmanager
def synchronized_batch_norm(model, wanted):
    """Within it, where wanted, batch normalisation takes its statistics over the batch of all replicas."""
    with contextlib.ExitStack() as stack:
        for layer in batch_norms(model) if wanted else ():
            stack.enter_context(replaced(layer, synchronized=True, fused=False,  # that kernel knows of one device only
                                         _sync_calculate_mean_and_var=functools.partial(_moments, layer)))
        yield


def _moments(layer, x, axes, keep_dims, mask=None):
    """(mean, variance) over the batch of all replicas, as Keras computes them but for the sum over replicas.

    Args:
        x: [B, ..., C], float32 or float64.
        axes: all but the last, or as the layer's axis says.
        keep_dims: whether the axes stay, with size 1.
        mask: None or bool [B, T]: what counts.
    """
    if tf.distribute.get_replica_context() is None:
        return layer._no_sync_calculate_mean_and_var(x, axes, keep_dims, mask=mask)
    values = tf.ones_like(x), x, tf.square(x)
    if mask is not None:
        values = [value * tf.cast(mask, x.dtype)[..., None] for value in values]
    totals = [tf.reduce_sum(value, axis=axes, keepdims=keep_dims) for value in values]
    count, total, squares = _sum_over_replicas(*totals)
    mean = tf.math.divide_no_nan(total, count)
    return mean, tf.maximum(tf.math.divide_no_nan(squares, count) - tf.square(mean), 0.0)


@tf.custom_gradient
def _sum_over_replicas(*values):
    """Sums of tensors over all replicas; the gradient of such a sum is such a sum.

    TensorFlow's own sum has that gradient too, but where replicas share a graph it looks, at each call, for variables
    behind the values of the other replicas: all of the graph so far, and all of that again at the next call. It passes
    by what has no gradient.
    """
    context = tf.distribute.get_replica_context()
    sums = context.all_reduce(tf.distribute.ReduceOp.SUM, [tf.stop_gradient(value) for value in values])
    return sums, _sum_over_replicas
