"""The application from flags to report and to text, with small models."""

import csv
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tf_keras as keras

from apps.common import tokens
from apps.language_model import predict
from apps.language_model import train as train_lib
from apps.language_model.config import Config
from layers.counting import count_parameters
from strategies import export

ROOT = pathlib.Path(__file__).parents[3]
SMALL = {"data": "sums", "units": 16, "num_layers": 1, "num_heads": 2, "length": 16, "batch_size": 128, "epochs": 1,
         "export": "keras,float32,int8", "sample_tokens": 20, "verbose": 0, "deterministic": False}


class Interrupt(keras.callbacks.Callback):
    """Ends a run in its middle."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 60:
            raise KeyboardInterrupt


def train(folder, callbacks=(), **flags):
    return train_lib.train(Config(workdir=str(folder), **{**SMALL, **flags}), callbacks)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """{model: its folder}, runs to the end."""
    folder = tmp_path_factory.mktemp("runs")
    for model in ("transformer", "masked_lstm"):
        train(folder / model, model=model, epochs=2)
    return {model: folder / model for model in ("transformer", "masked_lstm")}


def test_a_run_leaves_metrics_files_and_a_sample(finished):
    for model, folder in finished.items():
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["test_perplexity"] == pytest.approx(np.exp(metrics["test_cross_entropy"]))
        assert metrics["test_cross_entropy"] < 2.3 and metrics["vocabulary_size"] == 4 + 13
        with open(folder / "report.csv") as file:
            rows = {row["format"]: row for row in csv.DictReader(file)}
        assert set(rows) == {"keras", "float32", "int8"}
        values = {name: float(row["value"]) for name, row in rows.items()}
        assert values["float32"] == pytest.approx(values["keras"], rel=1e-4)
        assert values["int8"] == pytest.approx(values["keras"], rel=0.05)
        model_file = keras.models.load_model(folder / "model.keras", compile=False)
        assert model_file.input_shape == (None, 16)  # not its step, which the other files hold
        assert ("A sample" in (folder / "report.md").read_text()) == (model == "transformer")


@pytest.mark.conformance
@pytest.mark.parametrize("model", ["gru", "lstm", "peephole_lstm", "transformer"])
def test_the_window_beside_the_step(tmp_path, model):
    train(tmp_path / "run", model=model, epochs=1, export_window=True)
    with open(tmp_path / "run" / "report.csv") as file:
        rows = {(row["variant"], row["format"]): float(row["value"]) for row in csv.DictReader(file)}
    assert rows["float, window", "float32"] == pytest.approx(rows["float", "float32"], rel=1e-4)
    assert rows["float, window", "int8"] == pytest.approx(rows["float", "keras"], rel=0.05)
    runner = export.Runner(tmp_path / "run" / "window" / "export" / "float32.tflite")
    assert list(runner.input_shapes.values()) == [(16,)]
    for form in ("float32", "int8"):
        with pytest.raises(ValueError, match="scores a whole text and writes none"):
            predict.load_model(tmp_path / "run" / "window" / "export" / f"{form}.tflite")


def test_bits_a_character_are_nats_a_token_where_tokens_are_characters(finished):
    metrics = json.loads((finished["transformer"] / "metrics.json").read_text())
    bits = metrics["test_cross_entropy"] / np.log(2)
    assert metrics["test_bits_per_character"] == pytest.approx(bits, rel=1e-3)
    assert metrics["source_bits_per_character"] < metrics["test_bits_per_character"]


@pytest.mark.parametrize("kind", ["words", pytest.param("subwords", marks=pytest.mark.conformance)])
def test_words_and_subwords_from_text_to_text(tmp_path, kind):
    lines = [f"the {a} {b}  sat on the {c}\n" for a in ("old", "new") for b in ("cat", "dog") for c in ("mat", "hat")]
    (tmp_path / "a.txt").write_text("".join(lines) * 400)
    folder = tmp_path / "run"
    metrics = train(folder, data="text", data_dir=str(tmp_path / "a.txt"), tokens=kind, vocabulary_size=40, model="gru",
                    epochs=4, batch_size=32, learning_rate=0.01)
    test = "".join(lines) * 40
    if kind == "words":
        test = test.replace("  ", " ")
    nats = metrics["test_cross_entropy"] * (metrics["num_test_tokens"] - 1)
    assert metrics["test_bits_per_character"] == pytest.approx(nats / np.log(2) / len(test))
    assert metrics["test_bits_per_character"] < 0.5  # 3 bits a line
    for name in ("model.keras", "export/int8.tflite"):
        (text,) = write(folder / name, "the old cat sat", tokens=12, temperature=0)
        assert text.replace("  ", " ").startswith("the old cat sat on the "), text


@pytest.mark.conformance
def test_a_model_that_carries_its_state_is_compressed(tmp_path):
    metrics = train(tmp_path / "run", model="peephole_lstm", carry_state=True, compression="prune,quantize",
                    compression_epochs=1, prune_sparsity=0.5, learning_rate=0.01)
    assert metrics["num_nonzero"] < 0.65 * metrics["num_parameters"] and metrics["test_cross_entropy"] < 2.3


@pytest.mark.parametrize("model", ["transformer", "masked_lstm"])
def test_a_format_that_a_model_has_not_is_refused_before_training(tmp_path, model):
    with pytest.raises(export.ConversionError, match="cannot be exported as int16, which was tried before training"):
        train(tmp_path / "run", model=model, export="int16")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("flags", [
    {"model": "gru", "carry_state": True},
    pytest.param({"model": "transformer", "dropout": 0.2, "compression": "prune", "compression_epochs": 1},
                 marks=pytest.mark.conformance)], ids=["carried", "pruned"])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, flags):
    flags = {**flags, "export": "none", "checkpoint_seconds": 1e-6, "sample_tokens": 0}
    train(tmp_path / "whole", **flags)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", [Interrupt()], **flags)
    metrics = train(tmp_path / "cut", **flags)
    whole, cut = (keras.models.load_model(tmp_path / name / "model.keras", compile=False) for name in ("whole", "cut"))
    for a, b in zip(whole.weights, cut.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert metrics["num_parameters"] == count_parameters(cut)  # carried states are none


@pytest.mark.conformance
def test_parts_of_a_batch_are_the_batch(tmp_path):
    """The embedding's gradient is sparse; its part in the norm that is clipped must not depend on the parts."""
    flags = {"model": "transformer", "precision": "float64", "export": "none", "sample_tokens": 0,
             "gradient_clip": 0.1, "dropout": 0.1}
    expected, found = (train(tmp_path / f"{parts}", micro_batches=parts, **flags) for parts in (1, 2))
    assert found["test_cross_entropy"] == pytest.approx(expected["test_cross_entropy"], rel=1e-9)


