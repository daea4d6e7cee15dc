"""Chains of compression through the application, on digits with a small network."""

import csv
import json
import shutil

import numpy as np
import pytest
import tf_keras as keras

from apps.common import training
from apps.image_classification import train as train_lib
from apps.image_classification.config import Config
from strategies.compression import hooks, low_bit
from strategies.compression.statistics import settle_statistics

SMALL = {"model": "wrn_10_1", "width": 0.5, "epochs": 3, "verbose": 0, "export": "none", "compression_epochs": 2,
         "deterministic": False}  # it cannot be switched off again, and other tests share this process


def config(path, **changes):
    return Config(workdir=str(path), **{**SMALL, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "trained"
    train_lib.train(config(path, export="float32"))
    return path


def kernels(path):
    model = keras.models.load_model(path / "model.keras", compile=False)
    return {slot.name: slot.variable.numpy() for slot in hooks.weight_slots(model)}


def test_a_chain_keeps_what_each_phase_did(trained, tmp_path):
    metrics = train_lib.train(config(tmp_path / "run", compression="filters,prune,quantize", initial_model=str(trained),
                                     distill_teacher=str(trained), prune_sparsity=0.6, export="float32,int8"))
    before = json.loads((trained / "metrics.json").read_text())
    assert metrics["num_parameters"] < 0.7 * before["num_parameters"] and metrics["macs"] < before["macs"]
    weights = kernels(tmp_path / "run")
    zeros = sum((w == 0).sum() for w in weights.values()) / sum(w.size for w in weights.values())
    assert zeros == pytest.approx(0.6, abs=0.02)
    for value in weights.values():  # 8 bits for each filter
        columns = value.reshape(-1, value.shape[-1])
        assert max(len(np.unique(column)) for column in columns.T) <= 255
    assert metrics["int8_agreement"] >= 0.97
    with open(tmp_path / "run" / "report.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["variant"] for row in rows} == {"filters,prune,quantize"}
    phases = sorted(path.name for path in (tmp_path / "run" / "phases").iterdir())
    assert phases == ["00_filters", "01_prune", "02_quantize"]
    assert "curves_01_prune" in (tmp_path / "run" / "report.md").read_text()


def test_an_interrupted_chain_goes_on_in_the_middle_of_a_phase(trained, tmp_path):
    class Interrupt(keras.callbacks.Callback):
        steps = 0

        def on_train_batch_end(self, batch, logs=None):
            self.steps += 1
            if self.steps == 27:  # within the first phase
                raise KeyboardInterrupt

    options = {"compression": "prune,low_bit", "initial_model": str(trained), "checkpoint_seconds": 0.2,
               "compression_epochs": 1, "prune_ramp": 1.0, "augmentation": "shift", "shift_pixels": 1}
    whole = train_lib.train(config(tmp_path / "whole", **options))
    with pytest.raises(KeyboardInterrupt):
        train_lib.train(config(tmp_path / "cut", **options), callbacks=[Interrupt()])
    assert not (tmp_path / "cut" / "metrics.json").exists()
    assert (tmp_path / "cut" / "phases" / "00_prune" / "checkpoints").exists()
    again = train_lib.train(config(tmp_path / "cut", **options))
    for name, value in kernels(tmp_path / "whole").items():
        np.testing.assert_array_equal(kernels(tmp_path / "cut")[name], value, err_msg=name)
    assert again["test_accuracy"] == whole["test_accuracy"]
    done = train_lib.train(config(tmp_path / "cut", **options))
    assert done["steps"] == whole["steps"]


def test_low_bit_weights_can_be_packed(trained, tmp_path):
    settings = config(tmp_path / "run", compression="low_bit", initial_model=str(trained), low_bit_bits=3)
    train_lib.train(settings)
    model = keras.models.load_model(tmp_path / "run" / "model.keras", compile=False)
    before = model.get_weights()
    settle_statistics(model, train_lib.data.load(settings).train().take(training.NUM_STATISTICS_BATCHES))
    for one, other in zip(before, model.get_weights()):  # they are those of the codes already
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    with open(tmp_path / "run" / "report.csv", newline="") as file:
        rows = {row["format"]: row for row in csv.DictReader(file)}
    assert float(rows["lbw"]["max_abs_diff"]) == 0 and rows["lbw"]["value"] == rows["keras"]["value"]
    path = tmp_path / "run" / "export" / "model.lbw"
    assert int(rows["lbw"]["bytes"]) == path.stat().st_size
    stored = list(low_bit.read_packed(path).values())
    coded = sum(w.size for w in kernels(tmp_path / "run").values())
    content = coded * 3 / 8 + 4 * (sum(w.size for w in stored) - coded)
    assert content < path.stat().st_size < content + 8000  # the rest is the header


@pytest.mark.parametrize("options", [
    pytest.param({"distill_cache": True, "compression_epochs": 1}, marks=pytest.mark.conformance),
    pytest.param({"distill_hint": "attention", "distill_hint_weight": 10.0, "augmentation": "shift"},
                 marks=pytest.mark.conformance),
    {"distill_hint": "features", "distill_hint_epochs": 1, "compression_epochs": 1}])
def test_a_student_of_another_network(trained, tmp_path, options):
    metrics = train_lib.train(config(tmp_path / "run", model="preact_resnet20", compression="distill",
                                     distill_teacher=f"{trained},{trained}", **{**options, "width": 0.25}))
    assert metrics["test_accuracy"] > 0.3
    assert keras.models.load_model(tmp_path / "run" / "model.keras", compile=False).name == "preact_resnet20"


@pytest.mark.conformance
def test_mixed_precision_and_iterations(trained, tmp_path):
    metrics = train_lib.train(config(tmp_path / "run", compression="prune,share", initial_model=str(trained),
                                     precision="mixed_bfloat16", prune_iterations=2, compression_epochs=1,
                                     share_clusters=4))
    assert metrics["num_nonzero"] < 0.35 * metrics["num_parameters"]
    assert all(len(np.unique(w)) <= 5 for w in kernels(tmp_path / "run").values())


def test_a_teacher_of_other_classes_is_refused(trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    path = other / "export" / "labels.json"
    path.write_text(path.read_text().replace('"3"', '"three"'))
    for flag, method in (("distill_teacher", "distill"), ("initial_model", "prune")):
        with pytest.raises(ValueError, match=f"--{flag}=.* other classes than .* 'three' in the place of '3'"):
            train_lib.train(config(tmp_path / "run", compression=method, **{flag: str(other)}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options, message", [
    ({"compression": "prune", "initial_model": "TRAINED", "compression_epochs": 0}, "needs --compression_epochs of 1"),
    ({"compression": "prune", "prune_select": "nothing"}, "No weight of model .* matches 'nothing'"),
    ({"compression": "distill", "distill_teacher": "TRAINED", "distill_cache": True, "augmentation": "shift"},
     "--distill_cache .* as images are with --augmentation=none only"),
    ({"compression": "distill", "distill_teacher": "TRAINED", "data": "mnist", "data_dir": "/nonexistent"}, "data_dir"),
    ({"compression": "distill", "distill_teacher": "TRAINED", "image_size": 12}, "Teacher .* inputs must have shape"),
    ({"compression": "prune", "distill_teacher": "TRAINED", "image_size": 12}, "Teacher .* inputs must have shape"),
    ({"compression": "prune", "initial_model": "TRAINED", "image_size": 12}, "--initial_model takes .* needs"),
    ({"compression": "distill", "distill_teacher": "TRAINED", "distill_hint": "features",
      "distill_hint_layers": "a:b"}, "Unknown hint layer 'a'")])
def test_what_cannot_work_is_refused_before_anything_is_written(trained, tmp_path, options, message):
    options = {name: str(trained) if value == "TRAINED" else value for name, value in options.items()}
    with pytest.raises(ValueError, match=message):
        train_lib.train(config(tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()
