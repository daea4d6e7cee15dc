"""What must hold for every layer and model of the suite: one function a property, run over the whole catalogue.

Each function takes a catalogue `Entry`, raises AssertionError where the property does not hold, and returns the figures
it measured. Inputs are float32 [B, ...]; every entry gives [B, K].
"""

import pathlib
import tempfile

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.common import workdir
from strategies import compression, export
from strategies.compression import hooks, low_bit
from tests.conformance import catalogue


def save_and_load(entry):
    """`.keras` gives the same outputs, to the last bit, and can be trained on."""
    model, x = settled(entry), entry.inputs(0)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        loaded = keras.models.load_model(path, compile=False)
    np.testing.assert_array_equal(model(x), loaded(x))
    assert [w.name for w in loaded.trainable_weights] == [w.name for w in model.trainable_weights]
    return {}


def xla(entry):
    """XLA gives the same outputs and the same gradients as the graph does.

    Rounding may put an input of a ReLU on the other side of the corner, and all gradients before it change; then those
    of float64 have to be the same.
    """
    reference = settled(entry)
    for precision, tolerance in (("float32", 10 * entry.tolerance), ("float64", 1e-9)):
        with precision_of(precision):
            model, x = entry.build(), entry.inputs(0).astype(precision)
            model.set_weights([w.astype(precision) if w.dtype.kind == "f" else w for w in reference.get_weights()])
            y, results = targets(model, x), []
            for jit_compile in (False, True):
                run = tf.function(lambda: (model(x, training=False), *loss_and_gradients(model, x, y)),  # noqa: B023
                                  jit_compile=jit_compile)
                results.append([t.numpy() for t in tf.nest.flatten(run())])
        logits, loss, *gradients = (relative(a, b) for a, b in zip(*results))
        assert max(logits, loss) <= tolerance, (precision, logits, loss)
        if max(gradients) <= tolerance:
            return {f"max_relative_difference_{precision}": max(logits, loss, *gradients)}
    raise AssertionError(f"gradients differ also in float64, by {gradients}")


def mixed_precision(entry):
    """float32 variables, 16-bit arithmetic, and outputs and gradients near float32's."""
    reference, x = settled(entry), entry.inputs(0)
    expected, found = reference(x).numpy(), {}
    for precision, tolerance in (("mixed_float16", 0.03), ("mixed_bfloat16", 0.2)):
        with precision_of(precision):
            model = entry.build()
            model.set_weights(reference.get_weights())
            assert all(w.dtype == "float32" for w in model.weights if w.dtype.is_floating)
            value = tf.cast(model(x), "float32").numpy()
            _, gradients = loss_and_gradients(model, x, targets(model, x))
        wrong = [w.name for w, g in zip(model.trainable_weights, gradients) if not np.isfinite(g).all()]
        assert not wrong, f"in {precision} not finite: {wrong}"
        found[precision] = relative(expected, value)
        assert found[precision] <= tolerance, found
    return found


def float64_gradient(entry):
    """The gradient equals differences of the loss along a random direction, in float64: central, or to one side where
    a corner of one of the many ReLUs lies on the other."""
    reference, x = settled(entry), entry.inputs(0).astype("float64")
    with precision_of("float64"):
        model = entry.build()
        model.set_weights([w.astype("float64") if w.dtype.kind == "f" else w for w in reference.get_weights()])
        y = targets(model, x)
        run = tf.function(lambda: loss_and_gradients(model, x, y))
        weights = [w.numpy() for w in model.trainable_weights]
        noise = np.random.default_rng(1)
        direction = [noise.normal(size=w.shape) * (np.abs(w).mean() + 0.1) for w in weights]
        here, gradients = run()
        slope = sum(np.sum(g * d) for g, d in zip(gradients, direction))
        losses = []
        step = 1e-7  # rounding costs 1e-9; larger steps meet corners of ReLU
        for sign in (1, -1):
            for variable, w, d in zip(model.trainable_weights, weights, direction):
                variable.assign(w + sign * step * d)
            losses.append(float(run()[0]))
    ahead, behind = losses[0] - float(here), float(here) - losses[1]
    slopes = [(ahead + behind) / (2 * step), ahead / step, behind / step]
    difference = min(abs(slope - found) for found in slopes) / max(abs(slope), 1e-3)
    assert difference <= 1e-4, (slope, slopes)
    return {"relative_difference": difference}


def learns(entry):
    """One batch can be learned by heart."""
    keras.utils.set_random_seed(0)
    model, x = entry.build(), entry.inputs(0)
    y = targets(model, x)
    model.compile(keras.optimizers.Adam(0.01), keras.losses.CategoricalCrossentropy(from_logits=True))
    data = tf.data.Dataset.from_tensors((x, y)).repeat()
    losses = []
    for _ in range(6):
        losses += model.fit(data, steps_per_epoch=25, verbose=0).history["loss"]
        if losses[-1] < 0.2 * losses[0] and losses[-1] < 0.3:
            return {"first_loss": losses[0], "last_loss": losses[-1], "steps": 25 * len(losses)}
    raise AssertionError(f"the loss of one batch went from {losses[0]:.3f} to {losses[-1]:.3f} only")


def no_retracing(entry):
    """Training and prediction are traced once for batches of one shape."""
    keras.utils.set_random_seed(0)
    model, x = entry.build(), entry.inputs(0)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)  # else the first step is traced twice, to create the slots
    data = tf.data.Dataset.from_tensors((x, targets(model, x))).repeat()
    for _ in range(2):
        model.fit(data, steps_per_epoch=2, verbose=0)
        model.predict(data, steps=2, verbose=0)
    functions = {"train": model.train_function, "predict": model.predict_function}
    counts = {name: function.experimental_get_tracing_count() for name, function in functions.items()}
    assert counts == {"train": 1, "predict": 1}, counts
    return {}


