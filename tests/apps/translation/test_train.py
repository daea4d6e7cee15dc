"""The application from flags to report and to translated lines, on letters that become capitals."""

import csv
import itertools
import json
import pathlib
import random
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import tf_keras as keras

from apps.common import fitting, tokens
from apps.translation import averaging, pictures, predict, scoring, sequences, translating
from apps.translation import data as data_lib
from apps.translation import train as train_lib
from apps.translation.config import Config
from strategies import checkpoint, export

ROOT = pathlib.Path(__file__).parents[3]
SMALL = {"data": "tsv", "tokens": "characters", "max_length": 8, "batch_size": 32, "epochs": 2, "num_layers": 1,
         "num_translated": 40, "num_scored": 10, "num_representative": 40, "verbose": 0, "deterministic": False,
         "learning_rate": 3e-3, "label_smoothing": 0.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of pairs such as "bad cab" and "BAD CAB"."""
    folder, chance = tmp_path_factory.mktemp("letters"), random.Random(0)
    for part, count in (("train", 1500), ("val", 60), ("test", 60)):
        words = ["".join(chance.choice("abcd") for _ in range(chance.randint(1, 6))) for _ in range(count)]
        (folder / f"{part}.tsv").write_text("".join(f"{word}\t{word.upper()}\n" for word in words))
    return folder


def train(folder, data, callbacks=(), **flags):
    return train_lib.train(Config(workdir=str(folder), data_dir=str(data), **{**SMALL, **flags}), callbacks)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run to its end with every format."""
    folder = tmp_path_factory.mktemp("runs") / "transformer"
    train(folder, data, epochs=4, average_epochs=2, export="saved_model,float32,float16,dynamic,int8")
    return folder


def rows_of(folder):
    with open(folder / "report.csv") as file:
        return {row["format"]: row for row in csv.DictReader(file)}


def test_a_run_learns_and_leaves_everything(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["test_token_accuracy"] > 0.35 and metrics["num_test"] == 40  # 0.2 by chance
    for name in ("model.keras", "report.md", "plots/attention.png", "plots/curves.png", "export/settings.json",
                 "export/source/vocabulary.json", "export/target/vocabulary.json"):
        assert (finished / name).exists(), name
    rows = fitting.read_history(finished / "history.csv")
    assert metrics["best_epoch"] == 1 + min(rows, key=lambda row: (row["val_loss"], -row["epoch"]))["epoch"]
    text = (finished / "report.md").read_text()
    assert "tok:13a" in text and "By length of the source" in text and "| translation |" in text


def test_a_translation_that_fills_the_model_has_its_picture(finished, data):
    spec = data_lib.load(Config(workdir="unused", data_dir=str(data), **SMALL)).spec
    model = keras.models.load_model(finished / "model.keras", compile=False)
    assert set(pictures.attention_figures(model, spec, ["abcdef"], ["A" * spec.max_length])) == {"attention"}


def test_every_file_translates(finished):
    rows = rows_of(finished)
    assert set(rows) == {"keras", "saved_model", "float32", "float16", "dynamic", "int8"}
    for name in ("saved_model", "float32", "float16"):
        assert rows[name]["value"] == rows["keras"]["value"], name
    assert int(rows["int8"]["bytes"]) < 0.45 * int(rows["float32"]["bytes"])
    assert not export.float_operators(finished / "export" / "int8.tflite")


def test_lines_are_translated_alike_by_model_and_file(finished, capsys):
    lines = ["abcd", "dd", "", "a" * 30, "c?a"]
    found = {}
    for name in ("model.keras", "export/float32.tflite"):
        for width in (0, 3):
            predict.main(predict.PredictConfig(model_file=str(finished / name), beam_width=width), lines)
            found[name, width] = capsys.readouterr().out.split("\n")[:-1]
    assert found["model.keras", 0] == found["export/float32.tflite", 0]
    assert found["model.keras", 3] == found["export/float32.tflite", 3]
    assert len(found["model.keras", 0]) == 5 and found["model.keras", 0][2] == ""


def test_translations_are_drawn(finished, capsys):
    def drawn(**options):
        file = str(finished / "export" / "float32.tflite")
        predict.main(predict.PredictConfig(model_file=file, **options), ["abcd"] * 20)
        return capsys.readouterr().out.split("\n")[:-1]

    free, greedy = drawn(temperature=2.0, seed=1), drawn()
    assert drawn(temperature=2.0, seed=1) == free != drawn(temperature=2.0, seed=2)
    assert len(set(free)) > 5 and len(set(greedy)) == 1
    assert drawn(temperature=2.0, top_k=1) == drawn(temperature=1e-3) == greedy
    with pytest.raises(ValueError, match="give one of them"):
        predict.PredictConfig(model_file="x.tflite", temperature=1.0, beam_width=2)


def test_a_vocabulary_of_another_model_is_refused(finished, tmp_path):
    other, alone = tmp_path / "other", tmp_path / "alone" / "alone"
    alone.mkdir(parents=True)

    def refused(model_file, message):
        with pytest.raises(ValueError, match=message):
            predict.main(predict.PredictConfig(model_file=str(model_file), vocabulary=str(other)), ["a"])

    shutil.copytree(finished / "export", other)
    tokens.Pieces("characters", "ABCDEFGHI").save(other / "target")
    refused(finished / "model.keras", "is that of another model: .*differs from")
    for name in ("model.keras", "export/float32.tflite"):
        shutil.copy(finished / name, alone)
        refused(alone / pathlib.Path(name).name, "has 13 tokens, the model .*that of another model")
    for form in ("float16", "dynamic", "int8"):
        shutil.copy(finished / "export" / f"{form}.tflite", alone)
    for letters, message in ((435, "has 439 tokens, the model fewer"), (2, "has 6 tokens, the model more")):
        tokens.Pieces("characters", [chr(65 + i) for i in range(letters)]).save(other / "source")
        for file in sorted(alone.iterdir()):
            refused(file, message)


def test_predict_needs_no_tensorflow_and_survives_any_line(finished):
    program = ("import sys; from apps.translation import predict; predict.main(predict.PredictConfig(model_file="
               f"{str(finished / 'export' / 'int8.tflite')!r}), []); assert 'tensorflow' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, input=b"abc\n\xff\xfe\n\nabcdabcdabcd\n",
                          capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"\n") == 4
    assert b"line 2: 2 of 2 tokens are not in the vocabulary" in done.stderr
    assert b"line 4 has 12 tokens; the model reads the first 7" in done.stderr


def test_a_closed_standard_input_has_no_lines(finished, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    predict.main(predict.PredictConfig(model_file=str(finished / "export" / "int8.tflite")), [])
    assert capsys.readouterr().out == ""


def test_an_epoch_of_weights_that_are_not_finite_is_not_kept(tmp_path):
    keep = averaging.KeepEpochs(tmp_path, 2)
    keep.set_model(keras.Sequential([keras.layers.Dense(1, input_shape=(1,))]))
    keep.model.set_weights([np.array([[np.nan]]), np.zeros(1)])
    with pytest.raises(fitting.TrainingDiverged, match="000000.npz was not written. Lower --learning_rate"):
        keep.on_epoch_end(0)


def test_averaged_weights_are_the_mean_of_the_last_epochs(finished):
    paths = sorted((finished / "checkpoints" / averaging.FOLDER).glob("*.npz"))
    assert [path.stem for path in paths] == ["000002", "000003"]
    files = [checkpoint.read(path)[0] for path in paths]
    model = keras.models.load_model(finished / "model.keras", compile=False)
    name = next(name for name in files[0] if name.endswith("target_embedding/embeddings"))
    np.testing.assert_allclose(model.get_layer("target_embedding").embeddings, (files[0][name] + files[1][name]) / 2,
                               rtol=1e-6)


@pytest.mark.parametrize("format", ["sparse", "bfloat16", "tflite"])
def test_a_format_that_a_translator_has_not_is_refused_before_training(data, tmp_path, format):
    with pytest.raises(ValueError, match=f"--export={format} is not for a model .* expected some of saved_model"):
        train(tmp_path / "run", data, export=f"float32,{format}")
    with pytest.raises(ValueError, match="cannot be exported as int16, which was tried before training"):
        train(tmp_path / "run", data, export="int16")
    assert not (tmp_path / "run" / "config.json").exists()


def test_subwords_to_japanese(tmp_path):
    """SentencePiece on both sides, characters that are no letters, and a file that is read without TensorFlow."""
    words = {"cat": "猫", "dog": "犬", "sleeps": "眠る", "eats": "食べる", "the": "その", "a": "ある"}
    lines = [f"{a} {b} {c}\t{words[a]}{words[b]}が{words[c]}。" for a in ("the", "a") for b in ("cat", "dog")
             for c in ("sleeps", "eats")]
    for part, count in (("train", 60), ("val", 2), ("test", 2)):
        (tmp_path / f"{part}.tsv").write_text("\n".join(lines * count) + "\n")
    folder = tmp_path / "run"
    metrics = train(folder, tmp_path, tokens="subwords", vocabulary_size=40, max_length=16, bleu_tokenize="char",
                    epochs=8, export="keras,int8", num_translated=16)
    assert metrics["test_bleu"] > 90 and metrics["test_unknown_share"] == 0
    assert (folder / "export" / "target" / "vocabulary.model").exists()
    program = ("import sys; from apps.translation import predict; predict.main(predict.PredictConfig(model_file="
               f"{str(folder / 'export' / 'int8.tflite')!r}), ['the dog eats', 'a cat sleeps']); "
               "assert 'tensorflow' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().split("\n")[:2] == ["その犬が食べる。", "ある猫が眠る。"]


def test_the_mean_of_pruned_epochs_has_the_zeros_of_the_last(data, tmp_path):
    metrics = train(tmp_path / "run", data, compression="prune", compression_epochs=3, prune_ramp=1.0, average_epochs=3,
                    prune_sparsity=0.8, epochs=1, export="none", num_translated=4)
    assert metrics["num_nonzero"] < 0.3 * metrics["num_parameters"]


class Interrupt(keras.callbacks.Callback):
    """Ends a run in its middle."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 30:
            raise KeyboardInterrupt


@pytest.mark.conformance
def test_an_interrupted_run_ends_with_the_same_bits(data, tmp_path):
    flags = {"scheduled_sampling": 0.5, "average_epochs": 2, "export": "none", "checkpoint_seconds": 0.1,
             "num_translated": 4, "dropout": 0.1}
    train(tmp_path / "whole", data, **flags)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", data, [Interrupt()], **flags)
    train(tmp_path / "cut", data, **flags)
    whole, cut = (keras.models.load_model(tmp_path / name / "model.keras", compile=False) for name in ("whole", "cut"))
    for a, b in zip(whole.weights, cut.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("model", ["transformer_tiny", *(pytest.param(name, marks=pytest.mark.conformance)
                                                         for name in ("seq2seq", "additive", "multiplicative"))])
def test_a_teacher_and_eight_bits(data, finished, tmp_path, model):
    metrics = train(tmp_path / "run", data, model=model, units=16, compression="distill,quantize", epochs=1,
                    precision="mixed_bfloat16", compression_epochs=1, distill_teacher=str(finished),
                    export="float32,int8", num_translated=4)
    rows = rows_of(tmp_path / "run")
    assert np.isfinite(metrics["test_cross_entropy"]) and set(rows) == {"keras", "float32", "int8"}
    assert not export.float_operators(tmp_path / "run" / "export" / "int8.tflite")


@pytest.mark.conformance
@pytest.mark.parametrize("model", ["seq2seq", "additive", "multiplicative"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_files_of_recurrent_translators_of_two_layers(data, tmp_path, capsys, model, cell):
    """Their encoders are files of several signatures; what they translate is what Keras does."""
    train(tmp_path / "run", data, model=model, cell=cell, num_layers=2, units=32, epochs=2, export="float32,int8",
          num_translated=4)
    folder, said = tmp_path / "run", {}
    for name in ("model.keras", "export/float32.tflite", "export/int8.tflite"):
        predict.main(predict.PredictConfig(model_file=str(folder / name)), ["abcd", "a", "dcbadc"])
        said[name] = capsys.readouterr().out
    assert said["model.keras"] == said["export/float32.tflite"] and said["export/int8.tflite"].count("\n") == 3
    assert not export.float_operators(folder / "export" / "int8.tflite")


def test_one_embedding_in_eight_bits(data, tmp_path):
    train(tmp_path / "run", data, share_vocabulary=True, compression="prune,quantize", epochs=1, compression_epochs=1,
          export="float32,int8", num_translated=4)
    assert set(rows_of(tmp_path / "run")) == {"keras", "float32", "int8"}
    assert not export.float_operators(tmp_path / "run" / "export" / "int8.tflite")


def test_a_student_learns_what_its_teacher_says(data, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(sequences, "CHUNK", 1000)
    flags = {"distill_sequences": str(finished), "decoding": "beam", "beam_width": 2, "epochs": 1, "export": "none",
             "num_translated": 4}
    seen = []
    monkeypatch.setattr(data_lib, "_training", lambda arrays, config, make=data_lib._training: (
        seen.append(arrays), make(arrays, config))[1])
    train(tmp_path / "run", data, **flags)
    config = Config(workdir="unused", data_dir=str(data), **{**SMALL, **flags})
    spec = data_lib.load(config).spec
    sources, given = zip(*data_lib.read_parts(config)["train"])
    model = keras.models.load_model(finished / "model.keras", compile=False)
    said = translating.translate(model, spec, sources, config)
    assert said != list(given)  # it has not learned everything
    assert [spec.target.decode(row) for row in seen[1][1]] == said
    assert len(list(finished.glob("cache/translations_*/*.json"))) == 2

    monkeypatch.setattr(translating, "make_translator", None)  # what is there is read back
    run = types.SimpleNamespace(config=config, begin=lambda: None, folder=lambda name: tmp_path / "run" / name)
    assert sequences.targets(run, spec) == said


@pytest.mark.parametrize("flags, message", [
    ({"max_length": 9}, "--distill_sequences=.* reads at most 8 tokens; received --max_length=9"),
    ({"tokens": "words"}, "--distill_sequences=.* was trained with another vocabulary")])
def test_a_teacher_that_cannot_translate(data, finished, tmp_path, flags, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run", data, distill_sequences=str(finished), **flags)


def test_a_teacher_of_another_vocabulary(data, finished, tmp_path):
    lines = ("".join(letters) for letters in itertools.product("xyz", repeat=5))
    (tmp_path / "other.tsv").write_text("".join(f"{line}\t{line.upper()}\n" for line in lines))
    with pytest.raises(ValueError, match="--distill_teacher=.* was trained with another vocabulary"):
        train(tmp_path / "run", tmp_path / "other.tsv", compression="distill", distill_teacher=str(finished))
    assert not (tmp_path / "run" / "config.json").exists()


def test_scores_are_sacrebleu_s():
    import sacrebleu
    said, right = ["the cat sat on a mat", "hello there"], ["the cat sat on the mat", "hello there"]
    found = scoring.score(said, right)
    assert found.bleu == sacrebleu.corpus_bleu(said, [right]).score and found.exact_match == 0.5
    assert found.chrf == sacrebleu.corpus_chrf(said, [right]).score and "tok:13a" in found.bleu_signature
    rows = scoring.by_length(said, right, [range(6), range(2)], [3, 9])
    assert [row[:4] for row in rows] == [(1, 3, 1, 1.0), (4, 9, 1, 0.0)]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("model.h5", b"", "unknown ending"), ("missing.tflite", None, "does not exist"),
    ("bad.tflite", b"no model", "is not a TFLite file"), ("bad.keras", b"no model", "cannot be read")])
def test_files_that_are_no_model(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        predict.load_translator(tmp_path / name, 8)
    with pytest.raises(ValueError, match="settings.json cannot be read"):
        predict.read_settings(tmp_path)
