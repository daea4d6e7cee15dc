"""Losses against NumPy, gradients against their closed form, and what a distilled student is."""

import types

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from layers.backbones import resnet
from layers.regularization import add_weight_penalty
from strategies.compression import FilterPruning, Pruning, Quantization, distillation, hooks
from strategies.compression.distillation import Distillation
from tests.conformance import catalogue
from tests.strategies.compression import kinds


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def logits(seed, shape=(6, 5)):
    return np.random.default_rng(seed).normal(scale=2, size=shape).astype(np.float32)


@pytest.mark.parametrize("temperature", [1.0, 3.0, 20.0])
def test_soft_loss_and_its_gradient(temperature):
    teacher, student = logits(0), tf.constant(logits(1))
    p, q = softmax(teacher / temperature), softmax(student.numpy() / temperature)
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = distillation.soft_loss(distillation.mean_probabilities([teacher], temperature), student, temperature)
    np.testing.assert_allclose(loss, temperature ** 2 * (p * np.log(p / q)).sum(axis=-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, student), temperature * (q - p), rtol=1e-4, atol=1e-5)


def test_as_keras_divergence_has_it():
    p, q = softmax(logits(0)), logits(1)
    expected = keras.losses.KLDivergence(reduction="none")(p, tf.nn.softmax(q))
    np.testing.assert_allclose(distillation.soft_loss(p, q, 1.0), expected, rtol=1e-4, atol=1e-6)


def test_several_teachers_are_averaged_as_probabilities():
    found = distillation.mean_probabilities([logits(0), logits(1)], 2.0)
    np.testing.assert_allclose(found, (softmax(logits(0) / 2) + softmax(logits(1) / 2)) / 2, rtol=1e-5)


def test_attention_loss():
    teacher, student = logits(0, (2, 3, 3, 7)), logits(1, (2, 3, 3, 4))
    maps = [np.square(a).sum(axis=-1).reshape(2, -1) for a in (teacher, student)]
    maps = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in maps]
    np.testing.assert_allclose(distillation.attention_loss(teacher, student), np.square(maps[0] - maps[1]).mean(axis=1),
                               rtol=1e-4)


def models(student="preactivation", teacher="dense_blocks"):
    student, x = kinds.build(student, seed=1)
    teacher, _ = kinds.build(teacher, seed=2)
    return student, teacher, x, np.eye(4, dtype=np.float32)[np.arange(len(x)) % 4]


def compiled(model, rate=0.1):
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    return model


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_step_follows_the_weighted_loss(alpha):
    student, teacher, x, y = models("gru", "lstm")  # without batch statistics
    p = softmax(teacher(x).numpy() / 3)
    with tf.GradientTape() as tape:
        z = student(x)
        own = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(y, z))
        soft = tf.reduce_mean(tf.reduce_sum(p * (np.log(p) - tf.nn.log_softmax(z / 3)), axis=-1)) * 9
        loss = (1 - alpha) * own + alpha * soft
    gradients = tape.gradient(loss, student.trainable_variables)
    expected = [v.numpy() - 0.1 * g.numpy() for v, g in zip(student.trainable_variables, gradients)]
    model = compiled(Distillation([teacher], temperature=3.0, alpha=alpha).prepare(student))
    model.train_on_batch(x, y)
    for value, wanted in zip(model.trainable_variables, expected):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)


def test_penalties_count_whole():
    student, teacher, x, y = models("gru", "lstm")
    model = Distillation([student], alpha=1.0).prepare(student)  # its own teacher: nothing is left but the penalty
    add_weight_penalty(model, l1=0.0, l2=0.3)
    compiled(model)
    kernels = {v.name: v.numpy() for v in model.trainable_variables}
    with tf.GradientTape() as tape:
        penalty = tf.add_n(model.losses)
    gradients = tape.gradient(penalty, model.trainable_variables, unconnected_gradients="zero")
    assert max(float(tf.reduce_max(tf.abs(g))) for g in gradients) > 0.01
    model.train_on_batch(x, y)
    for v, g in zip(model.trainable_variables, gradients):
        np.testing.assert_allclose(v, kernels[v.name] - 0.1 * g, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["prune", "quantize", "filters"])
