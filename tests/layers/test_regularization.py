"""`layers.regularization` and `layers.counting` against NumPy, an own Philox generator and two replicas."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from layers.counting import count_nonzero, count_parameters
from layers.regularization import (
    StatelessDropout,
    add_weight_penalty,
    decay_kernels_only,
    keep_mask,
    kernel_variables,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]


def philox(key, counter):
    """Four words of Philox4x32-10 (Salmon et al. 2011, section 3.3 and table 2) in plain integers."""
    words = [counter[0] & 0xFFFFFFFF, counter[0] >> 32, counter[1] & 0xFFFFFFFF, counter[1] >> 32]
    keys = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        first, second = words[0] * 0xD2511F53, words[2] * 0xCD9E8D57
        words = [(second >> 32) ^ words[1] ^ keys[0], second & 0xFFFFFFFF,
                 (first >> 32) ^ words[3] ^ keys[1], first & 0xFFFFFFFF]
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return words


def reference_mask(rows, size, rate, seed, step, first_row=0):
    counts = -(-size // 4)
    mask = []
    for row in range(first_row, first_row + rows):
        words = [w for c in range(counts) for w in philox(seed, (row * counts + c, step))]
        mask.append([word / 2**32 >= rate for word in words[:size]])
    return np.array(mask)


@pytest.mark.parametrize("size, seed, step, first_row", [(7, 0, 0, 0), (8, 2**63 + 5, 3, 1000), (1, 4, 2**35, 2**31)])
def test_mask_equals_own_philox(size, seed, step, first_row):
    mask = keep_mask([5, size], rate=.3, seed=seed, step=step, first_row=first_row)
    np.testing.assert_array_equal(mask, reference_mask(5, size, .3, seed, step, first_row))


def test_rows_of_a_part_equal_the_whole_in_eager_graph_and_xla():
    shape, first = (8, 5, 3), 3
    whole = keep_mask(shape, rate=.5, seed=9, step=6).numpy()
    for jit_compile in (None, False, True):
        def draw(step, row):
            return (keep_mask(shape, rate=.5, seed=9, step=step),
                    keep_mask((4, 5, 3), rate=.5, seed=9, step=step, first_row=row))
        if jit_compile is not None:
            draw = tf.function(draw, jit_compile=jit_compile)
        all_rows, part = draw(tf.constant(6, tf.int64), tf.constant(first, tf.int64))
        np.testing.assert_array_equal(all_rows, whole)
        np.testing.assert_array_equal(part, whole[first:first + 4])


def test_mask_has_the_rate_and_depends_on_seed_step_and_row():
    masks = [keep_mask([64, 500], rate=.3, seed=seed, step=step).numpy() for seed, step in ((1, 0), (2, 0), (1, 1))]
    deviation = np.sqrt(.3 * .7 / masks[0].size)
    for mask in masks:
        assert abs(mask.mean() - .7) < 4 * deviation
    for one, other in ((masks[0], masks[1]), (masks[0], masks[2]), (masks[0][:32], masks[0][32:])):
        correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(one.size)


def test_layer_drops_and_scales_in_training_only():
    layer, x = StatelessDropout(.4, seed=5), np.random.default_rng(0).normal(size=(6, 3, 2)).astype("float32")
    np.testing.assert_array_equal(layer(x, training=False), x)
    assert layer.step.numpy() == 0
    for step in range(2):
        mask = reference_mask(6, 6, .4, 5, step).reshape(x.shape)
        np.testing.assert_allclose(layer(x, training=True), np.where(mask, x / .6, 0), rtol=1e-6)
        assert layer.step.numpy() == step + 1


def test_gradient_is_the_scaled_mask():
    layer, x = StatelessDropout(.4, seed=5, dtype="float64"), tf.Variable(np.ones((3, 5)))
    with tf.GradientTape() as tape:
        y = layer(x, training=True)
    np.testing.assert_allclose(tape.gradient(y, x), reference_mask(3, 5, .4, 5, 0) / .6, rtol=1e-12)


def test_training_known_only_at_run_time():
    layer, x = StatelessDropout(.5, seed=5), tf.ones([2, 8])
    layer.build(x.shape)
    call = tf.function(lambda training: layer(x, training=training))
    np.testing.assert_array_equal(call(tf.constant(False)), x)
    assert layer.step.numpy() == 0
    np.testing.assert_array_equal(call(tf.constant(True)), reference_mask(2, 8, .5, 5, 0) * 2)
    assert layer.step.numpy() == 1


def test_not_a_number_is_dropped_like_any_other():
    y = StatelessDropout(.5, seed=5)(tf.fill([1, 64], float("nan")), training=True).numpy()
    np.testing.assert_array_equal(y == 0, ~reference_mask(1, 64, .5, 5, 0))


def dropout_model(jit_compile=False):
    inputs = keras.Input([6])
    x = keras.layers.Dense(5, activation="relu", kernel_initializer="ones", name="hidden")(inputs)
    x = StatelessDropout(.5, seed=1, name="drop")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, kernel_initializer="ones", name="logits")(x))
    model.compile(keras.optimizers.SGD(.01), "mse", jit_compile=jit_compile)
    return model


def test_training_with_xla_drops_the_same_elements():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(8, 6)).astype("float32"), generator.normal(size=(8, 2)).astype("float32")
    plain, compiled = dropout_model(), dropout_model(jit_compile=True)
    for model in (plain, compiled):
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        assert model.get_layer("drop").step.numpy() == 4
    for one, other in zip(plain.get_weights(), compiled.get_weights()):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_resumed_run_equals_an_undisturbed_one(tmp_path):
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(8, 6)).astype("float32"), generator.normal(size=(8, 2)).astype("float32")
    undisturbed, interrupted = dropout_model(), dropout_model()
    undisturbed.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0)
    interrupted.fit(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0)
    assert interrupted.get_layer("drop").step.numpy() == 2
    interrupted.save(tmp_path / "model.keras")
    interrupted.save_weights(tmp_path / "checkpoint")
    from_checkpoint = dropout_model()
    from_checkpoint.load_weights(tmp_path / "checkpoint").assert_existing_objects_matched()
    for resumed in (keras.models.load_model(tmp_path / "model.keras"), from_checkpoint):
        resumed.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        for ours, theirs in zip(resumed.get_weights(), undisturbed.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_exported_file_has_no_random_operator():
    from ai_edge_litert.interpreter import Interpreter

    model = dropout_model()
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    assert {d["op_name"] for d in interpreter._get_ops_details()} <= {"FULLY_CONNECTED", "DELEGATE"}
    x = np.random.default_rng(0).normal(size=(1, 6)).astype("float32")
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    np.testing.assert_allclose(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), model(x),
                               rtol=1e-5, atol=1e-6)


TWO_REPLICAS = """
import sys
import numpy as np
import tensorflow as tf
import tf_keras as keras
from layers.regularization import StatelessDropout, add_weight_penalty, decay_kernels_only

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
keras.backend.set_floatx("float64")
generator = np.random.default_rng(0)
x, y = generator.normal(size=(12, 6)), generator.normal(size=(12, 2))

