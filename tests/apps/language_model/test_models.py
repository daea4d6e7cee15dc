"""The zoo of language models: what a token may see, steps, and the state that is carried."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from apps.common import tokens
from apps.language_model import carrying, models
from apps.language_model.config import Config
from apps.language_model.data import TextSpec
from layers.token_loss import TokenCrossentropy
from strategies import export
from strategies.compression.distillation import Distillation

LENGTH = 6
VOCABULARY = tokens.Pieces("characters", "abcdefgh")


def build(name, **flags):
    keras.utils.set_random_seed(0)
    spec = TextSpec(VOCABULARY, LENGTH, models.is_masked(name), {}, {}, {})
    flags = {"units": 8, "num_heads": 2, "num_layers": 2, "length": LENGTH, "workdir": "unused", **flags}
    return models.build(Config(model=name, **flags), spec)


def windows(count=2, length=LENGTH, seed=0):
    return np.random.default_rng(seed).integers(4, len(VOCABULARY), (count, length)).astype(np.int32)


@pytest.mark.parametrize("name", models.MODELS)
def test_what_comes_later_changes_nothing_before(name):
    model, x = build(name), windows()
    changed = x.copy()
    changed[:, 4] = 4 + (x[:, 4] - 3) % 8
    before, after = (model(v, training=False).numpy() for v in (x, changed))
    assert before.shape == (2, LENGTH, len(VOCABULARY))
    assert np.array_equal(before[:, :4], after[:, :4]) != models.is_masked(name)
    assert not np.array_equal(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("name", [name for name in models.MODELS if not models.is_masked(name)])
def test_steps_give_what_the_window_gives(name):
    model, x = build(name), windows()
    step = models.step_model(model)
    outputs = export.run_steps(lambda inputs: export.predict(step, inputs), x, step=step)[models.logits_name(step)]
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), model(x, training=False), atol=2e-6)
    take, state = models.stepper(step), models.zero_state(step)
    for number in x[0]:
        logits, state = take(number, state)
    np.testing.assert_allclose(logits, model(x, training=False)[0, -1], atol=2e-6)


def test_masked_models_have_a_token_more():
    assert build("masked_gru").get_layer("embedding").input_dim == len(VOCABULARY) + 1
    assert build("gru").get_layer("embedding").input_dim == len(VOCABULARY)


def test_runs_with_other_seeds_drop_other_units():
    seeds = [layer.seed for seed in (0, 1) for layer in build("lstm", seed=seed).layers if hasattr(layer, "seed")]
    assert len(set(seeds)) == 6


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", pytest.param("peephole_lstm", marks=pytest.mark.conformance)])
def test_the_state_goes_on_and_begins_again(name):
    """The loss of each window is that of the window in one long text; at the end of the epoch zeros come back."""
    text, loss = windows(length=3 * LENGTH + 1), TokenCrossentropy(LENGTH)
    model = carrying.Carrying(build(name, dropout=0.0, carry_state=True), batch_size=2, steps_per_epoch=3)
    model.compile(keras.optimizers.SGD(0.0), loss)
    found = [model.train_on_batch(text[:, i:i + LENGTH], text[:, i + 1:i + LENGTH + 1])
             for i in (*range(0, 3 * LENGTH, LENGTH), 0)]
    long = through(model, text[:, :-1])
    expected = [float(loss(text[:, i + 1:i + LENGTH + 1], long[:, i:i + LENGTH])) for i in range(0, 3 * LENGTH, LENGTH)]
    np.testing.assert_allclose(found, [*expected, expected[0]], rtol=1e-5)
    batches = tf.data.Dataset.from_tensor_slices([text[:, i:i + LENGTH + 1] for i in range(0, 3 * LENGTH, LENGTH)])
    for _ in range(2):  # each evaluation begins with zeros
        evaluated = model.evaluate(batches.map(lambda window: (window[:, :-1], window[:, 1:])), verbose=0)
        assert evaluated == pytest.approx(np.mean(expected), rel=1e-5)
    alone = [float(loss(text[:, i + 1:i + LENGTH + 1], model(text[:, i:i + LENGTH]))) for i in (0, LENGTH)]
    assert abs(alone[0] - found[0]) < 1e-5 < abs(alone[1] - found[1])  # at inference zeros come first


def through(model, numbers):
    """Logits of a longer text by the layers of a model, which is built for windows."""
    x = model.get_layer("embedding")(numbers)
    for number in range(2):
        x = model.get_layer(f"layer_{number}")(x)
    return model.get_layer("logits")(x)


def test_the_gradient_ends_at_the_window():
    """The step taken on a second window is that of a model which gets the first one's state as a constant."""
    text, loss = windows(length=2 * LENGTH + 1), TokenCrossentropy(LENGTH)
    x, y = text[:, LENGTH:-1], text[:, LENGTH + 1:]
    model = carrying.Carrying(build("gru", dropout=0.0, num_layers=1, carry_state=True), 2, 9)
    model.compile(keras.optimizers.SGD(0.0), loss)
    model.train_on_batch(text[:, :LENGTH], text[:, 1:LENGTH + 1])
    layer = model.get_layer("layer_0")
    state = layer(model.get_layer("embedding")(text[:, :LENGTH]))[:, -1]
    with tf.GradientTape() as tape:
        hidden = layer(model.get_layer("embedding")(x), initial_state=tf.stop_gradient(state))
        value = loss(y, model.get_layer("logits")(hidden))
    gradients = [tf.convert_to_tensor(g).numpy() for g in tape.gradient(value, model.trainable_variables)]
    before = [v.numpy() for v in model.trainable_variables]
    model.optimizer.learning_rate.assign(1.0)
    model.train_on_batch(x, y)
    for old, new, gradient in zip(before, model.trainable_variables, gradients):
        np.testing.assert_allclose(old - new.numpy(), gradient, atol=1e-6)


