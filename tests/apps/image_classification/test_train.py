"""The application from flags to report, on digits with a small network."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from absl import flags

from apps.common import fitting, flagging
from apps.common.variants import read_rows
from apps.image_classification import train as train_lib
from apps.image_classification.config import Config
from strategies import checkpoint
from tests.apps.image_classification.tensorboard_client import tensorboard

ROOT = pathlib.Path(__file__).parents[3]
SMALL = {"model": "wrn_10_1", "width": 0.5, "epochs": 2, "augmentation": "shift", "shift_pixels": 1, "verbose": 0,
         "deterministic": False}  # it cannot be switched off again, and other tests share this process
COLUMNS = ("variant,format,metric,value,parameters,nonzero,macs,bytes,gzip_bytes,latency_ms,peak_memory_bytes,"
           "max_abs_diff").split(",")


def command(path, **flags):
    options = [f"--{k}={v}" for k, v in {**SMALL, "workdir": path, **flags}.items()]
    return [sys.executable, "-m", "apps.image_classification.train", *options]


def run(path, **flags):
    return subprocess.run(command(path, **flags), cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run to the end with every export."""
    path = tmp_path_factory.mktemp("runs") / "run"
    metrics = train_lib.train(Config(workdir=str(path), dropout=0.1, l2=1e-5, label_smoothing=0.1, **SMALL))
    return path, metrics


def test_workdir_holds_everything(finished):
    path, metrics = finished
    for name in ("config.json", "history.csv", "metrics.json", "model.keras", "report.md", "report.csv",
                 "plots/curves.png", "plots/confusion_matrix.png", "plots/predictions.png", "export/float32.tflite",
                 "export/float16.tflite", "export/dynamic.tflite", "export/int8.tflite", "export/saved_model"):
        assert (path / name).exists(), name
    stored = json.loads((path / "metrics.json").read_text())
    assert stored == metrics
    assert {"test_accuracy", "test_loss", "num_parameters", "seconds", "macs", "steps"} <= set(stored)
    assert all(isinstance(v, (int, float)) for v in stored.values())
    assert stored["test_accuracy"] > 0.3 and stored["steps"] == 40


def test_report_lists_every_file_with_its_measures(finished):
    path, metrics = finished
    with open(path / "report.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert [row["format"] for row in rows] == ["keras", "saved_model", "float32", "float16", "dynamic", "int8"]
    by_format = {row["format"]: row for row in rows}
    assert float(by_format["keras"]["value"]) == pytest.approx(metrics["test_accuracy"], abs=1e-6)
    assert float(by_format["float32"]["value"]) == pytest.approx(metrics["test_accuracy"], abs=1e-6)
    assert int(by_format["int8"]["bytes"]) < int(by_format["float32"]["bytes"])
    for row in rows[2:]:
        assert float(row["latency_ms"]) > 0 and float(row["max_abs_diff"]) >= 0
        assert int(row["bytes"]) == (path / "export" / f"{row['format']}.tflite").stat().st_size


def test_exported_keras_file_predicts_the_reported_accuracy(finished):
    path, metrics = finished
    config = Config(workdir=str(path), dropout=0.1, l2=1e-5, label_smoothing=0.1, **SMALL)
    model = keras.models.load_model(path / "model.keras", compile=False)
    accuracy = train_lib.accuracy_over(model.predict_on_batch, train_lib.data.load(config).test)
    assert accuracy == pytest.approx(metrics["test_accuracy"])


def test_mistakes_come_first(finished):
    path, _ = finished
    config = Config(workdir=str(path), dropout=0.1, l2=1e-5, label_smoothing=0.1, **SMALL)
    model = keras.models.load_model(path / "model.keras", compile=False)
    logits, targets, (images, probabilities, shown) = train_lib.examine(model, train_lib.data.load(config).test)
    assert logits.shape == (360, 10) and targets.shape == (360,) and images.shape == (36, 8, 8, 1)
    right = probabilities.argmax(1) == shown
    assert list(right) == sorted(right) and (~right).sum() == min(36, (logits.argmax(1) != targets).sum())
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_history_has_a_row_an_epoch(finished):
    rows = fitting.read_history(finished[0] / "history.csv")
    assert [row["epoch"] for row in rows] == [0, 1]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"} <= set(rows[0])
    assert rows[1]["learning_rate"] == pytest.approx(0, abs=1e-3)


def test_tensorboard_shows_scalars_graph_images_and_hparams(finished):
    path, metrics = finished
    with tensorboard(path / "logs") as ask:
        scalars, images = ask("scalars/tags"), ask("images/tags")
        groups = ask("hparams/session_groups", {
            "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_RUNNING"], "startIndex": 0,
            "sliceSize": 10})
        assert ask("graphs/info")["train"]["run_graph"]
    assert {"epoch_loss", "epoch_accuracy", "epoch_learning_rate"} <= set(scalars["train"])
    assert "epoch_accuracy" in scalars["validation"]
    assert {"training_batch", "confusion_matrix", "predictions", "curves"} == set(images["pictures"])
    assert images["pictures"]["training_batch"]["samples"] == 16
    (group,) = groups["sessionGroups"]
    assert group["hparams"]["model"] == SMALL["model"] and group["hparams"]["l2"] == 1e-5
    values = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
    assert values["test_accuracy"] == pytest.approx(metrics["test_accuracy"])


