"""Any strategy × any compression × any precision: it trains, or says before training that it cannot."""

import json
import sys

import numpy as np
import pytest
import tf_keras as keras

from apps.image_classification import train as train_lib
from apps.image_classification.config import Config
from strategies import compression
from strategies.compression import hooks
from strategies.distribution import DISTRIBUTIONS
from strategies.supervisor import Supervisor

pytestmark = pytest.mark.conformance
FLAGS = {"data": "digits", "model": "resnet20", "width": 0.25, "batch_size": 64, "epochs": 2, "compression_epochs": 1,
         "export": "none", "verbose": 0, "keep": "last", "num_representative": 32}
OPTIONS = {"sync": {"num_devices": 2}, "pipeline": {"num_devices": 2, "micro_batches": 2},
           "model_parallel": {"mesh": "batch:2,model:2"}, "federated": {"clients": 4, "client_share": 0.5}}
SIZES = {"multi_worker": {"workers": 2}, "async": {"workers": 2, "servers": 1}}
# (strategy, flag): what is said before training.
REFUSED = {("model_parallel", "quantize"): "--compression=quantize does not work",
           ("model_parallel", "low_bit"): "--compression=low_bit does not work",
           ("async", "mixed_float16"): "--precision=mixed_float16 scales the loss"}


def train(workdir, distribution, **flags):
    """(exit code, what was said)."""
    flags = {**FLAGS, **OPTIONS.get(distribution, {}), "distribution": distribution, **flags}
    if distribution not in SIZES:
        try:
            train_lib.train(Config(workdir=str(workdir), **flags))
            return 0, ""
        except ValueError as error:
            return 2, str(error)
    lines = []
    command = [sys.executable, "-m", "apps.image_classification.train", f"--workdir={workdir}",
               *(f"--{name}={value}" for name, value in flags.items())]
    # The chief's own words go to the terminal; those of the others are the same.
    return Supervisor(command, max_restarts=0, report=lines.append, **SIZES[distribution]).run(), "\n".join(lines)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train_lib.train(Config(workdir=str(folder), **{**FLAGS, "epochs": 6}))
    return folder


def check(workdir, found, distribution, flag):
    """The trained model, or None where the combination was refused as it should be."""
    code, words = found
    refusal = REFUSED.get((distribution, flag))
    if refusal is not None:
        assert code == 2 and not (workdir / "config.json").exists()
        assert distribution in SIZES or refusal in words
        return None
    assert code == 0, words
    assert json.loads((workdir / "metrics.json").read_text())["test_accuracy"] > 0.3
    model = keras.models.load_model(workdir / "model.keras", compile=False)
    assert all(np.isfinite(w).all() for w in model.get_weights())
    return model


def check_trace(method, model, before=None):
    """What a method leaves in a model's weights, whatever strategy trained it."""
    kernels = [slot.variable.numpy() for slot in hooks.weight_slots(model)]
    if method == "filters":
        assert model.count_params() < 0.8 * before.count_params()
    elif method == "prune":
        assert sum((w == 0).sum() for w in kernels) / sum(w.size for w in kernels) == pytest.approx(0.8, abs=0.02)
    elif method == "share":
        assert all(len(np.unique(w)) <= 16 for w in kernels)
    elif method == "quantize":  # 8 bits for each filter
        assert all(len(np.unique(column)) <= 255 for w in kernels for column in w.reshape(-1, w.shape[-1]).T)
    elif method == "low_bit":
        for w in kernels:
            exponents = np.log2(np.abs(w[w != 0]) / np.abs(w).max())
            np.testing.assert_allclose(exponents, np.round(exponents), atol=1e-4)
            assert exponents.min() > -3.5  # of 4 bits: 0, and four powers with a sign


@pytest.mark.parametrize("method", compression.METHODS)
@pytest.mark.parametrize("distribution", [name for name in DISTRIBUTIONS if name != "single"])
def test_compression(trained, tmp_path, distribution, method):
    start = {"distill_teacher": str(trained)} if method == "distill" else {"initial_model": str(trained)}
    # A student begins with random weights; what four weights of five were taken from must find its way back.
    epochs = {"distill": {"epochs": 8}, "prune": {"compression_epochs": 4}}.get(method, {})
    found = train(tmp_path / "run", distribution, compression=method, **start, **epochs)
    model = check(tmp_path / "run", found, distribution, method)
    if model is not None:
        check_trace(method, model, keras.models.load_model(trained / "model.keras", compile=False))


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("distribution", [name for name in DISTRIBUTIONS if name != "single"])
def test_precision(tmp_path, distribution, precision):
    found = train(tmp_path / "run", distribution, precision=precision, epochs=8)
    check(tmp_path / "run", found, distribution, precision)


@pytest.mark.parametrize("distribution", ["sync", "pipeline", "multi_worker", "async", "federated"])
def test_quantization_by_tfmot(trained, tmp_path, distribution):
    found = train(tmp_path / "run", distribution, compression="quantize", quantize_engine="tfmot",
                  initial_model=str(trained))
    check(tmp_path / "run", found, distribution, "tfmot")


@pytest.mark.parametrize("distribution", [name for name in DISTRIBUTIONS if name != "single"])
def test_what_does_not_compile_says_so(tmp_path, distribution):
    code, _ = train(tmp_path / "run", distribution, jit_compile=True)
    assert code == 2 and not (tmp_path / "run" / "config.json").exists()
