"""Statistics of batch normalisation taken anew, against NumPy."""

import numpy as np
import tf_keras as keras

from strategies.compression.statistics import settle_statistics
from tests.strategies.compression import kinds


def test_statistics_are_means_over_the_batches():
    model, _ = kinds.build("nested")  # a model in a model
    batches = np.random.default_rng(0).normal(2.0, 3.0, size=(3, 16, *kinds.IMAGE)).astype(np.float32)
    before = {w.name: w.numpy() for w in model.weights}
    settle_statistics(model, [(batch, None) for batch in batches])
    inner = model.get_layer("inner")
    first = next(layer for layer in inner.layers if isinstance(layer, keras.layers.BatchNormalization))
    reads = keras.Model(inner.input, first.input)
    values = [reads(model.get_layer("first")(batch)).numpy() for batch in batches]
    np.testing.assert_allclose(first.moving_mean, np.mean([v.mean(axis=(0, 1, 2)) for v in values], axis=0), rtol=1e-4)
    np.testing.assert_allclose(first.moving_variance, np.mean([v.var(axis=(0, 1, 2), ddof=1) for v in values], axis=0),
                               rtol=1e-4)
    assert first.momentum == 0.9
    for weight in model.weights:
        assert ("moving" in weight.name) != np.array_equal(weight, before[weight.name]), weight.name


def test_a_model_without_batch_normalisation_reads_nothing():
    model, _ = kinds.build("transformer")
    batches = iter(["unread"])
    settle_statistics(model, batches)
    assert next(batches) == "unread"
