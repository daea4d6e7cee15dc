"""Embedding of tokens whose table can be the last layer too."""

import tensorflow as tf
import tf_keras as keras

from layers.checking import positive_integer
from layers.naming import NamedOnLoading


@keras.utils.register_keras_serializable("usagi")
class TokenEmbedding(NamedOnLoading, keras.layers.Layer):
    """A vector for each token, times √D, and the logits of tokens from vectors by the same table (Vaswani et al. 2017,
    section 3.4; Press & Wolf 2017, arXiv 1608.05859).

    Call it once with tokens and, to tie the weights, once more with `as_logits=True`.

    Args:
        size: V, tokens that there are.
        features: D.

    Call arguments:
        inputs: int [B, T], or [B, T, D] for logits.
        as_logits: whether to give logits.

    Returns:
        [B, T, D], or logits [B, T, V].

    Raises:
        ValueError: size or features is no positive integer.
    """

    def __init__(self, size, features, **kwargs):
        super().__init__(**kwargs)
        self.size, self.features = positive_integer("size", size), positive_integer("features", features)

    def build(self, input_shape):
        # √D times this has the variance 1, and logits of vectors of variance 1 have it too.
        self.embeddings = self.add_weight(name="embeddings", shape=[self.size, self.features],
                                          initializer=keras.initializers.RandomNormal(stddev=self.features ** -0.5))
        super().build(input_shape)

    def call(self, inputs, as_logits=False):
        if as_logits:
            # Not by matmul: its gradient would make a matrix [V, D] for each row of the batch, and then their sum.
            return tf.einsum("btd,vd->btv", inputs, self.embeddings)
        return tf.gather(self.embeddings, inputs) * self.features ** 0.5

    def get_config(self):
        return {**super().get_config(), "size": self.size, "features": self.features}


@keras.utils.register_keras_serializable("usagi")
class PaddingMask(keras.layers.Layer):
    """True where a token is none of padding: int [B, T] -> bool [B, T]."""

    def call(self, inputs):
        return tf.not_equal(inputs, 0)
