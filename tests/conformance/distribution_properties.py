"""What must hold for every layer and model when training is spread over devices; see `properties.py`."""

import pathlib
import sys
import tempfile

import numpy as np
import tf_keras as keras

from layers.regularization import decay_kernels_only
from strategies.distribution.model_parallel import ModelParallel
from strategies.distribution.pipeline import Pipeline
from strategies.distribution.sharing import batch_norms
from strategies.distribution.single import Single
from strategies.distribution.synchronous import Synchronous
from strategies.supervisor import Supervisor
from tests.conformance import catalogue
from tests.conformance.properties import precision_of
from tests.strategies.distribution import replicas as oracle

NUM_DEVICES = 4
# Networks of the same blocks, only more or wider ones: what is said of one holds for the other.
SAME_BLOCKS = {
    **dict.fromkeys(("resnet32", "resnet44", "resnet56", "resnet110"), "resnet20"),
    **dict.fromkeys(("preact_resnet32", "preact_resnet44", "preact_resnet56", "preact_resnet110"), "preact_resnet20"),
    "resnet34": "resnet18", "resnet101": "resnet50", "resnet152": "resnet50",
    "resnet101_v2": "resnet50_v2", "resnet152_v2": "resnet50_v2",
    **dict.fromkeys(("wrn_16_2", "wrn_16_4", "wrn_16_8", "wrn_22_8", "wrn_28_10", "wrn_40_4"), "wrn_16_1"),
    **dict.fromkeys(("pyramidnet110_a48", "pyramidnet110_a84", "pyramidnet110_a270"), "pyramidnet20_a24"),
    **dict.fromkeys(("pyramidnet164_a48_bottleneck", "pyramidnet164_a84_bottleneck", "pyramidnet164_a270_bottleneck",
                     "pyramidnet200_a240_bottleneck", "pyramidnet272_a200_bottleneck"), "pyramid_bottleneck"),
    **dict.fromkeys(("densenet_bc_100_12", "densenet_bc_190_40", "densenet_bc_250_24"), "densenet_bc_40_12"),
    "densenet169": "densenet121", "densenet201": "densenet121"}


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


def processes(entry):
    """Two processes end with the very weights of two replicas in one process."""
    found = _of_cluster(entry, "multi_worker", workers=2)
    expected = oracle.train(Synchronous(num_devices=2), _seeded(entry), _compile, _batches(entry))
    for a, b in zip(expected.get_weights(), found, strict=True):
        np.testing.assert_array_equal(a, b)
    return {}


def servers(entry):
    """One worker of a parameter server, whose gradients are never stale, ends with the weights of one device."""
    found = _of_cluster(entry, "async", workers=1, servers=1)
    expected = oracle.train(Single(), _seeded(entry), _compile, _batches(entry))
    difference = oracle.largest_difference_of(expected.get_weights(), found)
    assert difference <= 1e-5, difference
    return {"difference": difference}


def _of_cluster(entry, name, **sizes):
    """The weights of an entry after training in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        path, lines = pathlib.Path(folder) / "weights.npz", []
        supervisor = Supervisor([sys.executable, "-m", "tests.conformance.on_processes", name, entry.name, str(path)],
                                max_restarts=0, report=lines.append, **sizes)
        assert supervisor.run() == 0, lines[-5:]
        with np.load(path) as file:
            return [file[key] for key in sorted(file.files, key=lambda key: int(key.removeprefix("arr_")))]


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


PROPERTIES = {"replicas": replicas, "stages": stages, "mesh": mesh, "processes": processes, "servers": servers}
