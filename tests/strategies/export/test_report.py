import csv
import gzip

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from strategies import export
from strategies.compression import pruning
from strategies.export import report, tflite
from tests.strategies.export import models

COLUMNS = ("variant,format,metric,value,parameters,nonzero,macs,bytes,gzip_bytes,latency_ms,peak_memory_bytes,"
           "max_abs_diff")


def agreement_with(model, inputs):
    """Evaluates a predictor by the share of first outputs that have their maximum where the model's have."""
    def best(outputs):
        return np.argmax(tf.nest.flatten(outputs)[0], axis=1)

    return lambda predict: np.mean(best(predict(inputs)) == best(model.predict(inputs, verbose=0)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One model in all formats: (model, folder, rows)."""
    folder, model = tmp_path_factory.mktemp("run"), models.conv_norm_relu()
    inputs = models.inputs_for(model, 60)
    rows = export.export_all(model, folder, formats=export.FORMATS, samples=inputs[:20], representative=inputs,
                             evaluate=agreement_with(model, inputs), metric="agreement")
    return model, folder, rows


def test_files_are_where_they_belong(run):
    _, folder, _ = run
    assert sorted(path.name for path in folder.iterdir()) == ["export", "model.keras"]
    assert sorted(path.name for path in (folder / "export").iterdir()) == [
        "bfloat16", "dynamic.tflite", "float16.tflite", "float32.tflite", "int16.tflite", "int8.tflite",
        "saved_model", "sparse.tflite"]


def test_every_file_agrees_with_keras(run):
    _, _, rows = run
    differences = {row["format"]: row["relative_diff"] for row in rows}
    assert list(differences) == ["keras", "saved_model", "bfloat16", "float32", "float16", "dynamic", "int8",
                                 "int16", "sparse"] == list(export.FORMATS)
    assert differences["keras"] == 0
    assert differences["saved_model"] < 1e-6 and differences["float32"] < 1e-5
    assert 0 < differences["bfloat16"] < 0.05
    assert 0 < differences["float16"] < 1e-2 and 0 < differences["dynamic"] < 0.1 and 0 < differences["int8"] < 0.2
    assert 0 < differences["int16"] < 0.05
    for row in rows:
        assert row["value"] == 1 if row["format"] in ("keras", "saved_model", "float32") else row["value"] >= 0.8


def test_sizes_and_counts(run):
    model, folder, rows = run
    by_format = {row["format"]: row for row in rows}
    for row in rows:
        assert row["parameters"] == model.count_params() == row["nonzero"]
        assert row["macs"] == export.count_macs(model)
        assert row["metric"] == "agreement" and row["variant"] == "float"
    content = (folder / "export/int8.tflite").read_bytes()
    assert by_format["int8"]["bytes"] == len(content)
    assert by_format["int8"]["gzip_bytes"] == len(gzip.compress(content, 9))
    saved = [path for path in (folder / "export/saved_model").rglob("*") if path.is_file()]
    assert by_format["saved_model"]["bytes"] == sum(path.stat().st_size for path in saved)
    assert by_format["float16"]["bytes"] < by_format["float32"]["bytes"] > by_format["int8"]["bytes"]
    assert by_format["int8"]["float_operators"] == []


def test_only_tflite_files_are_timed(run):
    for row in run[2]:
        for column in ("latency_ms", "peak_memory_bytes"):
            assert row[column] is None if row["format"] in ("keras", "saved_model", "bfloat16") else row[column] > 0


def test_csv_is_the_contract(run, tmp_path):
    _, _, rows = run
    export.write_csv(rows, tmp_path / "report.csv")
    lines = (tmp_path / "report.csv").read_text().splitlines()
    assert lines[0] == COLUMNS == ",".join(export.COLUMNS)
    with open(tmp_path / "report.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert read[0]["latency_ms"] == "" and float(read[3]["latency_ms"]) == rows[3]["latency_ms"]
    assert [int(row["bytes"]) for row in read] == [row["bytes"] for row in rows]


def test_markdown_table():
    row = {"variant": "float", "format": "int8", "metric": "accuracy", "value": 0.98765, "parameters": 272_474,
           "nonzero": 999, "macs": 4_100_000_000, "bytes": 1_234, "gzip_bytes": None, "latency_ms": 0.0123,
           "peak_memory_bytes": 3_500_000, "max_abs_diff": 0.00123, "float_operators": ["SIN", "SQUARE"]}
    assert export.markdown_table([row]).splitlines() == [
        "| variant | format | accuracy | parameters | nonzero | multiply-adds | size | gzip | latency | peak memory | "
        "max. difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| float | int8 | 0.9877 | 272.47 k | 999 | 4.10 G | 1.23 kB |  | 0.012 ms | 3.50 MB | 1.2e-03 |",
        "",
        "float int8: computed in floating point, as these have no integer form: SIN, SQUARE."]


@pytest.mark.parametrize("build", [models.inverted_residual, models.several])
def test_bfloat16_stores_half_and_speaks_float32(build, tmp_path):
    model = build()
    inputs = models.inputs_for(model, 20)
    export.export_all(model, tmp_path, formats=["saved_model", "bfloat16"], samples=inputs)
    loaded = tf.saved_model.load(str(tmp_path / "export" / "bfloat16"))
    function = loaded.signatures["serving_default"]
    assert {spec.dtype for spec in function.structured_outputs.values()} <= {tf.float32}
    kernels = [v for v in loaded.model_weights if v.shape.rank >= 2]
    assert kernels and {v.dtype for v in kernels} == {tf.bfloat16}
    stored = [(tmp_path / "export" / name / "variables" / "variables.data-00000-of-00001").stat().st_size
              for name in ("bfloat16", "saved_model")]
    assert stored[0] < 0.75 * stored[1]


@pytest.mark.parametrize("build", [models.inverted_residual, models.group_norm, models.several])
def test_other_models_in_every_tflite_format(build, tmp_path):
    model = build()
    inputs = models.inputs_for(model, 20)
    formats = [name for name in tflite.FORMATS if name != "int16"]  # which has no squared difference, for one
    rows = export.export_all(model, tmp_path, formats=formats, samples=inputs, representative=inputs)
    assert [row["format"] for row in rows] == ["float32", "float16", "dynamic", "int8", "sparse"]
    assert rows[0]["relative_diff"] < 1e-5 and rows[3]["relative_diff"] < 0.2
    assert rows[0]["value"] is None and rows[0]["metric"] is None
    assert rows[3]["float_operators"] == []


def test_a_sparse_file_of_a_pruned_dense_layer_is_small_and_says_the_same(tmp_path):
    inputs = keras.Input((256,))
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Dense(256, "relu", name="wide")(inputs)))
    kernel = model.get_layer("wide").kernel
    kernel.assign(kernel * pruning.magnitude_mask(kernel.numpy(), 0.9))
    x = np.random.default_rng(0).normal(size=(16, 256)).astype(np.float32)
    dense, sparse = export.export_all(model, tmp_path, formats=["float32", "sparse"], samples=x)
    assert sparse["bytes"] < 0.4 * dense["bytes"] and sparse["max_abs_diff"] < 1e-4


def test_structures_survive_keras_and_saved_model(tmp_path):
    model = models.several()
    inputs = models.inputs_for(model, 40)  # more than one batch
    rows = export.export_all(model, tmp_path, formats=["saved_model", "keras"], samples=inputs,
                             evaluate=lambda predict: sum(predict(inputs)["narrow"].shape))
    assert [(row["format"], row["value"]) for row in rows] == [("keras", 42), ("saved_model", 42)]
    signature = tf.saved_model.load(str(tmp_path / "export/saved_model")).signatures["serving_default"]
    assert sorted(signature.structured_input_signature[1]) == ["a_number", "left_image"]
    assert sorted(signature.structured_outputs) == ["narrow", "wide"]
    assert signature.structured_input_signature[1]["a_number"].shape.as_list() == [None, 5]


def test_folded_export_agrees_and_leaves_the_keras_file_trainable(tmp_path):
    model = models.conv_norm_relu()
    inputs = models.inputs_for(model)
    rows = export.export_all(model, tmp_path, formats=["keras", "saved_model", "float32"], samples=inputs,
                             fold_batch_norm=True)
    assert rows[0]["parameters"] == model.count_params()
    assert rows[1]["parameters"] == rows[2]["parameters"] == model.count_params() - 4 * 40 + 32  # biases of two layers
    assert rows[2]["relative_diff"] < 1e-5 and len({row["macs"] for row in rows}) == 1
    names = [type(layer).__name__ for layer in keras.models.load_model(tmp_path / "model.keras").layers]
    assert names.count("BatchNormalization") == 3


def test_open_image_size_is_taken_from_the_samples(tmp_path):
    x = keras.Input((None, None, 3), name="images")
    model = keras.Model(x, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x)))
    samples = np.random.default_rng(0).normal(size=(2, 9, 7, 3))
    export.export_all(model, tmp_path, formats=["float32"], samples=samples)
    assert export.Runner(tmp_path / "export/float32.tflite").input_shapes == {"images": (9, 7, 3)}


def test_recurrent_model_runs_and_leaves_multiply_adds_empty(tmp_path):
    x = keras.Input((5, 3), name="x")
    model = keras.Model(x, keras.layers.LSTM(4)(x))
    rows = export.export_all(model, tmp_path, formats=["float32"], samples=models.inputs_for(model, 4))
    assert rows[0]["macs"] is None and rows[0]["relative_diff"] < 1e-5  # each sample starts from state 0


def test_a_failed_export_leaves_the_file_before_it(tmp_path):
    good, bad = models.conv_norm_relu(), keras.Sequential([keras.Input((4, 4)), keras.layers.Lambda(svd)])
    export.export_all(good, tmp_path, formats=["float32"], samples=models.inputs_for(good))
    before = (tmp_path / "export/float32.tflite").read_bytes()
    with pytest.raises(ValueError, match=r"could not write float32\.tflite"):
        export.export_all(bad, tmp_path, formats=["float32"], samples=np.zeros((1, 4, 4)))
    assert (tmp_path / "export/float32.tflite").read_bytes() == before
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["float32.tflite"]


def svd(x):
    return tf.linalg.svd(x)[0]  # has no TFLite operator


@pytest.mark.parametrize("options, message", [
    ({"formats": ["flaot32"]}, r"Unknown export format 'flaot32': .* Did you mean 'float32'\?"),
    ({}, r"int8 needs representative samples.*received none\. Pass representative="),
    ({"formats": ["keras"], "samples": np.zeros((2, 8, 8, 1))}, r"'images' must be an array of shape \(None, 8, 8, 3\) "
                                                                r".*received shape \(2, 8, 8, 1\)"),
    ({"formats": ["keras"], "samples": np.zeros((0, 8, 8, 3))}, r"at least 1, .*received shape \(0, 8, 8, 3\)"),
    ({"formats": ["keras"], "samples": [np.zeros((2, 8, 8, 3))] * 2}, r"takes 1 inputs \(images\); received 2 arrays"),
])
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, options, message):
    model = models.conv_norm_relu()
    with pytest.raises(ValueError, match=message):
        export.export_all(model, tmp_path, **{"samples": models.inputs_for(model), **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options, message", [
    ({"format": "int4"}, r"Unknown TFLite format 'int4': expected one of float32, float16, dynamic, int8"),
    ({"format": "dynamic", "integer_io": True}, r"integer_io is for int8 files; received format 'dynamic'"),
    ({"format": "int8", "representative": np.full((1, 8, 8, 3), np.nan)}, r"'images' must be finite.*received 192 val"),
])
def test_bad_arguments_of_a_conversion(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export.convert(models.conv_norm_relu(), tmp_path / "a.tflite", **options)
    assert list(tmp_path.iterdir()) == []


def test_disagreement_is_a_failure():
    reference = {"logits": np.array([[1.0, -2.0]])}
    close, far = {"logits": np.array([[1.0, -2.0001]])}, {"logits": np.array([[1.0, -2.0003]])}
    assert report.compare(reference, close, "a.tflite", "float32")["relative_diff"] == pytest.approx(5e-5)
    assert report.compare(reference, far, "a.tflite", "int8")["max_abs_diff"] == pytest.approx(3e-4)
    with pytest.raises(ValueError, match=r"does not compute what .* 0\.0001 of the largest, .* difference of 0\.00015"):
        report.compare(reference, far, "a.tflite", "float32")


def test_overflow_in_float16_is_a_failure(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(4, kernel_initializer=keras.initializers.Constant(1e6))(x))
    with pytest.raises(ValueError, match=r"float16\.tflite does not compute .* 0\.1 of the largest.*weights are too"):
        export.export_all(model, tmp_path, formats=["float16"], samples=np.ones((3, 4)))


def test_outputs_that_are_not_finite():
    reference = {"logits": np.array([[1.0, -2.0]])}
    with pytest.raises(ValueError, match=r"'logits' must be finite and of shape \(1, 2\).*1 values not finite"):
        report.compare(reference, {"logits": np.array([[1.0, np.nan]])}, "a.tflite", "int8")