def test_the_pipeline_of_compression(finished, tmp_path):
    metrics = train(tmp_path / "run", model="lstm", compression="distill,prune,quantize", compression_epochs=1,
                    precision="mixed_bfloat16", distill_teacher=str(finished["transformer"]), prune_sparsity=0.5)
    assert metrics["num_nonzero"] < 0.65 * metrics["num_parameters"]
    with open(tmp_path / "run" / "report.csv") as file:
        rows = {row["format"]: float(row["value"]) for row in csv.DictReader(file)}
    assert rows["int8"] == pytest.approx(rows["keras"], rel=0.02)


def test_a_teacher_of_another_vocabulary(finished, tmp_path):
    (tmp_path / "a.txt").write_text("another text\n" * 200)
    with pytest.raises(ValueError, match="--distill_teacher=.* was trained with another vocabulary"):
        train(tmp_path / "run", data="text", data_dir=str(tmp_path / "a.txt"), model="lstm", compression="distill",
              distill_teacher=str(finished["transformer"]))
    assert not (tmp_path / "run" / "config.json").exists()


def write(model_file, *prompts, **flags):
    config = predict.PredictConfig(model_file=str(model_file), **flags)
    model = predict.load_model(model_file)
    vocabulary = tokens.load(tokens.find(model_file))
    answer = predict.go_on if model.step else predict.fill_in
    return [answer(model, vocabulary, prompt, config) for prompt in prompts]


def test_file_and_model_write_the_same(finished):
    folder = finished["transformer"]
    options = {"tokens": 30, "temperature": 0.7, "top_k": 5, "seed": 3}
    with_keras = write(folder / "model.keras", "1+2=", "77", **options)
    assert write(folder / "export" / "float32.tflite", "1+2=", "77", **options) == with_keras
    assert with_keras[0].startswith("1+2=") and with_keras[1].startswith("77") and len(with_keras[0]) == 34


def test_blanks_are_filled_in(finished):
    for name in ("model.keras", "export/float32.tflite", "export/int8.tflite"):
        (text,) = write(finished["masked_lstm"] / name, "1+_=3_")
        assert text[:2] == "1+" and text[3:5] == "=3" and "_" not in text
    with pytest.raises(ValueError, match="--blank must be at least a character"):
        predict.PredictConfig(model_file="a.tflite", blank="")
    with pytest.raises(ValueError, match="the model sees 16"):
        write(finished["masked_lstm"] / "model.keras", "1" * 17)


def test_a_prompt_with_blanks_stands_in_the_middle_between_copies():
    vocabulary, windows = tokens.Pieces("characters", "ab\n"), []

    def window(numbers):
        windows.append(numbers)
        return np.eye(7)[[5 if place == 7 else 4 for place in range(16)]]

    config = predict.PredictConfig(model_file="a.tflite")
    assert predict.fill_in(predict.Model(window=window, length=16), vocabulary, "a_b", config) == "abb"
    assert "".join("????ab\n_"[number] for number in windows[0]) == "b\na_b\na_b\na_b\na_"


def test_predict_imports_no_tensorflow_and_reads_standard_input(finished):
    program = ("import sys; from apps.language_model import predict; "
               f"code = predict.main(predict.PredictConfig(model_file={str(finished['transformer'])!r} + "
               "'/export/int8.tflite', tokens=3), []); assert 'tensorflow' not in sys.modules; sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, input=b"1+1\nz+1\n\xff+1\n", capture_output=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.startswith(b"1+1")
    for number in (2, 3):
        assert f"prompt {number}: 1 of 3 tokens are not in the vocabulary" in done.stderr.decode()


def test_a_closed_standard_input_has_no_prompts(finished, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    config = predict.PredictConfig(model_file=str(finished["transformer"] / "export" / "int8.tflite"))
    assert predict.main(config, []) == 0 and capsys.readouterr().out == ""


@pytest.mark.parametrize(("name", "content", "message"), [
    ("model.h5", b"", "unknown ending"), ("missing.tflite", None, "does not exist"),
    ("bad.tflite", b"no model", "is not a TFLite file"), ("bad.keras", b"no model", "cannot be read")])
def test_files_that_are_no_model(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        predict.load_model(tmp_path / name)
