"""Recurrent layers in TFLite files: unrolled, and one step at a time."""

import contextlib

import numpy as np
import pytest
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter

from layers.normalization import GroupNormalization
from layers.recurrent import LayerNormLSTMCell, PeepholeLSTMCell
from strategies import export
from strategies.compression import Quantization
from strategies.export import litert, recurrent
from tests.strategies.compression import kinds

STEPS = 6


def looped_gru():
    return kinds._sequence_model(keras.layers.GRU(8, name="gru"))


def looped_own_cell():
    return kinds._sequence_model(keras.layers.RNN(kinds.PeepholeCell(8), name="rnn"))


def old_gru():
    return kinds._sequence_model(keras.layers.GRU(8, reset_after=False, name="gru"))


def lstm():
    return kinds._sequence_model(keras.layers.LSTM(8, name="lstm"))


def own_peephole_cell():
    return kinds._sequence_model(keras.layers.RNN(PeepholeLSTMCell(8), name="rnn"))


def layer_norm_cell():
    return kinds._sequence_model(keras.layers.RNN(LayerNormLSTMCell(8), name="rnn"))


def stacked():
    def body(x):
        x = keras.layers.Dense(7, activation="relu", name="embed")(x)
        x = keras.layers.LayerNormalization(name="norm")(x)
        y = keras.layers.GRU(7, return_sequences=True, name="first")(x)
        x = keras.layers.Add(name="add")([x, y])
        return keras.layers.RNN([keras.layers.SimpleRNNCell(5), keras.layers.LSTMCell(6)], name="second")(x)
    return kinds._sequence_model(body)


def tagger():
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(11, 8, name="embedding")(inputs)
    x = keras.layers.GRU(8, return_sequences=True, name="gru")(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="tags")(x))


def inner():
    frames = keras.Input((STEPS, 5))
    encoder = keras.Model(frames, keras.layers.GRU(8, name="gru")(frames), name="encoder")
    return kinds._sequence_model(encoder)


BUILDERS = (looped_gru, looped_own_cell, old_gru, lstm, stacked, tagger, inner)


def build(make, count=24):
    keras.utils.set_random_seed(0)
    model, rng = make(), np.random.default_rng(1)
    if make is tagger:
        return model, rng.integers(0, 11, (count, STEPS)).astype(np.int32)
    return model, rng.normal(size=(count, STEPS, 5)).astype(np.float32)


@pytest.mark.parametrize("make", BUILDERS)
def test_steps_in_turn_give_what_the_model_gives(make):
    model, x = build(make)
    step = export.step_model(model)
    outputs = next(iter(export.run_steps(step.predict_on_batch, x, step=step).values()))
    expected = model(x).numpy()
    found = np.concatenate(outputs, axis=1) if make is tagger else outputs[-1]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(outputs) == STEPS and not np.allclose(outputs[0], outputs[-1])


def test_states_come_in_and_go_out_under_one_name():
    step = export.step_model(build(stacked)[0])
    states = {"first_state_0": (None, 7), "second_state_0": (None, 5), "second_state_1": (None, 6),
              "second_state_2": (None, 6)}
    assert {name: tuple(t.shape) for name, t in step.input.items()} == {"frames": (None, 1, 5), **states}
    assert {name: tuple(t.shape) for name, t in step.output.items()} == {"logits": (None, 4), **states}


@pytest.mark.parametrize("make", [looped_gru, own_peephole_cell, layer_norm_cell, stacked])
def test_files_of_a_step(make, tmp_path):
    model, x = build(make, 60)
    recipe = Quantization(x)
    model = recipe.finish(recipe.prepare(model))
    step = export.step_model(model)
    expected = model(x).numpy()
    rough = 0.3 if make is layer_norm_cell else 0.12  # three normalisations a step
    for form, tolerance in (("float32", 1e-5), ("float16", 0.02), ("dynamic", 0.1), ("int8", rough),
                            ("int16", 0.05)):  # of few samples; a rest is cut
        path = tmp_path / f"{form}.tflite"
        export.convert(step, path, form, representative=export.step_samples(step, x))
        outputs = export.run_steps(export.Runner(path).named, x, step=step)["logits"]
        assert np.abs(outputs[-1] - expected).max() <= tolerance * np.abs(expected).max()
        assert form not in ("int8", "int16") or export.float_operators(path) == []


def constants_of(path):
    """Arrays that stand in a file, integers times their scales."""
    reader = Interpreter(str(path))
    for details in reader.get_tensor_details():
        with contextlib.suppress(ValueError):  # what is only computed has no value yet
            value, scales = reader.get_tensor(details["index"]), details["quantization_parameters"]["scales"]
            yield value if not len(scales) else value * scales.reshape([-1] + [1] * (value.ndim - 1))