def test_a_student_is_compressed_under_its_teacher(method):
    student, teacher, x, y = models("conv_bn_relu", "inverted")
    recipe = {"prune": lambda: Pruning(sparsity=0.5, schedule="constant"), "quantize": lambda: Quantization(x),
              "filters": lambda: FilterPruning(share=0.4)}[method]()
    supervision = Distillation([teacher], alpha=1.0, temperature=2.0)
    size = student.count_params()
    model = compiled(supervision.prepare(recipe.prepare(student)), rate=0.3)

    def distance(model):
        p = distillation.mean_probabilities([teacher(x)], 2.0)
        return float(tf.reduce_mean(distillation.soft_loss(p, model(x, training=False), 2.0)))

    callbacks = recipe.callbacks(model, types.SimpleNamespace(step=0), 40) if method == "prune" else []
    before = distance(model)
    model.fit(x, np.roll(y, 1, axis=0), batch_size=len(x), epochs=40, verbose=0, callbacks=callbacks)  # labels: wrong
    assert distance(model) < 0.3 * before
    plain = supervision.finish(recipe.finish(model))
    assert type(plain).__name__ == "Functional" and not hooks.hooked_layers(plain)
    if method == "prune":
        kernels = [slot.variable.numpy() for slot in hooks.weight_slots(plain)]
        assert all(abs((k == 0).mean() - 0.5) < 0.05 for k in kernels if k.size > 50)
    if method == "filters":
        assert plain.count_params() < size


def test_the_student_is_the_student():
    student, teacher, x, y = models()
    names, before = [w.name for w in student.weights], teacher.get_weights()
    model = compiled(Distillation([teacher]).prepare(student))
    assert [w.name for w in model.weights] == names
    model.fit(x, y, epochs=2, verbose=0)
    np.testing.assert_array_equal(model(x), student(x))
    for old, new in zip(before, teacher.get_weights()):
        np.testing.assert_array_equal(old, new)
    plain = Distillation([teacher]).finish(model)
    assert type(plain).__name__ == "Functional"
    np.testing.assert_array_equal(plain(x), student(x))


def test_cached_outputs_give_the_same_step():
    results = []
    for cached in (False, True):
        student, teacher, x, y = models()
        model = compiled(Distillation([teacher], alpha=0.7).prepare(student))
        targets = {"targets": y, "teacher": teacher(x).numpy()} if cached else y
        data = tf.data.Dataset.from_tensors((x, targets))
        model.fit(data, epochs=2, verbose=0)
        results.append(model.get_weights())
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_features_train_what_leads_to_the_hint_and_nothing_else():
    student, teacher, x, y = models("conv_bn_relu", "inverted")
    recipe = Distillation([teacher], hint="features", hint_layers=[("first", "block_expand_relu")])
    model = compiled(recipe.prepare(student))
    logits_before, first_before = (student.get_layer(n).kernel.numpy() for n in ("logits", "first"))
    hint = keras.Model(teacher.input, teacher.get_layer("block_expand_relu").output)(x).numpy()

    def distance():
        guided = keras.Model(student.input, student.get_layer("first").output)(x)
        return np.square(model._regressors[0](guided).numpy() - hint).mean()

    before = distance()
    model.fit(x, y, epochs=30, verbose=0)
    assert distance() < 0.85 * before  # one convolution cannot follow all of the teacher's two
    np.testing.assert_array_equal(student.get_layer("logits").kernel, logits_before)
    assert not np.array_equal(student.get_layer("first").kernel, first_before)


