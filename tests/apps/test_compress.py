"""The program that puts compressed variants of a run side by side."""

import csv
import json

import pytest
from absl import flags

from apps import compress
from apps.common import flagging, variants
from apps.image_classification import train as train_lib
from apps.image_classification.config import Config
from apps.language_model import train as language_train
from apps.language_model.config import Config as LanguageConfig

SMALL = {"model": "wrn_10_1", "width": 0.5, "epochs": 3, "verbose": 0, "export": "float32", "compression_epochs": 1,
         "deterministic": False}  # it cannot be switched off again, and other tests share this process


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "trained"
    train_lib.train(Config(workdir=str(path), **SMALL))
    return path


def run_compress(*arguments, config_class=Config):
    values, before = flags.FLAGS, set(flags.FLAGS)
    compress.define_flags(values)
    flagging.define_flags(config_class, values)
    try:
        values(["compress", *arguments])
        compress.main(["compress"])
    finally:
        for name in set(values) - before:
            delattr(values, name)


def rows_of(folder):
    with open(folder / "report.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_of_all_variants(trained):
    options = ["--compression_epochs=1", "--verbose=0", "--export=float32,int8", "--prune_sparsity=0.5"]
    run_compress(f"--workdir={trained}", "--variants=prune,prune+quantize", *options)
    rows = rows_of(trained)
    assert list(dict.fromkeys(row["variant"] for row in rows)) == ["float", "prune", "prune+quantize"]
    assert (trained / "compressed" / "report.md").exists() and (trained / "compressed" / "size_accuracy.png").exists()
    second = json.loads((trained / "compressed" / "prune+quantize" / "config.json").read_text())["config"]
    assert second["compression"] == "quantize" and second["initial_model"].endswith("compressed/prune")
    by_key = {(row["variant"], row["format"]): row for row in rows}
    assert int(by_key["prune+quantize", "int8"]["gzip_bytes"]) < int(by_key["float", "float32"]["gzip_bytes"]) / 3

    run_compress(f"--workdir={trained}", "--variants=prune", *options)  # is read back, and the other row stays
    again = [row["variant"] for row in rows_of(trained)]
    assert list(dict.fromkeys(again)) == ["float", "prune+quantize", "prune"] and len(again) == len(rows)


def test_flags_go_together_with_those_of_the_trained_run(trained, monkeypatch):
    seen = []
    monkeypatch.setattr(variants, "compress", lambda run, changes, *rest: seen.append((run, changes)))
    run_compress(f"--workdir={trained}", "--variants=distill,prune", f"--distill_teacher={trained}")
    (run, changes), = seen
    assert changes == {"distill_teacher": str(trained)} and run.model == SMALL["model"]
    with pytest.raises(ValueError, match="--explain tells of one run"):
        run_compress(f"--workdir={trained}", "--explain")
    with pytest.raises(ValueError, match="at least .*received -1"):
        monkeypatch.undo()
        run_compress(f"--workdir={trained}", "--compression_epochs=-1")


@pytest.mark.conformance
def test_a_language_model(tmp_path):
    language_train.train(LanguageConfig(
        workdir=str(tmp_path / "run"), data="sums", model="gru", units=16, epochs=1, verbose=0, export="float32",
        deterministic=False))
    run_compress(f"--workdir={tmp_path / 'run'}", "--variants=quantize", "--compression_epochs=1", "--verbose=0",
                 "--export=float32,int8", config_class=LanguageConfig)
    values = {(row["variant"], row["format"]): float(row["value"]) for row in rows_of(tmp_path / "run")}
    assert values["quantize", "int8"] == pytest.approx(values["quantize", "float32"], rel=0.03)


def test_the_teacher_stays_through_a_chain(trained):
    start = Config(workdir=str(trained), compression="none")
    chains = variants.parse_variants("distill,distill+prune,prune,distill+prune+quantize")
    configs = variants.variant_configs(start, {"width": 0.25}, chains)
    assert {name: bool(c.distill_teacher) for name, c in configs.items()} == {
        "distill": True, "prune": False, "distill+prune": True, "distill+prune+quantize": True}
    assert configs["distill+prune+quantize"].initial_model == str(trained / "compressed" / "distill+prune")
    assert configs["distill"].initial_model == ""
    assert {name: c.width for name, c in configs.items()} == {  # others are the trained network
        "distill": 0.25, "prune": 1.0, "distill+prune": 0.25, "distill+prune+quantize": 0.25}


@pytest.mark.parametrize("chains, message", [("prune+distill", "not a legal order"), ("cut", "Unknown compression")])
def test_bad_variants(trained, chains, message):
    with pytest.raises(ValueError, match=message):
        run_compress(f"--workdir={trained}", f"--variants={chains}")


def test_variants_are_made_in_one_process(trained):
    with pytest.raises(ValueError, match="--distribution=multi_worker is for one training"):
        run_compress(f"--workdir={trained}", "--distribution=multi_worker")


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(ValueError, match="is not the workdir of a run"):
        run_compress(f"--workdir={tmp_path}")
    with pytest.raises(ValueError, match="--workdir is missing"):
        run_compress()


def test_a_run_that_has_not_ended(tmp_path):
    begun = Config(workdir=str(tmp_path / "run"))
    with pytest.raises(ValueError, match="has no trained model yet"):
        variants.compress(begun, {}, variants.parse_variants("prune"), train_lib.train, train_lib.load_task)


def test_all_variants_are_checked_before_one_is_trained(trained):
    with pytest.raises(ValueError, match="No weight of model .* matches 'nothing'"):
        run_compress(f"--workdir={trained}", "--variants=quantize,filters+prune", "--prune_select=nothing")
    assert not (trained / "compressed" / "quantize").exists()


def test_the_application_is_that_of_the_run(tmp_path):
    (tmp_path / "config.json").write_text('{"app": "apps.translation"}')
    assert compress.app_of(["--variants=prune", f"--workdir={tmp_path}"]) == "translation"
    assert compress.app_of(["--workdir", str(tmp_path)]) == "translation"
    (tmp_path / "config.json").write_text('{"app": "apps.alphago"}')
    with pytest.raises(ValueError, match="Unknown application of the run .* 'alphago': expected one of image_class"):
        compress.app_of([f"--workdir={tmp_path}"])
    assert compress.app_of([]) == compress.app_of(["--workdir=/nonexistent"]) == "image_classification"