def test_the_plain_model_has_the_same_layers_and_no_states():
    model = carrying.Carrying(build("lstm", carry_state=True), 2, 9)
    plain = carrying.plain(model)
    states = [w.name for w in model.weights if "carried" in w.name or "evaluated" in w.name]
    assert [w.name for w in plain.weights] == [w.name for w in model.weights if w.name not in states]
    assert len(states) == 8 and carrying.plain(plain) is plain
    np.testing.assert_array_equal(plain(windows()), model(windows()))


def test_distillation_of_tokens_is_the_sum_by_hand():
    """Cross-entropy of the labels and T^2 KL of the teacher, both a token, as NumPy has them."""
    teacher, student = (build(name, dropout=0.0) for name in ("lstm", "gru"))
    loss = TokenCrossentropy(5)
    model = Distillation([teacher], temperature=2.0, alpha=0.7).prepare(student)
    model.compile(keras.optimizers.SGD(1.0), loss)
    x = windows(3)
    y = np.where(np.arange(LENGTH) < [[6], [4], [1]], np.roll(x, -1, axis=1), tokens.PADDING)

    def objective():
        def log_softmax(v):
            return v - np.log(np.exp(v).sum(axis=-1, keepdims=True))
        t, s = (m(x, training=False).numpy().astype(np.float64) for m in (teacher, student))
        own = -np.take_along_axis(log_softmax(s), y[..., None], axis=-1)[..., 0]
        p = np.exp(log_softmax(t / 2))
        soft = 4 * (p * (log_softmax(t / 2) - log_softmax(s / 2))).sum(axis=-1)
        return (np.where(y > 0, 0.3 * own + 0.7 * soft, 0).sum(axis=1) / 5).mean()

    bias = student.get_layer("logits").bias
    before, step = bias.numpy(), 1e-3
    slopes = []
    for k in range(4, 8):
        values = []
        for sign in (1, -1):
            bias.assign(before + sign * step * (np.arange(12) == k))
            values.append(objective())
        slopes.append((values[0] - values[1]) / (2 * step))
    bias.assign(before)
    model.train_on_batch(x, y)
    np.testing.assert_allclose((before - bias.numpy())[4:8], slopes, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize(("name", "flags", "message"), [
    ("lstn", {}, "model 'lstn'.*lstm"), ("transformer", {"carry_state": True}, "from left to right step by step"),
    ("masked_gru", {"carry_state": True}, "from left to right"), ("transformer", {"num_heads": 3}, "must divide"),
    ("gru", {"carry_state": True, "distribution": "sync"}, "needs --distribution=single"),
    ("gru", {"carry_state": True, "test_stride": 4}, "all of those are known. Leave one out"),
    ("gru", {"test_stride": 7}, "must be at most --length"),
    ("transformer", {"positions": "sinusoidal", "units": 7}, "come in pairs")])
def test_bad_flags(name, flags, message):
    with pytest.raises(ValueError, match=message):
        build(name, **flags)