def test_zero_epochs_evaluates_the_untrained_model(tmp_path):
    metrics = train_lib.train(Config(workdir=str(tmp_path / "run"), **{**SMALL, "epochs": 0, "export": "none"}))
    assert metrics["steps"] == 0 and 0 <= metrics["test_accuracy"] < 0.5


@pytest.mark.parametrize("precision", ["mixed_bfloat16", *(pytest.param(name, marks=pytest.mark.conformance)
                                                           for name in ("mixed_float16", "float64"))])
def test_files_are_the_same_kind_in_every_precision(tmp_path, precision):
    path = tmp_path / "run"
    flags = {**SMALL, "epochs": 1, "precision": precision, "export": "float32,int8"}
    train_lib.train(Config(workdir=str(path), **flags))
    model = keras.models.load_model(path / "model.keras", compile=False)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    rows = {row["format"]: row for row in read_rows(path / "report.csv")}
    assert rows["float32"]["max_abs_diff"] < 1e-4
    assert rows["int8"]["value"] == pytest.approx(rows["keras"]["value"], abs=0.05)


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    config = Config(workdir=str(tmp_path / "run"), **{**SMALL, "epochs": 20, "learning_rate": 1e12, "export": "none",
                                                      "warmup_fraction": 0.5})
    with pytest.raises(fitting.TrainingDiverged, match=r"The loss is (nan|inf) at batch \d+ .*Lower --learning_rate"):
        train_lib.train(config)
    assert not (tmp_path / "run" / "metrics.json").exists()
    for step in checkpoint.Directory(tmp_path / "run" / "checkpoints").steps():
        arrays, _ = checkpoint.read(tmp_path / "run" / "checkpoints" / f"step_{step:010d}.npz")
        assert all(np.isfinite(a).all() for name, a in arrays.items() if name.startswith("weights/"))


def test_early_stopping_ends_the_run_for_good(tmp_path):
    config = Config(workdir=str(tmp_path / "run"), **{**SMALL, "epochs": 30, "learning_rate": 1e-9, "export": "none",
                                                      "early_stopping": 2})
    first = train_lib.train(config)
    assert first["steps"] < 30 * 20
    again = train_lib.train(config)
    assert again == first


def final_arrays(path):
    directory = checkpoint.Directory(path / "checkpoints")
    return checkpoint.read(directory.path / f"step_{directory.steps()[-1]:010d}.npz")


@pytest.mark.parametrize("flags", [{"dropout": 0.2, "epochs": 4}])
def test_killed_run_ends_with_the_same_bits(tmp_path, flags):
    flags = {**flags, "augmentation": "shift,flip,cutout,mixup", "export": "none", "deterministic": True}
    whole = run(tmp_path / "whole", **flags)
    assert whole.returncode == 0, whole.stderr[-2000:]

    process = subprocess.Popen(command(tmp_path / "killed", checkpoint_seconds=0.05, **flags), cwd=ROOT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    directory = checkpoint.Directory(tmp_path / "killed" / "checkpoints")
    while not any(20 < step % 80 and step % 20 for step in directory.steps()):  # within an epoch that is not the first
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    interrupted_at = directory.steps()[-1]
    assert 20 < interrupted_at < 80

    resumed = run(tmp_path / "killed", **flags)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert "Resuming" in resumed.stdout
    expected, expected_state = final_arrays(tmp_path / "whole")
    arrays, state = final_arrays(tmp_path / "killed")
    assert state["step"] == expected_state["step"] == 80
    assert set(arrays) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[name], value, err_msg=name)
    assert state["best_epoch"] == expected_state["best_epoch"]
    histories = [(tmp_path / name / "history.csv").read_text() for name in ("whole", "killed")]
    assert histories[0] == histories[1]


