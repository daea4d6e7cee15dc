"""`layers.transformer` against NumPy, cached steps, masks, and the tables of the paper."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from layers.attention import Stepwise
from layers.transformer import DecoderLayer, EncoderLayer, PositionalEncoding
from strategies import export
from strategies.export import litert
from tests.layers.differences import check_gradient

RNG = np.random.default_rng
HEADS, D_MODEL, D_FF = 2, 6, 10
X, MEMORY = RNG(0).normal(size=(2, 5, D_MODEL)), RNG(1).normal(size=(2, 4, 7))
MASK = np.array([[True] * 3 + [False] * 2, [True] * 5])
MEMORY_MASK = np.array([[True] * 4, [False, True, True, False]])


def randomized(layer):
    layer.set_weights([RNG(3 + i).normal(scale=0.6, size=w.shape) if w.dtype.kind == "f" else w
                       for i, w in enumerate(layer.get_weights())])
    return layer


def encoder(dtype="float64", **options):
    layer = EncoderLayer(HEADS, D_FF, dtype=dtype, **options)
    layer(X.astype(dtype))
    return randomized(layer)


def decoder(dtype="float64", **options):
    layer = DecoderLayer(HEADS, D_FF, dtype=dtype, **options)
    layer(X.astype(dtype), MEMORY.astype(dtype))
    return randomized(layer)


def weights_of(layer):
    """{"attention/query/kernel": array} of a layer's weights."""
    return {w.name.split("/", 1)[1].split(":")[0]: w.numpy() for w in layer.weights}


def norm(x, w, number):
    centred = x - x.mean(-1, keepdims=True)
    return (centred / np.sqrt((centred ** 2).mean(-1, keepdims=True) + 1e-6) * w[f"norm{number}/gamma"]
            + w[f"norm{number}/beta"])


def attend(w, name, query, value, seen):
    """One sample: query [Tq, D], value [Tv, D'], seen [Tq, Tv]; heads as slices of one wide projection."""
    flat = {part: w[f"{name}/{part}/kernel"].reshape(-1, D_MODEL) for part in ("query", "key", "value")}
    q, k, v = (x @ flat[part] + w[f"{name}/{part}/bias"].ravel()
               for x, part in ((query, "query"), (value, "key"), (value, "value")))
    size, heads = D_MODEL // HEADS, []
    for h in range(HEADS):
        part = slice(h * size, (h + 1) * size)
        powers = np.exp(q[:, part] @ k[:, part].T / np.sqrt(size)) * seen
        heads.append(powers / powers.sum(-1, keepdims=True) @ v[:, part])
    output = w[f"{name}/attention_output/kernel"].reshape(D_MODEL, D_MODEL)
    return np.concatenate(heads, -1) @ output + w[f"{name}/attention_output/bias"]


def feed_forward(w, x):
    return np.maximum(x @ w["inner/kernel"] + w["inner/bias"], 0) @ w["outer/kernel"] + w["outer/bias"]