def test_the_hint_is_the_middle_one_of_three_sizes():
    """ResNet-20 has maps of 8, 4 and 2 points of 8: nothing above the second is trained, and all below is."""
    student, teacher = (catalogue.backbone_classifier(resnet.BACKBONES["resnet20"], width=width)
                        for width in (0.25, 0.5))
    (_, _), (middle, theirs), (_, _) = distillation.match_layers(student, teacher)
    model = Distillation([teacher], hint="features").prepare(student)
    model.compile(keras.optimizers.SGD(0.1), keras.losses.CategoricalCrossentropy(from_logits=True))
    before = {weight.name: weight.numpy() for weight in student.trainable_weights}
    model.fit(catalogue.images(0), np.eye(4)[catalogue.labels()], epochs=1, verbose=0)
    moved = [not np.array_equal(weight, before[weight.name]) for weight in student.trainable_weights]
    guided = len(keras.Model(student.input, student.get_layer(middle).output).trainable_weights)
    assert teacher.get_layer(theirs).output.shape[1:3] == (4, 4) and 0 < guided < len(moved)
    assert all(moved[:guided]) and not any(moved[guided:])


def test_attention_pulls_maps_together():
    student, teacher, x, y = models()
    recipe = Distillation([teacher], alpha=0.0, hint="attention")
    model = compiled(recipe.prepare(student), 0.02)
    mine, theirs = distillation.hint_maps(student, teacher)
    inner = keras.Model(student.input, mine), keras.Model(teacher.input, theirs)

    def distance():
        maps = [tf.nest.flatten(part(x)) for part in inner]
        return float(tf.reduce_mean([distillation.attention_loss(t, s) for s, t in zip(*maps)]))

    before = distance()
    model.fit(x, y, epochs=30, verbose=0)
    assert distance() < 0.7 * before


def test_layers_are_matched_by_size():
    student, teacher, *_ = models()
    pairs = distillation.match_layers(student, teacher)
    assert [student.get_layer(a).output.shape[1:3] for a, _ in pairs] == [
        teacher.get_layer(b).output.shape[1:3] for _, b in pairs]
    with pytest.raises(ValueError, match="no feature map of one size"):
        distillation.match_layers(student, kinds.build("lstm")[0])


@pytest.mark.parametrize("teacher, message", [("lstm", "inputs must have shape"), ("other", "outputs must have shape")])
def test_a_teacher_that_does_not_fit(teacher, message):
    student, *_ = models()
    if teacher == "other":
        inputs = keras.Input(kinds.IMAGE)
        model = keras.Model(inputs, keras.layers.Dense(7)(keras.layers.Flatten()(inputs)))
    else:
        model, _ = kinds.build(teacher)
    with pytest.raises(ValueError, match=message):
        Distillation([model]).prepare(student)


def test_a_teacher_of_probabilities_is_refused():
    student, *_ = models()
    for last in ([keras.layers.Dense(4, "softmax")], [keras.layers.Dense(4), keras.layers.Softmax()],
                 [keras.layers.Dense(4), keras.layers.Activation("softmax")]):
        teacher = keras.Sequential([keras.layers.Flatten(input_shape=kinds.IMAGE), *last])
        with pytest.raises(ValueError, match="gives probabilities, by the softmax of its layer"):
            Distillation([teacher]).prepare(student)


def test_a_model_of_several_outputs_is_refused():
    inputs = keras.Input((3,))
    student = keras.Model(inputs, {"policy": keras.layers.Dense(4)(inputs), "value": keras.layers.Dense(1)(inputs)})
    with pytest.raises(ValueError, match="learns from logits, the one output of a model; .* has 2 outputs"):
        distillation.check_teacher(student, student)


@pytest.mark.parametrize("options, message", [
    ({"temperature": 0.0}, "temperature must be above 0"), ({"alpha": 1.5}, "alpha must be between 0 and 1"),
    ({"hint": "logits"}, "Unknown hint 'logits'"), ({"teachers": []}, "at least one teacher")])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Distillation(**{"teachers": [None], **options})


def test_unknown_hint_layer():
    student, teacher, *_ = models()
    with pytest.raises(ValueError, match="Unknown hint layer 'fist'.*Did you mean 'first'"):
        Distillation([teacher], hint="features", hint_layers=[("fist", "first")]).prepare(student)