@pytest.mark.parametrize("make", [own_peephole_cell, layer_norm_cell])
def test_what_compression_makes_of_a_kernel_is_in_the_file(make, tmp_path):
    model, x = build(make)
    cell = model.get_layer("rnn").cell
    for kernel in (cell.kernel, cell.recurrent_kernel):
        kernel.assign(np.where(np.random.default_rng(2).random(kernel.shape) < 0.8, 0, np.sign(kernel) * 0.25))
    step = export.step_model(model)
    export.convert(step, tmp_path / "step.tflite", "float32", representative=export.step_samples(step, x))
    constants = list(constants_of(tmp_path / "step.tflite"))
    for kernel in (cell.kernel, cell.recurrent_kernel):
        assert any(array.shape == kernel.shape[::-1] and np.array_equal(array.T, kernel) for array in constants)


@pytest.mark.parametrize("make", [lstm, looped_gru, own_peephole_cell, layer_norm_cell])
def test_a_step_has_the_very_weights_that_training_had(make, tmp_path):
    model, x = build(make)
    recipe = Quantization(x, in_steps=True)
    model = recipe.finish(recipe.prepare(model))
    step = export.step_model(model)
    export.convert(step, tmp_path / "step.tflite", "int8", representative=export.step_samples(step, x))
    constants = list(constants_of(tmp_path / "step.tflite"))
    layer = model.get_layer("rnn" if "cell" in make.__name__ else make.__name__.removeprefix("looped_"))
    for kernel in (layer.cell.kernel, layer.cell.recurrent_kernel):
        assert any(array.shape == kernel.shape[::-1] and np.allclose(array.T, kernel, rtol=1e-5, atol=1e-7)
                   for array in constants)


