import contextlib

import numpy as np
import pytest
import tf_keras as keras

from strategies import export
from strategies.export import normalizing
from tests.strategies.export import models


@pytest.mark.parametrize("options", [{}, {"epsilon": 1e-6, "scale": False}, {"center": False, "axis": 1},
                                     {"axis": (1, 2)}, {"epsilon": 1.0}])
def test_the_same_function(options):
    layer = keras.layers.LayerNormalization(**options)
    model = models.randomized(keras.Sequential([keras.Input((5, 6)), layer]))
    sizes = 10.0 ** np.arange(-4, 4)[:, None, None]  # variances on both sides of epsilon
    x = (np.random.default_rng(0).normal(1, 1, (8, 5, 6)) * sizes).astype(np.float32)
    expected = model(x).numpy()
    with normalizing.in_two_steps(model) as found:
        assert found and "call" in layer.__dict__
        np.testing.assert_allclose(model(x).numpy(), expected, rtol=1e-3, atol=1e-4)
    assert "call" not in layer.__dict__
    with normalizing.in_two_steps(models.conv_norm_relu()) as found:
        assert not found


def test_eight_bits_hold_small_and_large_tokens(tmp_path, monkeypatch):
    """As in the sums of a pre-norm Transformer: the largest twenty times the smallest."""
    model = models.randomized(keras.Sequential([keras.Input((1, 32)), keras.layers.LayerNormalization(epsilon=1e-6)]))
    noise = np.random.default_rng(0)
    x = (noise.normal(size=(400, 1, 32)) * 10 ** noise.uniform(0, 1.3, (400, 1, 1))).astype(np.float32)
    expected, errors = model(x).numpy(), {}
    small = np.abs(x).mean((1, 2)) < 3
    for name in ("two steps", "one"):
        if name == "one":
            monkeypatch.setattr(normalizing, "in_two_steps", lambda model: contextlib.nullcontext(False))
        export.convert(model, tmp_path / "int8.tflite", "int8", representative=x)
        assert export.float_operators(tmp_path / "int8.tflite") == []
        difference = (export.Runner(tmp_path / "int8.tflite")(x) - expected)[small]
        errors[name] = np.sqrt(np.mean(difference ** 2) / np.mean(expected[small] ** 2))
    assert errors["two steps"] < 0.12 and errors["one"] > 2 * errors["two steps"]
