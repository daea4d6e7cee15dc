"""`layers.attention` against NumPy loops, Keras' layers and finite differences; masks, caches, and with 8 bits."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from layers import attention
from layers.attention import AdditiveAttention, MultiHeadAttention, MultiplicativeAttention, floored
from layers.masking import masked_softmax
from strategies import export
from strategies.compression import Quantization
from strategies.export import litert
from tests.layers.differences import check_gradient

RNG = np.random.default_rng
QUERY, VALUE = (2, 4, 6), (2, 5, 6)
LAYERS = {"additive": lambda **options: AdditiveAttention(3, **options),
          "dot": lambda **options: MultiplicativeAttention("dot", **options),
          "scaled_dot": lambda **options: MultiplicativeAttention("scaled_dot", **options),
          "general": lambda **options: MultiplicativeAttention("general", **options),
          "heads": lambda **options: MultiHeadAttention(2, 3, **options)}


def tensors(dtype="float64"):
    return RNG(0).normal(size=QUERY).astype(dtype), RNG(1).normal(size=VALUE).astype(dtype)


def masks():
    """A mask of values, and one of pairs in which a query sees nothing, and no query the second value."""
    pairs = RNG(2).random((2, 4, 5)) < 0.6
    pairs[1, 2] = pairs[:, :, 1] = False
    return [np.array([[True] * 3 + [False] * 2, [False] + [True] * 4]), pairs]


def built(kind, dtype="float64", **options):
    layer = LAYERS[kind](dtype=dtype, **options)
    layer(*tensors("float64" if dtype == "float64" else "float32"))
    layer.set_weights([RNG(3 + i).normal(scale=0.7, size=w.shape) for i, w in enumerate(layer.get_weights())])
    return layer


def score(kind, weights, q, v):
    """Of one query and one value."""
    if kind == "additive":
        return np.tanh(q @ weights[0] + v @ weights[1]) @ weights[2][:, 0]
    return {"dot": lambda: q @ v, "scaled_dot": lambda: q @ v / np.sqrt(len(q)),
            "general": lambda: q @ (v @ weights[0])}[kind]()


def attend(scores, values, seen):
    """One query: scores [Tv], values [Tv, D'], seen [Tv]."""
    powers = np.array([np.exp(s) if see else 0.0 for s, see in zip(scores, seen)])
    weights = powers / powers.sum() if powers.sum() else powers
    return weights @ values, weights


def reference(kind, weights, query, value, mask):
    """(output, weights), query by query; of heads weights are [B, H, Tq, Tv]."""
    seen = np.broadcast_to(mask if mask.ndim == 3 else mask[:, None], (2, query.shape[1], 5))
    outputs, all_weights = [], []
    for b, q in np.ndindex(seen.shape[:2]):
        if kind != "heads":
            scores = [score(kind, weights, query[b, q], v) for v in value[b]]
            results = [attend(scores, value[b], seen[b, q])]
            outputs.append(results[0][0])
        else:
            wq, bq, wk, bk, wv, bv, wo, bo = weights
            results, total = [], bo.copy()
            for h in range(2):
                one = query[b, q] @ wq[:, h] + bq[h]
                keys, values = value[b] @ wk[:, h] + bk[h], value[b] @ wv[:, h] + bv[h]
                results.append(attend(keys @ one / np.sqrt(3), values, seen[b, q]))
                total += results[-1][0] @ wo[h]
            outputs.append(total)
        all_weights.append([w for _, w in results])
    heads = np.reshape(all_weights, [2, query.shape[1], -1, 5]).transpose(0, 2, 1, 3)
    return np.reshape(outputs, [2, query.shape[1], -1]), heads if kind == "heads" else heads[:, 0]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("mask", [None, 0, 1])
def test_attention_equals_numpy(kind, mask):
    (query, value), layer = tensors(), built(kind)
    mask = None if mask is None else masks()[mask]
    output, weights = layer(query, value, mask=mask, return_weights=True)
    seen = np.ones((2, 5), bool) if mask is None else mask
    expected = reference(kind, layer.get_weights(), query, value, seen)
    np.testing.assert_allclose(output, expected[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(weights, expected[1], rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(layer(query, value, mask=mask), output)


def test_heads_equal_keras_with_its_weights():
    query, value = tensors("float32")
    stock = keras.layers.MultiHeadAttention(2, 3)
    stock(query, value)
    layer = built("heads", "float32")
    assert [w.shape for w in layer.weights] == [w.shape for w in stock.weights]
    stock.set_weights(layer.get_weights())
    np.testing.assert_allclose(layer(query, value), stock(query, value), atol=1e-6)
    mask = masks()[0]
    expected, weights = stock(query, value, attention_mask=mask[:, None], return_attention_scores=True)
    found = layer(query, value, mask=mask, return_weights=True)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    np.testing.assert_allclose(found[1], weights, atol=1e-6)
    np.testing.assert_allclose(layer(query, query, use_causal_mask=True), stock(query, query, use_causal_mask=True),
                               atol=1e-6)


def test_dot_and_additive_equal_keras():
    query, value = tensors("float32")
    np.testing.assert_allclose(built("dot", "float32")(query, value), keras.layers.Attention()([query, value]),
                               atol=1e-6)
    stock = keras.layers.AdditiveAttention()
    stock([query, value])
    layer = AdditiveAttention(6)
    layer(query, value)
    scale = RNG(5).normal(size=6)
    stock.set_weights([scale])
    layer.set_weights([np.eye(6), np.eye(6), scale[:, None]])
    np.testing.assert_allclose(layer(query, value), stock([query, value]), atol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("floor", [None, 16.0])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_what_is_masked_changes_no_bit(kind, floor, jit_compile):
    (query, value), layer = tensors("float32"), built(kind, "float32")
    layer.score_floor = floor
    run = tf.function(layer.call, jit_compile=jit_compile)
    for mask in masks():
        hidden = ~(mask if mask.ndim == 2 else mask.any(axis=1))
        other = np.where(hidden[..., None], 1e3 * RNG(4).normal(size=VALUE), value).astype("float32")
        assert hidden.any()
        np.testing.assert_array_equal(*(run(query, tf.constant(v), mask=mask) for v in (value, other)))


@pytest.mark.parametrize("kind", LAYERS)
def test_a_query_that_sees_nothing_gets_zeros_and_finite_gradients(kind):
    (query, value), layer = tensors("float32"), built(kind, "float32")
    variable = tf.Variable(query)
    for floor in (None, 16.0):
        layer.score_floor = floor
        with tf.GradientTape() as tape:
            output, weights = layer(variable, value, mask=masks()[1], return_weights=True)
        assert not np.asarray(weights)[..., 1, :, 2, :].any() if kind == "heads" else not weights.numpy()[1, 2].any()
        bias = layer.attention_output.bias if kind == "heads" else 0
        np.testing.assert_array_equal(output[1, 2], bias + tf.zeros(output.shape[-1]))
        assert np.isfinite(tape.gradient(output, variable)).all()


def test_the_future_changes_nothing_before():
    value, layer = tensors("float32")[1], built("heads", "float32")
    before = layer(value, value, use_causal_mask=True)
    for t in range(1, 5):
        other = value.copy()
        other[:, t:] += 100
        np.testing.assert_array_equal(layer(other, other, use_causal_mask=True)[:, :t], before[:, :t])


def test_causal_mask_of_open_length_and_with_another_mask():
    value, layer = tensors("float32")[1], built("heads", "float32")
    mask = masks()[0]
    inputs = keras.Input((None, 6))
    model = keras.Model(inputs, layer(inputs, inputs, use_causal_mask=True))
    np.testing.assert_allclose(model(value), layer(value, value, use_causal_mask=True), atol=1e-6)
    both = mask[:, None] & np.tri(5, dtype=bool)
    np.testing.assert_array_equal(layer(value, value, mask=mask, use_causal_mask=True), layer(value, value, mask=both))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("kind", ["additive", "general", "heads"])
def test_keras_passes_the_mask_of_the_values_not_of_the_queries(kind, policy):
    layer = LAYERS[kind](dtype=keras.mixed_precision.Policy(policy))
    queries, values = keras.Input((None,)), keras.Input((None,))
    embedding = keras.layers.Embedding(9, 6, mask_zero=True)
    model = keras.Model([queries, values], layer(embedding(queries), embedding(values)))
    q, v = np.array([[1, 2, 0]]), np.array([[3, 4, 5, 0, 0]])
    expected = layer(embedding(q), embedding(v), mask=v != 0)
    np.testing.assert_array_equal(model([q, v]), expected)
    assert np.abs(expected - layer(embedding(q), embedding(v), mask=v >= 0)).max() > 1e-4


@pytest.mark.parametrize("per_row", [False, True])
def test_steps_with_a_cache_equal_the_whole(per_row):
    x, layer = RNG(6).normal(size=(2, 5, 6)).astype("float32"), built("heads", "float32")
    mask = np.array([[True] * 7, [True, False] + [True] * 5])
    expected = layer(x, x, mask=mask[:, :5], use_causal_mask=True)
    keys, values = (cache + 1e3 for cache in layer.cache(2, 7))  # what is still to come is not looked at
    for t in range(5):
        position = tf.constant([t, t]) if per_row else t
        output, keys, values, weights = layer.step(x[:, t:t + 1], keys, values, position, mask, return_weights=True)
        np.testing.assert_allclose(output[:, 0], expected[:, t], atol=1e-6)
        assert weights.shape == (2, 2, 1, 7)
    np.testing.assert_array_equal(keys[:, 5:], tf.fill([2, 2, 2, 3], 1e3))


@pytest.mark.parametrize("precision, tolerance", [("mixed_float16", 0.01), ("mixed_bfloat16", 0.06)])
def test_steps_in_16_bits_take_caches_of_32(precision, tolerance):
    x, layer = RNG(6).normal(size=(2, 5, 6)).astype("float32"), built("heads", keras.mixed_precision.Policy(precision))
    keys, values = (tf.cast(cache, "float32") for cache in layer.cache(2, 5))
    expected = built("heads", "float32")(x, x, use_causal_mask=True)
    for t in range(5):
        output, keys, values = layer.step(x[:, t:t + 1], keys, values, t)
        assert output.dtype == keys.dtype == layer.compute_dtype
        np.testing.assert_allclose(tf.cast(output[:, 0], "float32"), expected[:, t], atol=tolerance * 5)


def test_rows_may_stand_at_different_positions():
    x, layer = RNG(6).normal(size=(2, 5, 6)).astype("float32"), built("heads", "float32")
    whole = layer(x, x, use_causal_mask=True)
    keys, values = layer.project(x)
    output, *_ = layer.step(tf.stack([x[:1, 1], x[1:, 4]])[:, 0][:, None], keys, values, tf.constant([1, 4]))
    np.testing.assert_allclose(output[:, 0], [whole[0, 1], whole[1, 4]], atol=1e-6)


def test_projected_values_are_attended_to():
    (query, value), layer = tensors("float32"), built("heads", "float32")
    for mask in (None, *masks()):
        np.testing.assert_array_equal(layer.attend(query, *layer.project(value), mask=mask),
                                      layer(query, value, mask=mask))


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_equal_finite_differences(kind):
    (query, value), layer = tensors(), built(kind)
    mask = masks()[0]
    check_gradient(lambda x: layer(x, value, mask=mask), query, layer)
    check_gradient(lambda x: layer(query, x, mask=mask), value, layer)


def test_softmax_is_precise_in_16_bits():
    scores = RNG(0).normal(scale=4, size=(3, 200))
    mask = RNG(1).random((3, 200)) < 0.7
    exact = masked_softmax(tf.constant(scores), mask)
    for dtype, tolerance in (("float16", 1e-3), ("bfloat16", 8e-3)):
        rounded = tf.cast(scores, dtype)
        found = masked_softmax(rounded, mask)
        assert found.dtype == dtype
        np.testing.assert_allclose(tf.cast(found, "float64"), masked_softmax(tf.cast(rounded, "float64"), mask),
                                   rtol=tolerance, atol=1e-7)
    np.testing.assert_allclose(masked_softmax(tf.constant(scores), mask, floor=16.0), exact, atol=2e-5)


def test_dropout_falls_on_weights_and_can_be_repeated():
    value = tensors("float32")[1]
    first, again = (built("heads", "float32", dropout=0.5, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first(value, value), built("heads", "float32")(value, value))
    np.testing.assert_array_equal(first(value, value, training=True), again(value, value, training=True))
    assert np.abs(first(value, value, training=True) - again(value, value)).max() > 1e-3


def test_dropout_takes_whole_weights_and_scales_the_rest():
    """Of one value every weight is 1: each head, for each query, counts twice or not at all."""
    query, value = tensors("float32")[0], tensors("float32")[1][:, :1]
    layer = built("heads", "float32", dropout=0.5, seed=4)
    output, weights = layer(query, value, training=True, return_weights=True)
    np.testing.assert_array_equal(weights, 1)  # as they are before
    (wv, bv), (wo, bo) = layer.value.get_weights(), layer.attention_output.get_weights()
    heads = np.einsum("bhk,hkd->bhd", np.einsum("btd,dhk->bhk", value, wv) + bv, wo)  # [B, H, D]
    choices = np.stack([bo + a * heads[:, 0] + b * heads[:, 1] for a in (0, 2) for b in (0, 2)])  # [4, B, D]
    distance = np.abs(output.numpy()[None] - choices[:, :, None]).max(axis=-1)  # [4, B, Tq]
    assert distance.min(axis=0).max() < 1e-5 and len(set(distance.argmin(axis=0).ravel())) > 2


def test_the_floor_is_set_for_as_long_as_it_is_needed():
    inputs = keras.Input((5, 6))
    layer = MultiHeadAttention(2, 3)
    inner = keras.Model(inputs, layer(inputs, inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(inner(inputs)))
    with floored(model) as found:
        assert found and layer.score_floor == attention.SCORE_FLOOR
    assert layer.score_floor is None
    recipe = Quantization(tensors("float32")[1])
    recipe.prepare(model)
    assert layer.score_floor == attention.SCORE_FLOOR
    recipe.finish(model)
    assert layer.score_floor is None


@pytest.mark.parametrize("kind", ["additive", "general", "heads"])
def test_masked_attention_in_8_bits(kind, tmp_path):
    """Operators on 8 bits only, and outputs near float's, although most of a row may be masked."""
    x = RNG(0).normal(size=(32, 12, 6)).astype("float32")
    lengths = RNG(1).integers(2, 13, 32)
    mask = np.arange(12) < lengths[:, None]
    frames, seen = keras.Input((12, 6), name="frames"), keras.Input((12,), dtype="bool", name="seen")
    keras.utils.set_random_seed(0)
    model = keras.Model([frames, seen], LAYERS[kind]()(frames, frames, mask=seen))
    samples = [x, mask]
    expected = model(samples).numpy()
    for format, tolerance in (("float32", 1e-6), ("int8", 0.04)):
        path = tmp_path / f"{format}.tflite"
        export.convert(model, path, format, representative=samples)
        found = export.Runner(path)({"frames": x, "seen": mask})
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    assert litert.float_operators(path) == []


@pytest.mark.parametrize("call, message", [
    (lambda: AdditiveAttention(0), "units must be a positive integer; received 0"),
    (lambda: MultiplicativeAttention("dott"), "Unknown score 'dott': expected one of dot, .* Did you mean 'dot'"),
    (lambda: MultiplicativeAttention("dot")(np.zeros((1, 2, 3)), np.zeros((1, 2, 4))),
     'needs queries and values with as many features; received 3 and 4. Choose "general"'),
    (lambda: MultiHeadAttention(0, 4), "num_heads must be a positive integer; received 0"),
    (lambda: MultiHeadAttention(2, "4"), "key_dim must be a positive integer; received '4'"),
    (lambda: MultiHeadAttention(2, 4, 1.5), "rate must be at least 0 and below 1; received 1.5"),
    (lambda: MultiHeadAttention(2, 4, 0.1), "seed must be a whole number.*received None"),
    (lambda: built("heads")(*tensors(), mask=np.ones(5, bool)), "A mask must be .*received shape \\(5,\\)"),
])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