def test_a_step_in_16_bits_forgets_less(tmp_path):
    """A counter: an error of the state stays, and 8 bits make one at every step."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((60, 1))
    layer = keras.layers.LSTM(2, return_sequences=True, name="lstm")
    model = keras.Model(inputs, keras.layers.Dense(1, name="logits")(layer(inputs)))
    weights = [np.zeros(w.shape, np.float32) for w in layer.get_weights()]
    weights[0][0, 4:6] = 0.1
    weights[2][:] = np.repeat([9.0, 9.0, 0.0, 9.0], 2)
    layer.set_weights(weights)
    x = np.random.default_rng(0).normal(size=(20, 60, 1)).astype(np.float32)
    step, expected, errors = export.step_model(model), model(x).numpy(), {}
    for form in ("int8", "int16"):
        export.convert(step, tmp_path / form, form, representative=export.step_samples(step, x, 1200))
        outputs = export.run_steps(export.Runner(tmp_path / form).named, x, step=step)["logits"]
        errors[form] = np.abs(np.concatenate(outputs, axis=1) - expected).mean() / np.abs(expected).mean()
    assert errors["int16"] < 0.02 and errors["int8"] > 5 * errors["int16"]


@pytest.mark.parametrize("make", [looped_gru, looped_own_cell, old_gru, stacked, lstm])
def test_loops_are_unrolled_in_files(make, tmp_path):
    model, x = build(make, 40)
    expected = model(x).numpy()
    for form, tolerance in (("float32", 1e-5), ("int8", 0.25)):  # 8 bits of a cell's state are few
        path = tmp_path / f"{form}.tflite"
        export.convert(model, path, form, representative=x)
        assert np.abs(export.Runner(path)(x) - expected).max() <= tolerance * np.abs(expected).max()
    assert export.float_operators(tmp_path / "int8.tflite") == []
    names = {operator.name for operator in litert.operators(path)}
    assert "WHILE" not in names and ("UNIDIRECTIONAL_SEQUENCE_LSTM" in names) == (make is lstm)


@pytest.mark.parametrize("form, tolerance", [("float32", 1e-5), ("float16", 0.02), ("dynamic", 0.02)])
def test_a_cell_that_counts_far_is_not_clipped(form, tolerance, tmp_path):
    inputs = keras.Input((40, 1))
    layer = keras.layers.LSTM(3, return_sequences=True, name="lstm")
    model = keras.Model(inputs, layer(inputs))
    weights = [np.zeros(w.shape, np.float32) for w in layer.get_weights()]
    weights[0][0, 6:9] = 5  # the candidate follows the input's sign
    weights[2][:] = np.repeat([9.0, 9.0, 0.0, 9.0], 3)  # all gates open
    layer.set_weights(weights)
    x = np.repeat([1.0, -1.0], 20).astype(np.float32)[None, :, None]  # up to 20 and back: clipped at 10, it ends at -10
    export.convert(model, tmp_path / "model.tflite", form)
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in {found.name for found in litert.operators(tmp_path / "model.tflite")}
    expected = model(x).numpy()
    assert expected[0, 33:36].min() > 0.9  # still above
    np.testing.assert_allclose(export.Runner(tmp_path / "model.tflite")(x), expected, atol=tolerance)


def test_a_fused_lstm_has_no_16_bits(tmp_path):
    model, x = build(lstm)
    with pytest.raises(export.ConversionError, match="16x8-bit not yet supported for op: .UNIDIRECTIONAL"):
        export.convert(model, tmp_path / "model.tflite", "int16", representative=x)
    assert not (tmp_path / "model.tflite").exists()


def test_operators_that_litert_has_not_in_16_bits(tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 8)), GroupNormalization(2), keras.layers.Flatten()])
    with pytest.raises(export.ConversionError, match="in 16 bits: .* Export int8"):
        export.convert(model, tmp_path / "model.tflite", "int16", representative=np.ones([4, 4, 4, 8], np.float32))


def joined(kind=keras.layers.LSTM):
    """Outputs of recurrent layers side by side: the concatenation decides their scale."""
    def body(x):
        both = keras.layers.Bidirectional(kind(6, return_sequences=True), name="both")(x)
        last = kind(5, name="last")(keras.layers.Dropout(0.1, name="drop")(both))
        return keras.layers.Concatenate(name="join")([last, keras.layers.GlobalAveragePooling1D(name="mean")(both)])
    return kinds._sequence_model(body)


@pytest.mark.parametrize("kind", [keras.layers.LSTM, keras.layers.GRU])
def test_layers_side_by_side_keep_their_scales(tmp_path, kind):
    model, x = build(lambda: joined(kind), 100)
    inner = keras.Model(model.input, model.get_layer("join").output)
    expected, calls = inner(x).numpy(), [layer.call for layer in inner._flatten_layers()]
    for form, tolerance in (("float32", 1e-6), ("int8", 4)):
        export.convert(inner, tmp_path / f"{form}.tflite", form, representative=x)
        error = export.Runner(tmp_path / f"{form}.tflite")(x) - expected
        if form == "int8":
            error *= 255 / np.ptp(expected)  # in codes
            assert np.abs(error.mean(axis=0)).max() < 0.7
        assert np.abs(error).max() <= tolerance
    names = {operator.name for operator in litert.operators(tmp_path / "int8.tflite")}
    assert ("UNIDIRECTIONAL_SEQUENCE_LSTM" in names) == (kind is keras.layers.LSTM)
    assert [layer.call for layer in inner._flatten_layers()] == calls


def test_a_file_of_two_scales_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(recurrent, "with_scales_of_their_own", lambda model: contextlib.nullcontext(False))
    model, x = build(joined)
    with pytest.raises(export.ConversionError, match="of REVERSE_V2, UNIDIRECTIONAL_SEQUENCE_LSTM other codes"):
        export.convert(model, tmp_path / "int8.tflite", "int8", representative=x)
    assert not (tmp_path / "int8.tflite").exists()


def test_the_model_is_as_it_was():
    model, x = build(looped_gru)
    layer = model.get_layer("gru")
    with recurrent.unrolled(model):
        assert layer.unroll
    assert not layer.unroll and layer._could_use_gpu_kernel


def both_ways(x):
    return keras.layers.Bidirectional(keras.layers.GRU(3), name="both")(x)


@pytest.mark.parametrize("body, message", [
    (lambda x: keras.layers.GlobalAveragePooling1D(name="mean")(x), "'mean' .* may mix time steps"),
    (both_ways, "'both' .* may mix time steps"),
    (lambda x: keras.layers.GRU(3, go_backwards=True, name="back")(x), "'back' cannot be run step by step"),
    (lambda x: keras.layers.GRU(3, name="begun")(x, initial_state=keras.layers.Dense(3)(x[:, 0])), "may mix|'begun'"),
    (lambda x: keras.layers.Dense(3)(x), "has no recurrent layer")])
def test_models_without_steps(body, message):
    with pytest.raises(ValueError, match=message):
        export.step_model(kinds._sequence_model(body))


def test_a_model_of_unknown_graph():
    with pytest.raises(ValueError, match="functional model only; received a Sequential|has no recurrent"):
        export.step_model(keras.Sequential([keras.layers.Dense(2, input_shape=(3, 2))]))
