"""The Transformer's layers (Vaswani et al. 2017, arXiv 1706.03762, sections 3.1-3.5).

    post-norm (the paper)       x = norm(x + dropout(f(x)))      f: attention, or d_model -> d_ff -> d_model
    pre-norm (norm_first)       x = x + dropout(f(norm(x)))      Xiong et al. 2020, arXiv 2002.04745, table 1

Pre-norm leaves the sum itself without normalisation: put a `LayerNormalization` behind the last layer of a stack.

Shapes: B batch, T positions (S of an encoder's output, L of a cache), D = d_model, H heads, d = D / H.

Stepwise decoding: call the stack once (it creates the weights), take `cache(batch_size, length)` of each layer, and
give `step` one position after another (in a functional model through `attention.Stepwise`). A decoder without cross
attention, a language model, is `EncoderLayer` with `use_causal_mask`.
"""

import numpy as np
import tensorflow as tf
import tf_keras as keras

from layers.attention import MultiHeadAttention
from layers.checking import positive_integer, unknown_name
from layers.naming import NamedOnLoading
from layers.regularization import StatelessDropout

POSITIONS = ("sinusoidal", "learned")
EPSILON = 1e-6  # of the layer norms, as in the authors' tensor2tensor


@keras.utils.register_keras_serializable("usagi")
class PositionalEncoding(NamedOnLoading, keras.layers.Layer):
    """Adds to each position a vector of its own (section 3.5).

    sinusoidal: PE(t, 2i) = sin(t / 10000^(2i/D)), PE(t, 2i+1) = cos(t / 10000^(2i/D)). learned: a table.

    Args:
        kind: one of `POSITIONS`.
        max_length: positions that there are.

    Call arguments:
        inputs: [B, T, D], T at most max_length.
        position: None, or where the one position of inputs [B, 1, D] stands: scalar or [B], below max_length.

    Returns:
        [B, T, D]

    Raises:
        ValueError: unknown kind, max_length no positive integer, an unknown D, or inputs that are too long.
    """

    def __init__(self, kind="sinusoidal", max_length=512, **kwargs):
        super().__init__(**kwargs)
        if kind not in POSITIONS:
            raise unknown_name("positional encoding", kind, POSITIONS)
        self.kind = kind
        self.max_length = positive_integer("max_length", max_length)
        self.supports_masking = True

    def build(self, input_shape):
        d_model = _known_features(self, input_shape)
        if self.kind == "learned":
            self.embeddings = self.add_weight(name="embeddings", shape=[self.max_length, d_model],
                                              initializer=keras.initializers.RandomNormal(stddev=0.02))
        super().build(input_shape)

    def call(self, inputs, position=None):
        length = inputs.shape[1]
        if length is not None and length > self.max_length:
            raise ValueError(f"PositionalEncoding has max_length={self.max_length} positions; received inputs of "
                             f"{length}. Raise max_length, or cut the sequences.")
        # Only the rows that are used go into an exported file.
        rows = self.max_length if position is not None or length is None else length
        table = self.embeddings[:rows] if self.kind == "learned" else tf.constant(
            sinusoids(rows, inputs.shape[-1]), inputs.dtype)
        if position is not None:
            return inputs + tf.gather(table, tf.reshape(position, [-1]))[:, None]
        return inputs + (table if length is not None else table[:tf.shape(inputs)[1]])

    def get_config(self):
        return {**super().get_config(), "kind": self.kind, "max_length": self.max_length}


def sinusoids(length, features):
    """The encodings of positions 0 ... length - 1, float64 [length, features]."""
    even = np.arange(features) // 2 * 2
    angles = np.arange(length)[:, None] / 10000 ** (even / features)
    return np.where(np.arange(features) % 2 == 0, np.sin(angles), np.cos(angles))