def exports(entry):
    """Every TFLite format is written, loaded by LiteRT and compared; float32 to rounding, the others within a band."""
    model, x = settled(entry), entry.inputs(0)
    bands = {"float32": 1e-4, "float16": 0.02, "dynamic": 0.25, "int8": 0.35}
    with tempfile.TemporaryDirectory() as folder:
        rows = export.export_all(model, pathlib.Path(folder), formats=list(bands), samples=x,
                                 representative=entry.inputs(0), variant=entry.name)
    scale = np.abs(model(x).numpy()).max()
    found = {row["format"]: float(row["max_abs_diff"]) / scale for row in rows}
    assert set(found) == set(bands)
    for name, band in bands.items():
        assert found[name] <= band, found
    return found


def prunes(entry):
    """Under masks an entry computes what it computes with zeros for weights, and keeps the zeros."""
    model, x = settled(entry), entry.inputs(0)
    pruning = compression.Pruning(sparsity=0.5)
    pruning.prepare(model)
    pruning.update_masks(model)
    masked = model(x).numpy()
    _, gradients = loss_and_gradients(model, x, targets(model, x))
    assert all(g is not None and np.isfinite(g).all() for g in gradients)
    pruning.finish(model)
    np.testing.assert_allclose(model(x), masked, atol=1e-5 * np.abs(masked).max())
    kernels = [slot.variable.numpy() for slot in hooks.weight_slots(model)]
    share = 1 - sum(np.count_nonzero(k) for k in kernels) / sum(k.size for k in kernels)
    assert share > 0.2  # of small kernels at least one weight stays, of depthwise ones all
    return {"removed": share}


def quantizes(entry):
    """Fake quantisation lets gradients through, and the int8 file, of integer operators only, agrees with it."""
    model, x = settled(entry), entry.inputs(0)
    recipe = compression.Quantization(x)
    recipe.prepare(model)
    _, gradients = loss_and_gradients(model, x, targets(model, x))
    assert all(g is not None and np.isfinite(g).all() for g in gradients)
    simulated = model(x).numpy()
    recipe.finish(model)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "int8.tflite"
        export.convert(model, path, "int8", representative=x)
        found, floats = export.Runner(path)(x), export.float_operators(path)
    assert not floats, floats
    difference = relative(simulated, found)
    assert difference <= 0.15, difference
    return {"relative_difference": difference}


def low_bits(entry):
    """Gradients pass codes of 4 bits; what is left computes the same, and its packed file holds the very weights."""
    model, x = settled(entry), entry.inputs(0)
    recipe = compression.LowBit(bits=4)
    recipe.prepare(model)
    coded = model(x).numpy()
    _, gradients = loss_and_gradients(model, x, targets(model, x))
    assert all(g is not None and np.isfinite(g).all() for g in gradients)
    recipe.finish(model)
    np.testing.assert_allclose(model(x), coded, atol=1e-5 * np.abs(coded).max())
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.lbw"
        facts = low_bit.write_packed(path, model, 4)
        arrays = low_bit.read_packed(path)
    assert facts["coded_weights"]
    for weight, array in zip(model.weights, arrays.values(), strict=True):
        np.testing.assert_array_equal(weight, array)
    return {"coded_weights": facts["coded_weights"]}


PROPERTIES = {"save_and_load": save_and_load, "xla": xla, "mixed_precision": mixed_precision,
              "float64_gradient": float64_gradient, "learns": learns, "no_retracing": no_retracing,
              "exports": exports, "prunes": prunes, "quantizes": quantizes, "low_bits": low_bits}


def settled(entry):
    """The entry's model with seeded weights and statistics that are not the initial 0 and 1."""
    keras.utils.set_random_seed(0)
    model, noise = entry.build(), np.random.default_rng(0)
    for weight in model.weights:
        name = weight.name.split("/")[-1].split(":")[0]
        if name == "gamma":
            weight.assign(noise.uniform(0.5, 1.5, weight.shape))
        elif name in ("beta", "bias"):  # above 0 in the mean: four filters must not all be dead
            weight.assign(noise.normal(0.1, 0.1, weight.shape))
    return catalogue.settle(model, entry.inputs(1))


def targets(model, x):
    """One-hot targets [B, K], each class in turn."""
    return np.eye(model.output_shape[-1])[np.arange(len(x)) % model.output_shape[-1]]


def loss_and_gradients(model, x, y):
    """Cross-entropy of a batch at inference and its gradients; at inference so that nothing is random or counted."""
    with tf.GradientTape() as tape:
        logits = model(x, training=False)
        loss = tf.reduce_mean(keras.losses.categorical_crossentropy(tf.cast(y, logits.dtype), logits, from_logits=True))
    gradients = tape.gradient(loss, model.trainable_weights)
    return loss, [g if g is None else tf.convert_to_tensor(g) for g in gradients]  # those of embeddings are sparse


def relative(a, b):
    """Largest difference relative to the largest entry."""
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    return float(np.max(np.abs(a - b)) / max(np.max(np.abs(a)), 1e-6))


class precision_of:  # noqa: N801 - reads as a function in a with statement
    """A precision policy for the duration of a block."""

    def __init__(self, precision):
        self._precision = precision

    def __enter__(self):
        workdir.set_precision(self._precision)

    def __exit__(self, *error):
        workdir.set_precision("float32")