def reference(layer, x, functions, norm_first):
    """One sample through residual connections around functions."""
    w = weights_of(layer)
    for number, function in enumerate(functions, 1):
        x = x + function(w, norm(x, w, number)) if norm_first else norm(x + function(w, x), w, number)
    return x


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_encoder_equals_numpy(norm_first, causal):
    layer = encoder(norm_first=norm_first)
    found = layer(X, mask=MASK, use_causal_mask=causal)
    for b in range(2):
        seen = np.tri(5) * MASK[b] if causal else np.ones((5, 1)) * MASK[b]
        expected = reference(layer, X[b], [lambda w, x: attend(w, "self_attention", x, x, seen), feed_forward],  # noqa: B023
                             norm_first)
        np.testing.assert_allclose(found[b], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("norm_first", [False, True])
def test_decoder_equals_numpy(norm_first):
    layer = decoder(norm_first=norm_first)
    found, own, cross = layer(X, MEMORY, mask=MASK, memory_mask=MEMORY_MASK, return_weights=True)
    assert own.shape == (2, HEADS, 5, 5) and cross.shape == (2, HEADS, 5, 4)
    for b in range(2):
        functions = [lambda w, x: attend(w, "self_attention", x, x, np.tri(5) * MASK[b]),  # noqa: B023
                     lambda w, x: attend(w, "cross_attention", x, MEMORY[b], np.ones((5, 1)) * MEMORY_MASK[b]),  # noqa: B023
                     feed_forward]
        np.testing.assert_allclose(found[b], reference(layer, X[b], functions, norm_first), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_future_and_the_padding_change_nothing(norm_first):
    layer, lone = decoder("float32", norm_first=norm_first), encoder("float32", norm_first=norm_first)
    x, memory = X.astype("float32"), MEMORY.astype("float32")
    other, other_memory = x.copy(), memory.copy()
    other[:, 3:] += 10
    other_memory[~MEMORY_MASK] += 10
    np.testing.assert_array_equal(layer(other, other_memory, memory_mask=MEMORY_MASK)[:, :3],
                                  layer(x, memory, memory_mask=MEMORY_MASK)[:, :3])
    np.testing.assert_array_equal(lone(other, use_causal_mask=True)[:, :3], lone(x, use_causal_mask=True)[:, :3])
    np.testing.assert_array_equal(lone(other, mask=MASK)[0, :3], lone(x, mask=MASK)[0, :3])


@pytest.mark.parametrize("norm_first", [False, True])
def test_steps_equal_the_whole(norm_first):
    x, memory = X.astype("float32"), MEMORY.astype("float32")
    lone, layer = encoder("float32", norm_first=norm_first), decoder("float32", norm_first=norm_first)
    expected = lone(x, use_causal_mask=True), layer(x, memory, memory_mask=MEMORY_MASK)
    own, cache, projected = lone.cache(2, 6), layer.cache(2, 6), layer.project(memory)
    for t in range(5):
        first, *own = lone.step(x[:, t:t + 1], *own, t)
        second, *cache = layer.step(x[:, t:t + 1], *cache, tf.constant([t, t]), *projected, memory_mask=MEMORY_MASK)
        np.testing.assert_allclose(first[:, 0], expected[0][:, t], atol=2e-6)
        np.testing.assert_allclose(second[:, 0], expected[1][:, t], atol=2e-6)


def test_keras_masks_are_found():
    tokens, source = keras.Input((None,)), keras.Input((None,))
    embedding = keras.layers.Embedding(9, D_MODEL, mask_zero=True)
    first, second = encoder("float32"), DecoderLayer(HEADS, D_FF)
    model = keras.Model([tokens, source], second(embedding(tokens), first(embedding(source))))
    t, s = np.array([[1, 2, 3, 0]]), np.array([[4, 5, 0, 0, 0]])
    expected = second(embedding(t), first(embedding(s), mask=s != 0), mask=t != 0, memory_mask=s != 0)
    np.testing.assert_allclose(model([t, s]), expected, atol=1e-6)
    np.testing.assert_allclose(model([t[:, :3], s[:, :2]]), expected[:, :3], atol=1e-6)


@pytest.mark.parametrize("norm_first", [False, True])
def test_gradients_equal_finite_differences(norm_first):
    # Not ReLU: a corner may lie between the two points.
    lone = encoder(norm_first=norm_first, activation="tanh")
    check_gradient(lambda x: lone(x, use_causal_mask=True), X, lone)
    layer = decoder(norm_first=norm_first, activation="tanh")
    check_gradient(lambda memory: layer(X, memory, memory_mask=MEMORY_MASK), MEMORY, layer)


def test_dropouts_of_a_layer_differ_and_can_be_repeated():
    def make():
        return decoder("float32", dropout=0.5, attention_dropout=0.5, seed=4)

    layer = make()
    dropouts = [*layer.dropouts, layer.self_attention.dropout, layer.cross_attention.dropout]
    assert len({dropout.seed for dropout in dropouts}) == 5
    x, memory = X.astype("float32"), MEMORY.astype("float32")
    np.testing.assert_array_equal(layer(x, memory, training=True), make()(x, memory, training=True))
    np.testing.assert_array_equal(layer(x, memory), decoder("float32")(x, memory))
    assert {d.seed for d in encoder(dropout=0.1, seed=5).dropouts}.isdisjoint(d.seed for d in dropouts)


def test_sinusoids_of_the_paper():
    encoding = PositionalEncoding(max_length=50, dtype="float64")(np.zeros((1, 20, 8)))[0]
    for t in range(20):
        for i in range(4):
            angle = t / 10000 ** (2 * i / 8)
            np.testing.assert_allclose(encoding[t, 2 * i:2 * i + 2], [np.sin(angle), np.cos(angle)], atol=1e-12)


@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_one_position_equals_the_whole(kind):
    x, layer = X.astype("float32"), PositionalEncoding(kind, 9)
    whole = layer(x)
    assert len(layer.weights) == (kind == "learned") and not np.allclose(whole, x)
    for t in range(5):
        np.testing.assert_array_equal(layer(x[:, t:t + 1], position=t)[:, 0], whole[:, t])
    mixed = layer(tf.stack([x[:1, 1], x[1:, 4]]), position=tf.constant([1, 4]))
    np.testing.assert_array_equal(mixed[:, 0], [whole[0, 1], whole[1, 4]])
    inputs = keras.Input((None, D_MODEL))
    np.testing.assert_array_equal(keras.Model(inputs, layer(inputs))(x), whole)


def step_model(length=8):
    """A language model of one layer that takes one position: (whole model, model of one step)."""
    keras.utils.set_random_seed(0)
    positions, layer, head = PositionalEncoding(max_length=length), EncoderLayer(2, 32), keras.layers.Dense(5)
    frames = keras.Input((length, 8))
    whole = keras.Model(frames, head(layer(positions(frames), use_causal_mask=True)))
    inputs = {"frame": keras.Input((1, 8), name="frame"), "position": keras.Input((), dtype="int32", name="position"),
              "keys": keras.Input((length, 2, 4), name="keys"), "values": keras.Input((length, 2, 4), name="values")}
    x, keys, values = Stepwise(layer)(positions(inputs["frame"], position=inputs["position"]), inputs["keys"],
                                      inputs["values"], inputs["position"])
    return whole, keras.Model(inputs, {"logits": head(x), "keys": keys, "values": values})


def decode(run, x):
    """Outputs [B, T, K] of `run`, a step, over x [B, T, D]; and all that it was fed with."""
    outputs, fed, cache = [], [], {name: np.zeros((len(x), 8, 2, 4), np.float32) for name in ("keys", "values")}
    for t in range(x.shape[1]):
        fed.append({"frame": x[:, t:t + 1], "position": np.full(len(x), t, np.int32), **cache})
        found = {name: np.asarray(value) for name, value in run(fed[-1]).items()}
        cache = {name: found[name] for name in cache}
        outputs.append(found["logits"])
    return np.concatenate(outputs, axis=1), {name: np.concatenate([f[name] for f in fed]) for name in fed[0]}


def test_a_step_runs_on_a_phone_in_8_bits(tmp_path):
    whole, step = step_model()
    x = RNG(0).normal(size=(16, 8, 8)).astype("float32")
    expected = whole(x).numpy()
    found, samples = decode(step, x)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    for format, tolerance in (("float32", 1e-5), ("int8", 0.06)):
        path = tmp_path / f"{format}.tflite"
        export.convert(step, path, format, representative=samples)
        found, _ = decode(export.Runner(path).named, x)
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    assert litert.float_operators(path) == []


@pytest.mark.parametrize("call, message", [
    (lambda: PositionalEncoding("sine"), "Unknown positional encoding 'sine': expected one of sinusoidal, learned"),
    (lambda: PositionalEncoding(max_length=0), "max_length must be a positive integer; received 0"),
    (lambda: PositionalEncoding(max_length=4)(np.zeros((1, 5, 6))), "max_length=4 positions; received inputs of 5"),
    (lambda: EncoderLayer(4, 8)(np.zeros((1, 5, 6))), "num_heads=4 must divide d_model; received inputs with 6"),
    (lambda: EncoderLayer(2, 0), "d_ff must be a positive integer; received 0"),
    (lambda: DecoderLayer(2, 8, dropout=0.1), "DecoderLayer needs a seed for its dropout; received seed=None"),
    (lambda: EncoderLayer(2, 8)(np.zeros((5, 6))), "EncoderLayer takes inputs \\[B, T, D\\] with a known D"),
])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
