"""Who may see whom: masks of attention, and the softmax under them.

Shapes: B batch, Tq queries, Tv values. True = may be seen.
"""

import numpy as np
import tensorflow as tf


def masked_softmax(scores, mask=None, *, floor=None):
    """Softmax over the last axis among the elements that are not masked, in float32 at least.

    Args:
        scores: [..., Tv].
        mask: bool, broadcastable to that, True = may be seen; or None.
        floor: None, or the largest difference between two scores that counts (see the head of `layers.attention`).

    Returns:
        weights like scores; a row without anything to see is 0.
    """
    x = tf.cast(scores, tf.float64 if scores.dtype == tf.float64 else tf.float32)
    if mask is None:
        return tf.cast(tf.nn.softmax(x), scores.dtype)
    if floor is None:
        x = tf.where(mask, x, tf.constant(x.dtype.min, x.dtype))
    else:
        bottom = tf.constant(-floor, x.dtype)
        # The smallest score stands in for masked ones: it is in range, and never above the largest visible one.
        visible = tf.where(mask, x, tf.reduce_min(x, axis=-1, keepdims=True))
        highest = tf.stop_gradient(tf.reduce_max(visible, axis=-1, keepdims=True))
        x = tf.where(mask, tf.maximum(x - highest, bottom), bottom)
    weights = tf.nn.softmax(x)
    if floor is not None or not _each_sees_something(mask):
        weights = tf.where(mask, weights, tf.zeros_like(weights))
    return tf.cast(weights, scores.dtype)


def _each_sees_something(mask):
    """Whether it is known before any data that no row is wholly masked: then masked weights are 0 as they are."""
    known = tf.get_static_value(mask)
    return known is not None and bool(known.any(-1).all())


def spread_mask(mask, rank):
    """A mask [B, Tv] or [B, Tq, Tv] with axes of 1 in it, so that it fits scores [B, ..., Tq, Tv] of that rank.

    Raises:
        ValueError: another rank.
    """
    if mask is None:
        return None
    mask = tf.cast(mask, tf.bool)
    if mask.shape.rank not in (2, 3):
        raise ValueError(f"A mask must be [B, Tv] or [B, Tq, Tv]; received shape {mask.shape}.")
    if mask.shape.rank == 2:
        mask = tf.expand_dims(mask, 1)  # [B, 1, Tv]; not by indexing, which DTensor does not survive
    return mask if rank == 3 else tf.expand_dims(mask, 1)  # [B, 1, Tq or 1, Tv]


def causal_mask(query, value):
    """bool [1, 1, Tq, Tv], True where the value stands no later than the query; a constant where sizes are known."""
    queries, values = query.shape[1], value.shape[1]
    if queries is None or values is None:
        return (tf.range(tf.shape(query)[1])[:, None] >= tf.range(tf.shape(value)[1]))[None, None]
    return tf.constant(np.tri(queries, values, dtype=bool)[None, None])
