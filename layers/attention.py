"""Attention: additive (Bahdanau et al. 2015), multiplicative (Luong et al. 2015), multi-head (Vaswani et al. 2017).

    weights = softmax(score(query, value)) over the values that may be seen; output = weights @ values

Shapes: B batch, Tq queries, Tv values (L, the length of a cache, in stepwise decoding), D and D' features, H heads, d
features of a head.

Masks are exact: what stands at a masked position changes no bit of the output, and a query that may see nothing gets 0.

With 8 bits a masked score of -1e38 would leave one code for all others. So the layers here have an attribute
`score_floor`, None in floating point. Where it is a number, scores are taken relative to the largest visible one and
end at -score_floor, which is also what masked ones get: a range known beforehand. Quantisation and the int8 export set
it for as long as they need it (`floored`). Every operator is then one on 8 bits (REDUCE_MIN, REDUCE_MAX, SUB, MAXIMUM,
SELECT_V2, SOFTMAX). Of four heads over 4 to 32 values int8 files were 29 dB above their noise with floors from 8 to 16,
19 dB with 4, and 5 dB without one.
"""

import contextlib

import tensorflow as tf
import tf_keras as keras

from layers.checking import positive_integer, unknown_name
from layers.initialization import GlorotOfMatrix
from layers.masking import causal_mask, masked_softmax, spread_mask
from layers.regularization import StatelessDropout

SCORES = ("dot", "scaled_dot", "general")
SCORE_FLOOR = 16.0  # exp(-16) = 1e-7: a thousand masked values together weigh 1e-4, less than an 8-bit code of 1/256


def set_score_floor(model, floor):
    """Gives all attention layers of a model a score floor, or None. Returns [(layer, floor before), ...]."""
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, _Attention)]
    before = [layer.score_floor for layer in layers]
    for layer in layers:
        layer.score_floor = floor
    return list(zip(layers, before))


@contextlib.contextmanager
def floored(model, floor=SCORE_FLOOR):
    """Context in which the attention layers of a model have this score floor. Yields whether there are any."""
    before = set_score_floor(model, floor)
    try:
        yield bool(before)
    finally:
        for layer, value in before:
            layer.score_floor = value