def test_time_budget_becomes_a_number_of_steps_once(tmp_path):
    path = tmp_path / "run"
    config = Config(workdir=str(path), **{**SMALL, "time_budget": 0.3, "export": "none"})
    metrics = train_lib.train(config)
    resolved = json.loads((path / "config.json").read_text())["resolved"]
    assert metrics["steps"] == resolved["total_steps"] > 0
    assert resolved["timed_step_seconds"] > 0
    again = train_lib.train(config)
    assert again["steps"] == metrics["steps"]


BAD_FLAGS = {
    "model": ({"model": "resnet21"}, "Unknown model 'resnet21'.*Did you mean 'resnet"),
    "data": ({"data": "digitz"}, "Unknown data.*'digitz'.*Did you mean 'digits'"),
    "epochs": ({"epochs": -1}, "--epochs must be at least 0; received -1"),
    "batch": ({"batch_size": 5000}, "--batch_size must be between 1 and"),
    "precision": ({"precision": "half"}, "Unknown value of --precision"),
    "export": ({"export": "float32,onnx"}, "Unknown export format 'onnx'"),
    "distribution": ({"distribution": "many"}, "Unknown value of --distribution: 'many'"),
    "augmentation": ({"augmentation": "flop"}, "'flop'.*Did you mean 'flip'"),
    "directory": ({"data": "fashion_mnist", "data_dir": "/nonexistent/folder"}, "--data_dir"),
    "flag": ({"epoch": 3}, "Unknown command line flag 'epoch'. Did you mean"),
    "number": ({"epochs": "many"}, "flag --epochs=many"),
}


@pytest.mark.parametrize("name", BAD_FLAGS)
def test_bad_flags_are_refused_and_write_nothing(tmp_path, name):
    bad, message = BAD_FLAGS[name]
    values = flags.FlagValues()
    flagging.define_flags(Config, values)
    with pytest.raises((ValueError, flags.Error), match=message):
        values(command(tmp_path / "run", **bad)[2:])
        train_lib.main(flagging.config_from_flags(Config, values))
    assert not (tmp_path / "run").exists()


def test_a_model_that_cannot_be_exported_is_refused_before_training(tmp_path, monkeypatch):
    build = train_lib.models.build

    def with_svd(config, spec):
        model = build(config, spec)
        squares = keras.layers.Reshape((2, 5))(model.output)
        values = keras.layers.Lambda(lambda x: tf.linalg.svd(x)[0], name="svd")(squares)
        return keras.Model(model.input, keras.layers.Dense(10)(values), name="strange")

    monkeypatch.setattr(train_lib.models, "build", with_svd)
    with pytest.raises(ValueError, match="'strange' cannot be exported as dynamic, which was tried before training"):
        train_lib.train(Config(workdir=str(tmp_path / "run"), export="saved_model,dynamic", **SMALL))
    assert not (tmp_path / "run").exists()


def test_early_stopping_needs_validation(tmp_path):
    with pytest.raises(ValueError, match="--early_stopping=2 is judged by validation, and these data and flags leave"):
        train_lib.train(Config(workdir=str(tmp_path / "run"), **{**SMALL, "early_stopping": 2,
                                                                 "validation_fraction": 0.0}))
    assert not (tmp_path / "run").exists()


def test_the_last_weights_are_kept_without_validation_and_it_is_said(tmp_path, capsys):
    flags = {**SMALL, "epochs": 0, "export": "none", "validation_fraction": 0.0}
    train_lib.train(Config(workdir=str(tmp_path / "best"), **flags))
    assert "leave no validation part to say which epoch is best: the last weights are kept" in capsys.readouterr().out
    train_lib.train(Config(workdir=str(tmp_path / "last"), keep="last", **flags))
    assert "which epoch is best" not in capsys.readouterr().out


def test_bad_flag_as_a_process(tmp_path):
    result = run(tmp_path / "run", model="resnet21")
    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "Did you mean 'resnet" in lines[0]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number, code, words", [(signal.SIGINT, 130, "run the same command again to resume"),
                                                 (signal.SIGTERM, 143, "asked to end (SIGTERM); saved at step")])
def test_who_is_asked_to_end_says_how_to_resume(tmp_path, number, code, words):
    # What a shell starts in the background ignores SIGINT, and so would this process.
    process = subprocess.Popen(command(tmp_path / "run", epochs=200, export="none", checkpoint_seconds=0.1), cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ},
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    directory = checkpoint.Directory(tmp_path / "run" / "checkpoints")
    deadline = time.monotonic() + 200
    while not directory.steps():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert words in errors
