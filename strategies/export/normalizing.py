"""Layer normalisation for 8 bits: tokens of very different size in one tensor.

    LN(x) = gamma d / sqrt(mean(d^2) + epsilon) + beta,  d = x - mean(x)

In an int8 file the variances of all tokens share 256 codes. The sums that run through a pre-norm Transformer grow from
layer to layer, those of some tokens twenty times as far as of others: 400 times the variance, of which the small ones
are less than one code. So d is first divided by its mean absolute value m, by two factors m^(-1/2), which have a fourth
root of the variances' range:

    m = mean|d| + sqrt(epsilon),  a = m^(-1/2),  y = d a a,  LN(x) = gamma y / sqrt(mean(y^2) + epsilon a^4) + beta

the same function, since epsilon is scaled as d^2 is; and what rounding does to the factors, the second division undoes.
"""

import contextlib

import tensorflow as tf
import tf_keras as keras

from strategies.export.calls import calls_replaced


@contextlib.contextmanager
def in_two_steps(model):
    """Context in which Keras' layer normalisations divide twice (see above). Yields whether there are any.

    A subclass with a call of its own stays as it is.
    """
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.LayerNormalization)
              and type(layer).call is keras.layers.LayerNormalization.call]
    with calls_replaced(layers, _dividing_twice):
        yield bool(layers)


def _dividing_twice(layer):
    def call(inputs):
        def mean(value):
            return tf.reduce_mean(value, axis=layer.axis, keepdims=True)

        def along_axis(weight):
            return tf.reshape(weight, [inputs.shape[axis] if axis in layer.axis else 1
                                       for axis in range(inputs.shape.rank)])

        d = inputs - mean(inputs)
        a = tf.math.rsqrt(mean(tf.abs(d)) + layer.epsilon ** 0.5)
        y, a_squared = d * a * a, a * a
        outputs = y * tf.math.rsqrt(mean(y * y) + layer.epsilon * (a_squared * a_squared))
        if layer.scale:
            outputs *= along_axis(layer.gamma)
        return outputs + along_axis(layer.beta) if layer.center else outputs

    return call