class _Attention(keras.layers.Layer):
    """What the attention layers share: Keras' implicit masks, and the floor."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.score_floor = None

    def _get_input_masks(self, inputs, input_list, args, kwargs):
        # Where no mask is passed Keras would pass on that of the first argument, the queries.
        if self._call_spec.arg_was_passed("mask", args, kwargs):
            return super()._get_input_masks(inputs, input_list, args, kwargs)
        mask = getattr(args[0] if args else kwargs.get("value"), "_keras_mask", None)
        return mask, mask is not None

    def _combine(self, scores, values, mask, return_weights):
        """Output [B, Tq, D'] of scores [B, Tq, Tv] and values [B, Tv, D']."""
        weights = masked_softmax(scores, spread_mask(mask, 3), floor=self.score_floor)
        output = tf.matmul(weights, values)
        return (output, weights) if return_weights else output


@keras.utils.register_keras_serializable("usagi")
class AdditiveAttention(_Attention):
    """score(q, v) = u . tanh(W q + V v) (Bahdanau et al. 2015, arXiv 1409.0473, section A.1.2).

    Args:
        units: rows of W and V.

    Call arguments:
        query: [B, Tq, D].
        value: [B, Tv, D'].
        mask: bool [B, Tv] or [B, Tq, Tv], True = may be seen; None: the mask that Keras carries with `value`, if any.
        return_weights: whether to return the weights too.

    Returns:
        [B, Tq, D'], and the weights [B, Tq, Tv] if wanted.

    Raises:
        ValueError: units is not a positive integer, or a mask of another rank.
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = positive_integer("units", units)
        options = {"use_bias": False, "dtype": self.dtype_policy}
        self.project_query = keras.layers.Dense(self.units, name="project_query", **options)
        self.project_value = keras.layers.Dense(self.units, name="project_value", **options)
        self.score = keras.layers.Dense(1, name="score", **options)

    def call(self, query, value, mask=None, return_weights=False):
        value = tf.cast(value, self.compute_dtype)
        # Not by indexing: DTensor has no gradient of that.
        sums = tf.expand_dims(self.project_query(query), 2) + tf.expand_dims(self.project_value(value), 1)
        scores = tf.squeeze(self.score(tf.tanh(sums)), -1)  # [B, Tq, Tv, units] -> [B, Tq, Tv]
        return self._combine(scores, value, mask, return_weights)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.utils.register_keras_serializable("usagi")
class MultiplicativeAttention(_Attention):
    """score(q, v) = q . v, or q . v / sqrt(D), or q . W v (Luong et al. 2015, arXiv 1508.04025, section 3.1).

    Args:
        kind: "dot", "scaled_dot" (Vaswani et al. 2017, section 3.2.1) or "general"; D = D' but for the last.

    Call arguments and returns:
        as `AdditiveAttention`.

    Raises:
        ValueError: unknown kind, features that differ where they must not, or a mask of another rank.
    """

    def __init__(self, kind="general", **kwargs):
        super().__init__(**kwargs)
        if kind not in SCORES:
            raise unknown_name("score", kind, SCORES)
        self.kind = kind

    def build(self, query_shape):
        if self.kind == "general":
            self.project_value = keras.layers.Dense(query_shape[-1], use_bias=False, name="project_value",
                                                    dtype=self.dtype_policy)
        super().build(query_shape)

    def call(self, query, value, mask=None, return_weights=False):
        value = tf.cast(value, self.compute_dtype)
        keys = self.project_value(value) if self.kind == "general" else value
        if not query.shape[-1:].is_compatible_with(keys.shape[-1:]):
            raise ValueError(f"score {self.kind!r} needs queries and values with as many features; received "
                             f'{query.shape[-1]} and {value.shape[-1]}. Choose "general", which maps one to the other.')
        if self.kind == "scaled_dot":
            query = query * query.shape[-1] ** -0.5
        return self._combine(tf.matmul(query, keys, transpose_b=True), value, mask, return_weights)

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


@keras.utils.register_keras_serializable("usagi")
class MultiHeadAttention(_Attention):
    """Multi-head attention (Vaswani et al. 2017, arXiv 1706.03762, section 3.2.2).

        head_h = softmax(Q_h K_h^T / sqrt(d)) V_h, with Q_h = query W_h^Q, K_h = value W_h^K, V_h = value W_h^V
        output = concatenation of the heads times W^O

    Weights have the shapes and the order of `keras.layers.MultiHeadAttention`, but begin as `GlorotOfMatrix` has it.
    For stepwise decoding keys and values are kept: `project` computes those of what is known as a whole (the encoder's
    output), `step` writes those of one new position into a cache of static length, and `attend` looks at either.

    Args:
        num_heads: H.
        key_dim: d.
        dropout: probability to drop a weight; the suite's `StatelessDropout`.
        use_bias: whether the four maps have biases, as they have in Keras; in the paper they have not.
        seed: of the dropout; needed when there is one.

    Call arguments:
        query: [B, Tq, D].
        value: [B, Tv, D'].
        mask: bool [B, Tv] or [B, Tq, Tv], True = may be seen; None: the mask that Keras carries with `value`, if any.
        use_causal_mask: whether query i sees values 0 ... i only.
        return_weights: whether to return the weights too, as they are before dropout.
        training: whether to drop.

    Returns:
        [B, Tq, D], and the weights [B, H, Tq, Tv] if wanted.

    Raises:
        ValueError: num_heads or key_dim is no positive integer; dropout or seed out of range; a mask of another rank.
    """

    def __init__(self, num_heads, key_dim, dropout=0.0, *, use_bias=True, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = positive_integer("num_heads", num_heads)
        self.key_dim = positive_integer("key_dim", key_dim)
        self.use_bias, self.seed = bool(use_bias), seed
        self.query, self.key, self.value = (
            self._projection("btd,dhk->bthk", (None, self.num_heads, self.key_dim), "hk", name, 1)
            for name in ("query", "key", "value"))
        # Without dropout no layer: its counter would be a weight that Keras' own layer lacks.
        self.dropout = None
        if dropout:
            self.dropout = StatelessDropout(dropout, seed=seed, name="dropout", dtype=self.dtype_policy)

    def build(self, query_shape):
        self.attention_output = self._projection("bthk,hkd->btd", (None, query_shape[-1]), "d", "attention_output",
                                                 2)
        super().build(query_shape)

    def _projection(self, equation, output_shape, bias_axes, name, input_axes):
        return keras.layers.EinsumDense(equation, output_shape, bias_axes=bias_axes if self.use_bias else None,
                                        kernel_initializer=GlorotOfMatrix(input_axes), name=name,
                                        dtype=self.dtype_policy)

    def call(self, query, value, mask=None, use_causal_mask=False, return_weights=False, training=None):
        keys, values = self.project(value)
        mask = spread_mask(mask, 4)
        if use_causal_mask:
            causal = causal_mask(query, value)
            mask = causal if mask is None else tf.logical_and(mask, causal)
        return self._attend(query, keys, values, mask, return_weights, training)

    def project(self, value):
        """Keys and values [B, Tv, H, d] of `value` [B, Tv, D']."""
        return self.key(value), self.value(value)

    def attend(self, query, keys, values, mask=None, return_weights=False):
        """As a call at inference, with keys and values [B, Tv, H, d] that `project` or `step` gave."""
        return self._attend(query, keys, values, spread_mask(mask, 4), return_weights, False)

    def cache(self, batch_size, length):
        """Keys and values [B, L, H, d] of zeros, for `step`."""
        empty = tf.zeros([batch_size, length, self.num_heads, self.key_dim], self.compute_dtype)
        return empty, empty

    def step(self, query, keys, values, position, mask=None, return_weights=False):
        """Causal self-attention of one new position, at inference.

        Args:
            query: [B, 1, D].
            keys, values: [B, L, H, d], what is known of the positions before; the rest is not looked at.
            position: where the new one is, below L: a scalar or [B], integer.
            mask: bool [B, L], positions that may be seen; or None.
            return_weights: whether to return the weights too.

        Returns:
            output [B, 1, D], keys and values [B, L, H, d] with the new ones, and the weights [B, H, 1, L] if wanted.
        """
        new_keys, new_values = self.project(query)
        keys, values = tf.cast(keys, self.compute_dtype), tf.cast(values, self.compute_dtype)
        places = tf.range(keys.shape[1] or tf.shape(keys)[1])
        position = tf.cast(tf.reshape(position, [-1, 1]), tf.int32)  # [B or 1, 1]
        # A choice, not a scatter: the converter has it with 8 bits too, and the old entries keep their very codes.
        here = tf.equal(places, position)[..., None, None]  # [B or 1, L, 1, 1]
        keys, values = tf.where(here, new_keys, keys), tf.where(here, new_values, values)
        visible = spread_mask(places <= position, 4)
        if mask is not None:
            visible = tf.logical_and(visible, spread_mask(mask, 4))
        output, weights = self._attend(query, keys, values, visible, True, False)
        return (output, keys, values, weights) if return_weights else (output, keys, values)

    def _attend(self, query, keys, values, mask, return_weights, training):
        keys, values = tf.cast(keys, self.compute_dtype), tf.cast(values, self.compute_dtype)
        scores = tf.einsum("bqhk,bvhk->bhqv", self.query(query) * self.key_dim ** -0.5, keys)
        weights = masked_softmax(scores, mask, floor=self.score_floor)  # [B, H, Tq, Tv]
        kept = weights if self.dropout is None else self.dropout(weights, training=training)
        output = self.attention_output(tf.einsum("bhqv,bvhk->bqhk", kept, values))
        return (output, weights) if return_weights else output

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads, "key_dim": self.key_dim,
                "dropout": self.dropout.rate if self.dropout else 0.0, "use_bias": self.use_bias, "seed": self.seed}


@keras.utils.register_keras_serializable("usagi")
class Stepwise(keras.layers.Wrapper):
    """The `step` of a layer as a layer, for functional models of one position, as they are exported.

    In a functional model a bare `step` is taken apart into its operations, and neither export nor quantisation finds
    the attention in it.

    Args:
        layer: a layer with a method `step`; it has been called before, so that it has its weights.

    Call arguments and returns:
        those of `layer.step`, by position.

    Example:
        x, keys, values = Stepwise(encoder_layer)(frame, keys, values, position)
    """

    def call(self, inputs, *states):
        return self.layer.step(inputs, *states)