def train():
    keras.utils.set_random_seed(3)
    inputs = keras.Input([6])
    hidden = StatelessDropout(.5, seed=1, name="drop")(keras.layers.Dense(9, activation="relu")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    add_weight_penalty(model, l1=.01, l2=.1)
    optimizer = decay_kernels_only(keras.optimizers.SGD(.1, weight_decay=.2), model)
    model.compile(optimizer, "mse")
    history = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    return model, history.history["loss"]

single, single_loss = train()
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
with strategy.scope():
    double, double_loss = train()
np.testing.assert_allclose(double_loss, single_loss, rtol=1e-12)
for one, two in zip(single.get_weights(), double.get_weights(), strict=True):
    np.testing.assert_allclose(two, one, rtol=1e-12, atol=1e-15)
copies = [copy.numpy() for copy in double.get_layer("drop").step.values]
assert copies == [6, 6], copies

path = double.save_weights(sys.argv[1])
double.get_layer("drop").step.assign(0)
double.load_weights(sys.argv[1])
assert [copy.numpy() for copy in double.get_layer("drop").step.values] == [6, 6]
single.get_layer("drop").step.assign(0)
single.load_weights(sys.argv[1])
assert single.get_layer("drop").step.numpy() == 6
print("replicas agree")
"""


def test_two_replicas_train_like_one_device(tmp_path):
    """Dropout, penalty and decay; in its own process, for devices must be set before TensorFlow starts."""
    result = subprocess.run([sys.executable, "-c", TWO_REPLICAS, str(tmp_path / "weights")], cwd=ROOT, timeout=120,
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "replicas agree" in result.stdout


def weighty_model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input([8, 8, 3])
    x = keras.layers.SeparableConv2D(4, 3, name="separable")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Reshape([12, 12])(x)
    x = keras.layers.GRU(3, name="gru")(x)  # its bias has rank 2
    return keras.Model(inputs, keras.layers.Dense(2, name="logits", bias_initializer="ones")(x))


KERNELS = ["separable/depthwise_kernel:0", "separable/pointwise_kernel:0", "gru/gru_cell/kernel:0",
           "gru/gru_cell/recurrent_kernel:0", "logits/kernel:0"]


def test_kernels_are_found_by_name_and_rank():
    assert [v.name.replace("gru_cell_1", "gru_cell") for v in kernel_variables(weighty_model())] == KERNELS
    embedding = keras.Sequential([keras.layers.Embedding(5, 2)])
    embedding.build([None, 3])
    assert len(kernel_variables(embedding)) == 1


@pytest.mark.parametrize("l1, l2", [(.01, 0), (0, .02), (.01, .02)])
def test_penalty_equals_numpy(l1, l2):
    model = add_weight_penalty(weighty_model(), l1=l1, l2=l2)
    kernels = kernel_variables(model)
    expected = sum(l1 * np.abs(k.numpy()).sum() + l2 * np.square(k.numpy()).sum() for k in kernels)
    with tf.GradientTape() as tape:
        total = tf.add_n(model.losses)
    assert total.numpy() == pytest.approx(expected, rel=1e-5)
    gradients = tape.gradient(total, model.trainable_weights)
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        if not any(weight is k for k in kernels):
            assert gradient is None
        else:
            w = weight.numpy()
            np.testing.assert_allclose(gradient, l1 * np.sign(w) + 2 * l2 * w, rtol=1e-5, atol=1e-7)


def test_keras_counts_the_penalty_once_a_step():
    inputs = keras.Input([3])
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones", name="d")(inputs))
    add_weight_penalty(model, l2=.5)
    model.compile(keras.optimizers.SGD(.1), "mse")
    # No data term: zero inputs and targets. w <- w - .1 * 2 * .5 * w, from w = 1 twice; loss .5 * 3 * w^2.
    history = model.fit(np.zeros([4, 3]), np.zeros([4, 1]), batch_size=2, epochs=1, shuffle=False, verbose=0)
    np.testing.assert_allclose(model.get_layer("d").kernel, .81, rtol=1e-6)
    assert history.history["loss"][0] == pytest.approx((1.5 + 1.5 * .81) / 2, rel=1e-5)


def test_no_penalty_leaves_the_model_alone():
    model = weighty_model()
    assert add_weight_penalty(model) is model and model.losses == []


def decay_case():
    generator = np.random.default_rng(0)
    inputs = keras.Input([3], dtype="float64")
    x = keras.layers.Dense(4, dtype="float64", name="a")(inputs)
    x = keras.layers.BatchNormalization(dtype="float64", name="n")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, dtype="float64", name="b")(x))
    model.set_weights([generator.normal(1, .2, w.shape) for w in model.get_weights()])
    gradients = [[generator.normal(size=w.shape) for w in model.trainable_weights] for _ in range(2)]
    return model, gradients


def adamw_step(w, g, state, t, rate, decay):
    m = .9 * state.get("m", 0) + .1 * g
    v = .999 * state.get("v", 0) + .001 * g * g
    state.update(m=m, v=v)
    # Keras' form of epsilon: beside sqrt(v) before its bias correction (Kingma & Ba 2015, end of section 2).
    update = rate * np.sqrt(1 - .999**t) / (1 - .9**t) * m / (np.sqrt(v) + 1e-7)
    return w - rate * decay * w - update


def sgdw_step(w, g, state, t, rate, decay):
    w = w - rate * decay * w
    state["m"] = .9 * state.get("m", 0) - rate * g
    return w + state["m"]


@pytest.mark.parametrize("create, reference_step", [
    (lambda: keras.optimizers.AdamW(.01, weight_decay=.3), adamw_step),
    (lambda: keras.optimizers.SGD(.01, momentum=.9, weight_decay=.3), sgdw_step),
])
def test_decoupled_decay_of_kernels_only(create, reference_step):
    model, gradients = decay_case()
    optimizer = decay_kernels_only(create(), model)
    expected = [w.numpy() for w in model.trainable_weights]
    states = [{} for _ in expected]
    for t, step_gradients in enumerate(gradients, 1):
        optimizer.apply_gradients(zip([tf.constant(g) for g in step_gradients], model.trainable_weights, strict=True))
        for i, weight in enumerate(model.trainable_weights):
            decay = .3 if "kernel" in weight.name else 0
            expected[i] = reference_step(expected[i], step_gradients[i], states[i], t, .01, decay)
    assert sum("kernel" in w.name for w in model.trainable_weights) == 2
    for weight, value in zip(model.trainable_weights, expected, strict=True):
        np.testing.assert_allclose(weight, value, rtol=1e-6, err_msg=weight.name)


def test_decay_reaches_the_optimizer_under_loss_scaling():
    model, _ = decay_case()
    inner = keras.optimizers.AdamW(.01)
    decay_kernels_only(keras.mixed_precision.LossScaleOptimizer(inner), model)
    assert [inner._use_weight_decay(w) for w in model.trainable_weights] == ["kernel" in w.name
                                                                            for w in model.trainable_weights]


def test_counting():
    model = dropout_model()
    assert count_parameters(model) == 6 * 5 + 5 + 5 * 2 + 2 == model.count_params() - 1
    assert count_nonzero(model) == 6 * 5 + 5 * 2  # kernels are ones, biases zeros
    model.get_layer("hidden").kernel.assign(tf.eye(6, 5))
    assert count_nonzero(model) == 5 + 5 * 2
    norm = keras.layers.BatchNormalization()
    norm.build([None, 7])
    assert (count_parameters(norm), count_parameters(norm, trainable_only=True)) == (28, 14)
    assert (count_nonzero(norm), count_nonzero(norm, trainable_only=True)) == (14, 7)


def model_without_kernels():
    return keras.Sequential([keras.Input([4]), keras.layers.BatchNormalization()], name="bare")


def built_optimizer():
    optimizer = keras.optimizers.SGD(.1)
    optimizer.build([tf.Variable(1.)])
    return optimizer


@pytest.mark.parametrize("call, message", [
    (lambda: StatelessDropout(1, seed=0), "rate must be at least 0 and below 1; received 1"),
    (lambda: StatelessDropout(-.1, seed=0), "rate must be at least 0 and below 1; received -0.1"),
    (lambda: StatelessDropout(.1, seed=-1), r"seed must be a whole number.*received -1"),
    (lambda: StatelessDropout(.1, seed=1.5), r"seed must be a whole number.*received 1.5"),
    (lambda: StatelessDropout(.1, seed=2**64), r"seed must be a whole number.*below 2\*\*64"),
    (lambda: add_weight_penalty(weighty_model(), l1=-1), "l1 must be at least 0; received -1"),
    (lambda: add_weight_penalty(weighty_model(), l2=float("nan")), "l2 must be at least 0; received nan"),
    (lambda: add_weight_penalty(model_without_kernels(), l2=1), "nothing to penalise: model 'bare' has 2 trainable"),
    (lambda: decay_kernels_only(keras.optimizers.SGD(), model_without_kernels()), "nothing to decay: model 'bare'"),
    (lambda: decay_kernels_only(built_optimizer(), weighty_model()), "must be chosen before the first step"),
    (lambda: decay_kernels_only(keras.optimizers.legacy.SGD(), weighty_model()), "received tf_keras.*Legacy"),
])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
