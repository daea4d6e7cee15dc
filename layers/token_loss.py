"""Cross-entropy and accuracy of sequences of tokens that end at different places.

B batch, T time, K classes (the vocabulary). Targets are whole numbers [B, T]; number 0 is padding and counts nowhere.
"""

import tensorflow as tf
import tf_keras as keras

from layers.checking import unknown_name

PADDING = 0


@keras.utils.register_keras_serializable("usagi")
class TokenCrossentropy(keras.losses.Loss):
    """Cross-entropy a token, from logits.

    The sum over a row's tokens is divided by `mean_length`, the mean number of tokens a row of the training data, not
    by that of the batch: so the gradient of a batch is the sum of its rows' whoever computes which, and a token counts
    the same in a long row and in a short one.

    Args:
        mean_length: above 0.
        label_smoothing: share of the target spread evenly over all classes (Vaswani et al. 2017, section 5.4).

    Call arguments:
        y_true: int [B, T].
        y_pred: logits [B, T, K].

    Returns:
        mean over the batch, as Keras' `reduction` has it.
    """

    def __init__(self, mean_length, *, label_smoothing=0.0, name="token_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        if not mean_length > 0:
            raise ValueError(f"mean_length must be above 0; received {mean_length!r}.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1; received {label_smoothing!r}.")
        self.mean_length, self.label_smoothing = float(mean_length), float(label_smoothing)

    def token_weights(self, y_true, dtype=tf.float32):
        """What a token weighs in the loss of its row, [B, T]; for losses beside this one."""
        return tf.cast(tf.not_equal(y_true, PADDING), dtype) / self.mean_length

    def call(self, y_true, y_pred):
        logits = _precise(y_pred)
        losses = token_losses(y_true, logits, self.label_smoothing)
        return tf.reduce_sum(losses * self.token_weights(y_true, logits.dtype), axis=1)

    def get_config(self):
        return {**super().get_config(), "mean_length": self.mean_length, "label_smoothing": self.label_smoothing}


@keras.utils.register_keras_serializable("usagi")
class TokenMean(keras.metrics.Metric):
    """Mean over all tokens, padding left out, of what `name` says: "cross_entropy", in nats and without label
    smoothing, or "accuracy", the share of tokens whose largest logit is right.

    Raises:
        ValueError: another name.
    """

    # The name alone makes it: workers of a parameter server build their own from `get_config`.
    def __init__(self, name, **kwargs):
        super().__init__(name=name, **kwargs)
        if name not in _FUNCTIONS:
            raise unknown_name("mean over tokens", name, _FUNCTIONS)
        self._function = _FUNCTIONS[name]
        self.total = self.add_weight(name="total", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        del sample_weight  # padding says what counts
        is_token = tf.not_equal(y_true, PADDING)
        values = tf.where(is_token, tf.cast(self._function(y_true, _precise(y_pred)), self.total.dtype), 0)
        self.total.assign_add(tf.reduce_sum(values))
        self.count.assign_add(tf.reduce_sum(tf.cast(is_token, self.count.dtype)))

    def result(self):
        return tf.math.divide_no_nan(self.total, self.count)


def token_metrics():
    """A `TokenMean` of each kind."""
    return [TokenMean(name) for name in _FUNCTIONS]


def token_losses(y_true, logits, label_smoothing=0.0):
    """Cross-entropy of each token, [B, T]; that of padding too."""
    # With a gradient of its own: with deterministic kernels TensorFlow's has a sum by segments over all logits.
    @tf.custom_gradient
    def losses_of(logits):
        logs = tf.nn.log_softmax(logits)
        losses = -tf.gather(logs, y_true, batch_dims=2)
        if label_smoothing:
            losses = (1 - label_smoothing) * losses - label_smoothing * tf.reduce_mean(logs, axis=-1)

        def gradient(upstream):
            rest = label_smoothing / logits.shape[-1]
            wanted = tf.one_hot(y_true, logits.shape[-1], 1 - label_smoothing + rest, rest, dtype=logits.dtype)
            return upstream[..., None] * (tf.exp(logs) - wanted)

        return losses, gradient

    return losses_of(logits)


def _is_right(y_true, logits):
    return tf.equal(tf.argmax(logits, axis=-1, output_type=y_true.dtype), y_true)


_FUNCTIONS = {"cross_entropy": token_losses, "accuracy": _is_right}


def _precise(logits):
    return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)
