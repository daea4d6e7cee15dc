"""Cross-entropy of tokens against NumPy and Keras."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from layers.token_loss import TokenCrossentropy, token_metrics

RNG = np.random.default_rng(0)
TARGETS = np.array([[3, 1, 2, 0, 0], [4, 4, 0, 0, 0], [1, 2, 3, 4, 1]], np.int32)
LOGITS = RNG.normal(size=(3, 5, 5)).astype(np.float32)


def reference(smoothing, mean_length):
    total = 0.0
    for targets, logits in zip(TARGETS, LOGITS.astype(np.float64)):
        for place, target in enumerate(targets):
            if target:
                log_p = logits[place] - np.log(np.exp(logits[place]).sum())
                wanted = np.full(5, smoothing / 5)
                wanted[target] += 1 - smoothing
                total -= (wanted * log_p).sum()
    return total / mean_length / len(TARGETS)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_that_of_numpy(smoothing):
    loss = TokenCrossentropy(2.5, label_smoothing=smoothing)
    np.testing.assert_allclose(loss(TARGETS, LOGITS), reference(smoothing, 2.5), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("compiled", [False, True])
def test_gradient_is_that_of_differences(smoothing, compiled):
    loss = TokenCrossentropy(2.5, label_smoothing=smoothing)

    def function(logits):
        return loss(TARGETS, logits)

    function = tf.function(function, jit_compile=True) if compiled else function
    logits = tf.constant(LOGITS, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = function(logits)
    gradient, step = tape.gradient(value, logits).numpy(), 1e-5
    for place in np.ndindex(LOGITS.shape):
        moved = np.zeros(LOGITS.shape)
        moved[place] = step
        expected = (function(logits + moved) - function(logits - moved)) / (2 * step)
        np.testing.assert_allclose(gradient[place], expected, atol=1e-8)


def test_a_batch_is_the_mean_of_its_rows_whoever_computes_them():
    loss = TokenCrossentropy(2.5)
    rows = [float(loss(TARGETS[i:i + 1], LOGITS[i:i + 1])) for i in range(3)]
    np.testing.assert_allclose(loss(TARGETS, LOGITS), np.mean(rows), rtol=1e-6)


def test_padding_has_no_gradient():
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        loss = TokenCrossentropy(1.0, label_smoothing=0.1)(TARGETS, logits)
    gradient = tape.gradient(loss, logits).numpy()
    assert not gradient[TARGETS == 0].any() and gradient[TARGETS > 0].all()


def test_weights_say_what_a_token_counts():
    weights = TokenCrossentropy(4.0).token_weights(TARGETS).numpy()
    np.testing.assert_array_equal(weights, (TARGETS > 0) / 4)


def test_metrics_count_tokens_not_rows():
    nats, accuracy = token_metrics()
    for rows in (slice(0, 2), slice(2, 3)):
        nats.update_state(TARGETS[rows], LOGITS[rows])
        accuracy.update_state(TARGETS[rows], LOGITS[rows])
    count = (TARGETS > 0).sum()
    np.testing.assert_allclose(nats.result(), reference(0, 1) * 3 / count, rtol=1e-6)
    np.testing.assert_allclose(accuracy.result(), ((LOGITS.argmax(-1) == TARGETS) & (TARGETS > 0)).sum() / count)


def test_metrics_are_made_again_from_their_configuration():
    for metric in token_metrics():  # as workers of a parameter server do
        again = type(metric).from_config(metric.get_config())
        again.update_state(TARGETS, LOGITS)
        metric.update_state(TARGETS, LOGITS)
        assert again.name == metric.name and again.result() == metric.result()


def test_half_precision_is_summed_in_float32():
    small = tf.cast(LOGITS, tf.float16)
    assert TokenCrossentropy(1.0)(TARGETS, small).dtype == tf.float32


def test_it_is_saved_and_loaded():
    loss = TokenCrossentropy(2.5, label_smoothing=0.1)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()


@pytest.mark.parametrize("options", [{"mean_length": 0}, {"mean_length": 1, "label_smoothing": 1}])
def test_values_out_of_range(options):
    with pytest.raises(ValueError, match="must be"):
        TokenCrossentropy(**options)
