"""What must hold for every layer and model when training is spread over devices; see `properties.py`."""

import numpy as np
import tf_keras as keras

from layers.regularization import decay_kernels_only
from strategies.distribution.model_parallel import ModelParallel
from strategies.distribution.pipeline import Pipeline
from strategies.distribution.sharing import batch_norms
from strategies.distribution.single import Single
from strategies.distribution.synchronous import Synchronous
from tests.conformance import catalogue
from tests.conformance.properties import precision_of
from tests.strategies.distribution import replicas as oracle

NUM_DEVICES = 4


def replicas(entry):
    """Two replicas end with the very weights of the two halves of each batch, one after another on one device.

    With batch normalisation over all replicas, in float64, they end with those of the whole batch.
    """
    build, batches = _seeded(entry), _batches(entry)
    found = oracle.train(Synchronous(num_devices=2), build, _compile, batches)
    expected = oracle.halves(build, _optimizer, _per_example, batches)
    for a, b in zip(expected.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with precision_of("float64"):
        batches = _batches(entry, "float64")
        found = oracle.train(Synchronous(num_devices=2, synchronize_batch_norm=True), build, _compile, batches)
        return _compare_with_one_device(build, batches, found)


def stages(entry):
    """Layers on two devices, fed with two parts of each batch, end with the very weights of one device."""
    build, batches = _seeded(entry), _batches(entry)
    strategy = Pipeline(num_devices=2, micro_batches=2)
    strategy.check(build(), batches)
    found = oracle.train(strategy, build, _compile, batches)
    expected = oracle.train(Single(micro_batches=2), build, _compile, batches)
    for a, b in zip(expected.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    return {}


def mesh(entry):
    """On a mesh of 2 x 2 devices an entry ends, in float64, with the weights of one device."""
    build = _seeded(entry)
    with precision_of("float64"):
        batches = _batches(entry, "float64")
        strategy = ModelParallel(mesh="batch:2,model:2")
        strategy.check(build(), batches)
        found = oracle.train(strategy, build, _compile, batches)
        return _compare_with_one_device(build, batches, found)


def _seeded(entry):
    def build():
        keras.utils.set_random_seed(0)
        return entry.build()

    return build


def _batches(entry, dtype="float32"):
    x = np.concatenate([entry.inputs(seed) for seed in range(3)]).astype(dtype)
    y = np.eye(catalogue.NUM_CLASSES, dtype=dtype)[np.tile(catalogue.labels(), 3)]
    return oracle.stream(x, y, catalogue.BATCH_SIZE)


def _optimizer(model):
    return decay_kernels_only(keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=0.01), model)


def _compile(model):
    model.compile(_optimizer(model), keras.losses.CategoricalCrossentropy(from_logits=True))


def _per_example(y, logits):
    return keras.losses.categorical_crossentropy(y, logits, from_logits=True)


def _unfused(model):
    for layer in batch_norms(model):
        layer.fused = False  # the fused kernel keeps another moving variance (Bessel's correction)
    return model


def _compare_with_one_device(build, batches, found):
    """Compares a model trained in float64 with one device.

    They are equal to rounding, or, where a network multiplies rounding, no further apart than two runs on one device
    whose first weights differ by it.
    """
    expected = oracle.train(Single(), lambda: _unfused(build()), _compile, batches)
    difference, unavoidable = oracle.largest_difference(expected, found), 0.0
    if difference > 1e-12:
        def rounded():
            model, noise = _unfused(build()), np.random.default_rng(0)
            model.set_weights([w * (1 + 1e-15 * noise.normal(size=w.shape)) if w.dtype.kind == "f" else w
                               for w in model.get_weights()])
            return model

        unavoidable = oracle.largest_difference(expected, oracle.train(Single(), rounded, _compile, batches))
        assert difference <= 10 * unavoidable, (difference, unavoidable)
    return {"float64_difference": difference, "of_rounding": unavoidable}


PROPERTIES = {"replicas": replicas, "stages": stages, "mesh": mesh}