class _TransformerLayer(keras.layers.Layer):
    """What encoder and decoder layers share: sub-layers within residual connections.

    Sub-layers are made in `build`, when D is known, and create their weights when they are first called.
    """

    num_residuals = 2

    def __init__(self, num_heads, d_ff, dropout=0.0, norm_first=False, activation="relu", *, attention_dropout=0.0,
                 use_bias=True, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = positive_integer("num_heads", num_heads)
        self.d_ff = positive_integer("d_ff", d_ff)
        if (dropout or attention_dropout) and seed is None:
            raise ValueError(f"{type(self).__name__} needs a seed for its dropout; received seed=None. Pass a whole "
                             "number, a different one for each layer of a model.")
        self.dropout, self.attention_dropout = float(dropout), float(attention_dropout)
        self.norm_first = bool(norm_first)
        self.activation = keras.activations.get(activation)
        self.use_bias, self.seed = bool(use_bias), seed
        self.supports_masking = True

    def build(self, input_shape):
        d_model = _known_features(self, input_shape)
        if d_model % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} must divide d_model; received inputs with {d_model} features."
                             " Pass a divisor, or map the inputs to another size.")
        # One seed for each mask, from the layer's.
        self._seeds = iter([] if self.seed is None else
                           map(int, np.random.SeedSequence(self.seed).generate_state(8, np.uint64)))
        self._build_attention(d_model // self.num_heads)
        options = {"dtype": self.dtype_policy}
        self.inner = keras.layers.Dense(self.d_ff, self.activation, name="inner", **options)
        self.outer = keras.layers.Dense(d_model, name="outer", **options)
        numbers = range(1, self.num_residuals + 1)
        self.norms = [keras.layers.LayerNormalization(epsilon=EPSILON, name=f"norm{i}", **options) for i in numbers]
        self.sums = [keras.layers.Add(name=f"add{i}", **options) for i in numbers]
        self.dropouts = [StatelessDropout(self.dropout, seed=next(self._seeds), name=f"dropout{i}", **options)
                         for i in numbers] if self.dropout else []
        super().build(input_shape)

    def _attention(self, name, key_dim):
        seed = next(self._seeds) if self.attention_dropout else None
        return MultiHeadAttention(self.num_heads, key_dim, self.attention_dropout, use_bias=self.use_bias, seed=seed,
                                  name=name, dtype=self.dtype_policy)

    def _before(self, index, inputs):
        """What sub-layer `index` sees of `inputs`."""
        inputs = _apart(inputs)
        return self.norms[index](inputs) if self.norm_first else inputs

    def _after(self, index, inputs, outputs, training):
        """The residual connection around sub-layer `index`."""
        if self.dropouts:
            outputs = self.dropouts[index](outputs, training=training)
        outputs = self.sums[index]([inputs, outputs])
        return outputs if self.norm_first else self.norms[index](outputs)

    def _feed_forward(self, index, inputs, training):
        return self._after(index, inputs, self.outer(self.inner(self._before(index, inputs))), training)

    def cache(self, batch_size, length):
        """Keys and values [B, L, H, d] of zeros, for `step`."""
        return self.self_attention.cache(batch_size, length)

    def compute_mask(self, inputs, mask=None):
        return mask if mask is not None and len(mask.shape) == 2 else None

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads, "d_ff": self.d_ff, "dropout": self.dropout,
                "norm_first": self.norm_first, "activation": keras.activations.serialize(self.activation),
                "attention_dropout": self.attention_dropout, "use_bias": self.use_bias, "seed": self.seed}


