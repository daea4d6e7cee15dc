"""The application spread over devices: a run begun under one strategy and ended under another."""

import json
import re

import numpy as np
import pytest
import tf_keras as keras

from apps.common import config as config_lib
from apps.image_classification import train as train_lib
from apps.image_classification.config import Config
from strategies.distribution import DISTRIBUTIONS, pipeline

# In float32 a ReLU on the border between dead and alive lets runs part that rounding alone tells apart.
FLAGS = {"data": "digits", "model": "wrn_10_2", "width": 0.25, "normalization": "group", "dropout": 0.2, "epochs": 2,
         "batch_size": 64, "precision": "float64", "deterministic": False, "export": "none", "verbose": 0}


class Interrupt(keras.callbacks.Callback):
    """Ends a run after its first epoch, as a key press does."""

    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def train(folder, callbacks=(), **flags):
    return train_lib.train(Config(workdir=str(folder), **{**FLAGS, **flags}), callbacks)


def weights(folder):
    return keras.models.load_model(folder / "model.keras", compile=False).get_weights()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    train(folder)
    return folder


@pytest.mark.parametrize("first, second", [
    pytest.param({"distribution": "sync", "num_devices": 2}, {"distribution": "pipeline", "num_devices": 4},
                 marks=pytest.mark.conformance),
    pytest.param({}, {"distribution": "model_parallel", "mesh": "batch:2,model:2"}, marks=pytest.mark.conformance),
    ({"distribution": "model_parallel", "mesh": "batch:2,model:2"}, {"distribution": "sync", "num_devices": 4})],
    ids=str)
def test_a_run_goes_on_under_another_strategy(alone, tmp_path, first, second):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, [Interrupt()], **first)
    metrics = train(tmp_path, **second)
    expected = json.loads((alone / "metrics.json").read_text())
    assert metrics["steps"] == expected["steps"]
    for a, b in zip(weights(alone), weights(tmp_path)):  # kept as float32
        np.testing.assert_allclose(a, b, atol=1e-6 * max(np.abs(a).max(), 1))


@pytest.mark.parametrize("flags, words", [
    ({"distribution": "model_parallel", "mesh": "batch:2", "compression": "quantize"},
     "--compression=quantize does not work under --distribution=model_parallel"),
    ({"distribution": "pipeline", "num_devices": 2, "jit_compile": True}, "--jit_compile compiles for one device"),
    ({"distribution": "sync", "num_devices": 2, "jit_compile": True}, "--jit_compile compiles for one device"),
    ({"distribution": "sync", "mesh": "batch:2"}, "--mesh does not apply to --distribution=sync"),
    ({"num_devices": 2}, "--num_devices does not apply to --distribution=single"),
    ({"distribution": "sync", "num_devices": 3}, "--batch_size=64 cannot be shared out over 3 replicas"),
    ({"distribution": "model_parallel"}, "expected sizes of the axes batch and model"),
    ({"distribution": "model_parallel", "mesh": "batch:2,model:2", "layout": "head/kernel=-,model"},
     "matches no variable"),
    ({"distribution": "pipeline", "num_devices": 4, "placement": "rows"}, "Unknown value of --placement: 'rows'"),
    ({"distribution": "many"}, "Unknown value of --distribution: 'many'")], ids=str)
def test_what_cannot_be_is_said_before_training(tmp_path, flags, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        train(tmp_path / "run", **flags)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_teacher_that_cannot_run_there_is_named_before_training(tmp_path):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.SeparableConv2D(4, 3, name="apart")(inputs)
    keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))).save(tmp_path / "t.keras")
    flags = {"distribution": "model_parallel", "mesh": "batch:2,model:2", "compression": "distill",
             "distill_teacher": str(tmp_path / "t.keras")}
    with pytest.raises(ValueError, match="--distill_teacher=.*no rules for layer 'apart'.*--distill_cache"):
        train(tmp_path / "run", **flags)
    assert not (tmp_path / "run" / "config.json").exists()


def test_flags_name_what_there_is():
    assert config_lib.DISTRIBUTIONS == tuple(DISTRIBUTIONS)
    assert config_lib.PLACEMENTS == pipeline.PLACEMENTS
