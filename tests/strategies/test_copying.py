"""Copies in every precision, of every kind of model."""

import numpy as np
import pytest

from apps.common import workdir
from strategies.compression import hooks
from strategies.copying import copy_model
from tests.strategies.compression import kinds

TOLERANCE = {"float32": 1e-6, "float64": 1e-5, "mixed_bfloat16": 0.1, "mixed_float16": 0.02}


@pytest.mark.parametrize("name", kinds.KINDS)
def test_a_copy_is_the_same_and_apart(name):
    model, x = kinds.build(name)
    copy = copy_model(model)
    expected = model(x).numpy()
    np.testing.assert_array_equal(copy(x), expected)
    assert [w.name for w in copy.weights] == [w.name for w in model.weights]
    for weight in model.trainable_weights:
        weight.assign_add(weight + 1)
    np.testing.assert_array_equal(copy(x), expected)


def policies_of(model):
    return {layer.dtype_policy.name for layer in hooks.leaf_layers(model) if layer.weights}


@pytest.mark.parametrize("precision", [p for p in TOLERANCE if p != "float32"])
@pytest.mark.parametrize("name", ["conv_bn_relu", "dense_blocks", "group_norm", "transformer", "lstm", "nested"])
def test_there_and_back(name, precision):
    workdir.set_precision(precision)
    try:
        model, x = kinds.build(name)
        expected = np.asarray(model(x), np.float64)
        policies = policies_of(model)
        assert policies == {precision}
    finally:
        workdir.set_precision("float32")
    plain = copy_model(model, "float32")
    assert all(w.dtype == "float32" for w in plain.weights)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(plain(x), expected, atol=TOLERANCE[precision] * scale)
    again = copy_model(plain, precision)
    assert policies_of(again) == policies
    np.testing.assert_allclose(np.asarray(again(x), np.float64), expected, atol=1e-6 * scale)