@keras.utils.register_keras_serializable("usagi")
class EncoderLayer(_TransformerLayer):
    """Self-attention and feed-forward (section 3.1); with a causal mask a layer of a language model.

    Args:
        num_heads: H, a divisor of D.
        d_ff: width of the feed-forward part.
        dropout: on the output of each sub-layer (section 5.4).
        norm_first: pre-norm instead of post-norm.
        activation: of the feed-forward part.
        attention_dropout: on the attention weights.
        use_bias: whether the maps of the attention have biases (those of the feed-forward part have).
        seed: of the dropouts; needed when there is one, and different for each layer of a model.

    Call arguments:
        inputs: [B, T, D].
        mask: bool [B, T], False for padding, or [B, T, T]; None: Keras' own, if any.
        use_causal_mask: whether a position sees itself and what is before it only.
        return_weights: whether to return the attention weights too.
        training: whether to drop.

    Returns:
        [B, T, D], and the weights [B, H, T, T] if wanted.

    Raises:
        ValueError: sizes out of range, a dropout without seed, num_heads that does not divide D.
    """

    def _build_attention(self, key_dim):
        self.self_attention = self._attention("self_attention", key_dim)

    def call(self, inputs, mask=None, use_causal_mask=False, return_weights=False, training=None):
        x = self._before(0, inputs)
        y, weights = self.self_attention(x, x, mask=mask, use_causal_mask=use_causal_mask, return_weights=True,
                                         training=training)
        x = self._feed_forward(1, self._after(0, inputs, y, training), training)
        return (x, weights) if return_weights else x

    def step(self, inputs, keys, values, position, mask=None):
        """One position of a causal layer, at inference: inputs [B, 1, D] -> outputs [B, 1, D], keys, values.

        Arguments as of `MultiHeadAttention.step`.
        """
        y, keys, values = self.self_attention.step(self._before(0, inputs), keys, values, position, mask)
        return self._feed_forward(1, self._after(0, inputs, y, False), False), keys, values


@keras.utils.register_keras_serializable("usagi")
class DecoderLayer(_TransformerLayer):
    """Causal self-attention, attention to an encoder's output (memory), and feed-forward (section 3.1).

    Args:
        as `EncoderLayer`.

    Call arguments:
        inputs: [B, T, D].
        memory: [B, S, D'].
        mask: bool [B, T] or [B, T, T], besides the causal one; None: Keras' own, if any.
        memory_mask: bool [B, S] or [B, T, S]; None: the mask that Keras carries with `memory`, if any.
        return_weights: whether to return the attention weights too.
        training: whether to drop.

    Returns:
        [B, T, D], and the weights [B, H, T, T] and [B, H, T, S] if wanted.

    Raises:
        as `EncoderLayer`.
    """

    num_residuals = 3

    def _build_attention(self, key_dim):
        self.self_attention = self._attention("self_attention", key_dim)
        self.cross_attention = self._attention("cross_attention", key_dim)

    def call(self, inputs, memory, mask=None, memory_mask=None, return_weights=False, training=None):
        if memory_mask is None:
            memory_mask = getattr(memory, "_keras_mask", None)
        x = self._before(0, inputs)
        y, weights = self.self_attention(x, x, mask=mask, use_causal_mask=True, return_weights=True, training=training)
        x = self._after(0, inputs, y, training)
        y, memory_weights = self.cross_attention(self._before(1, x), _apart(memory), mask=memory_mask,
                                                 return_weights=True, training=training)
        x = self._feed_forward(2, self._after(1, x, y, training), training)
        return (x, weights, memory_weights) if return_weights else x

    def project(self, memory):
        """Keys and values [B, S, H, d] of a memory [B, S, D'], for `step`."""
        return self.cross_attention.project(memory)

    def step(self, inputs, keys, values, position, memory_keys, memory_values, memory_mask=None, mask=None):
        """One position, at inference: inputs [B, 1, D] -> outputs [B, 1, D], keys, values.

        Args:
            inputs, keys, values, position, mask: as of `MultiHeadAttention.step`.
            memory_keys, memory_values: what `project` gave.
            memory_mask: bool [B, S], or None.
        """
        y, keys, values = self.self_attention.step(self._before(0, inputs), keys, values, position, mask)
        x = self._after(0, inputs, y, False)
        y = self.cross_attention.attend(self._before(1, x), memory_keys, memory_values, memory_mask)
        return self._feed_forward(2, self._after(1, x, y, False), False), keys, values


def _apart(x):
    """`x`, whose gradients from here on are added up among themselves before others are.

    Through a reshape: sums of sums are else put in an order that TensorFlow's optimisation chooses anew for each graph,
    and replicas could not be compared bit by bit.
    """
    return tf.squeeze(tf.expand_dims(x, 1), 1)


def _known_features(layer, input_shape):
    """D of an input shape [B, T, D]."""
    if len(input_shape) != 3 or input_shape[-1] is None:
        raise ValueError(f"{type(layer).__name__} takes inputs [B, T, D] with a known D; received shape "
                         f"{tuple(input_shape)}.")
    return input_shape[-1]
