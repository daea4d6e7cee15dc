"""Prediction from exported files, as a user runs it."""

import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from apps.image_classification import labels, predict
from layers.regularization import StatelessDropout

SPEC = types.SimpleNamespace(class_names=("zero", "one", "two"), height=8, width=8, channels=1)
ROOT = pathlib.Path(__file__).parents[3]


def make_images(count=20):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A workdir with a linear classifier in every form, labels.json, images, and the logits NumPy gives for them."""
    workdir = tmp_path_factory.mktemp("run")
    labels.write_labels(SPEC, workdir / "export")
    kernel = np.random.default_rng(1).normal(0, 0.003, (64, 3)).astype(np.float32)
    bias = np.array([0.3, -0.2, 0.1], np.float32)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), StatelessDropout(0.5, seed=0),
                              keras.layers.Dense(3)])
    model.layers[-1].set_weights([kernel, bias])
    model.save(workdir / "model.keras")
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (workdir / "export" / "float32.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in make_images())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    (workdir / "export" / "int8.tflite").write_bytes(converter.convert())
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (workdir / "export" / "integer_interface.tflite").write_bytes(converter.convert())
    for row, image in enumerate(make_images(4)):
        Image.fromarray(image[..., 0].astype(np.uint8)).save(workdir / f"{row}.png")
    (workdir / "broken.png").write_bytes(b"no image")
    return workdir, make_images().reshape(20, -1) @ kernel + bias


# Largest difference of a logit; 0.1 is two steps of the 8-bit output.
FILES = {"model.keras": 1e-5, "export/float32.tflite": 1e-5, "export/int8.tflite": 0.1,
         "export/integer_interface.tflite": 0.1}


@pytest.mark.parametrize("name", FILES)
def test_logits_equal_numpy(export, name):
    workdir, logits = export
    input_shape, run = predict.load_model(workdir / name)
    assert input_shape == (8, 8, 1)
    result = np.concatenate([run(image[None]) for image in make_images()])
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, logits, atol=FILES[name])


def test_integer_interface_is_one(export):
    interpreter = Interpreter(str(export[0] / "export" / "integer_interface.tflite"))
    assert interpreter.get_input_details()[0]["dtype"] == interpreter.get_output_details()[0]["dtype"] == np.int8


@pytest.mark.parametrize("name", ["model.keras", "export/integer_interface.tflite"])
def test_main_prints_classes_and_goes_on_after_a_broken_image(export, name, capsys):
    workdir, logits = export
    config = predict.PredictConfig(model_file=str(workdir / name), top=2)
    code = predict.main(config, [str(workdir / file) for file in ("0.png", "broken.png", "missing.jpg", "3.png")])
    out, err = capsys.readouterr()
    assert code == 1
    assert "broken.png is not a readable image" in err and "missing.jpg is not a readable image" in err
    lines = out.splitlines()
    assert [lines[0], lines[3]] == [str(workdir / "0.png"), str(workdir / "3.png")] and len(lines) == 6
    for row, shown in ((0, lines[1:3]), (3, lines[4:6])):
        powers = np.exp(logits[row])
        probabilities = powers / powers.sum()
        for place, line in zip(np.argsort(-probabilities)[:2], shown, strict=True):
            percent, class_name = line.split()
            assert class_name == SPEC.class_names[place]
            assert float(percent.rstrip("%")) == pytest.approx(100 * probabilities[place], abs=1.5)
    assert predict.main(config, [str(workdir / "0.png")]) == 0


def test_colour_images_of_any_size_are_fitted(export, tmp_path):
    image = np.random.default_rng(5).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "photo.jpg")
    _, run = predict.load_model(export[0] / "export" / "float32.tflite")
    classes = predict.predict(run, labels.read_labels(export[0] / "export" / "labels.json"), tmp_path / "photo.jpg", 5)
    assert len(classes) == 3
    assert sum(probability for _, probability in classes) == pytest.approx(1)


def run_program(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=100)


def test_tflite_needs_no_tensorflow(export):
    workdir, logits = export
    program = ("import sys; from apps.image_classification import predict; predict.main(predict.PredictConfig("
               "model_file=sys.argv[1]), sys.argv[2:]); print([m for m in sys.modules if m in ('tensorflow', 'keras', "
               "'tf_keras')])")
    result = run_program("-c", program, str(workdir / "export" / "int8.tflite"), str(workdir / "1.png"))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1] == "[]"
    assert lines[1].split()[1] == SPEC.class_names[logits[1].argmax()]


def test_program(export):
    # The .keras file names a layer of the suite, which the program must know without being told.
    result = run_program("-m", "apps.image_classification.predict", f"--model_file={export[0] / 'model.keras'}",
                         "--top=1", str(export[0] / "0.png"), str(export[0] / "broken.png"))
    assert result.returncode == 1
    assert len(result.stdout.splitlines()) == 2 and "broken.png is not a readable image" in result.stderr
    result = run_program("-m", "apps.image_classification.predict",
                         f"--model_file={export[0] / 'export' / 'float32.tflite'}")
    assert result.returncode == 2
    assert "error: No image was given: expected one or more image files" in result.stderr
    assert "Traceback" not in result.stderr


def write_damaged(folder, name):
    (folder / name).write_bytes(b"damaged")
    return str(folder / name)


@pytest.mark.parametrize("name, message", [
    ("none.tflite", r"--model_file=.*none\.tflite does not exist: expected an exported"),
    ("model.h5", r"--model_file=.*model\.h5 has an unknown ending: expected \.tflite or \.keras; received '\.h5'"),
    ("bad.tflite", r"--model_file=.*bad\.tflite is not a readable \.tflite file of one input and one output"),
    ("bad.keras", r"--model_file=.*bad\.keras is not a readable \.keras file"),
])
def test_bad_model_files(tmp_path, name, message):
    path = tmp_path / name if name == "none.tflite" else write_damaged(tmp_path, name)
    with pytest.raises(ValueError, match=message):
        predict.load_model(path)


def test_runtime_that_is_not_installed(export, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ValueError, match=r"float32\.tflite needs a package that is not installed \(.*ai_edge_litert"):
        predict.load_model(export[0] / "export" / "float32.tflite")


@pytest.mark.parametrize("changes, message", [
    ({"height": 9}, r"do not belong together: the model takes \(8, 8, 1\), the labels say \(9, 8, 1\)"),
    ({"channels": 3}, r"do not belong together: the model takes \(8, 8, 1\), the labels say \(8, 8, 3\)"),
    ({"class_names": ("a", "b")}, r"do not belong together: the model has 3 outputs, the labels name 2 classes"),
])
def test_labels_of_another_model(export, tmp_path, changes, message):
    path = labels.write_labels(types.SimpleNamespace(**vars(SPEC) | changes), tmp_path)
    config = predict.PredictConfig(model_file=str(export[0] / "model.keras"), labels=str(path))
    with pytest.raises(ValueError, match=message):
        predict.main(config, ["x.png"])


@pytest.mark.parametrize("fields, message", [
    ({}, r"--model_file is missing: expected an exported \.tflite or \.keras file"),
    ({"model_file": "a.tflite", "top": 0}, r"--top must be at least 1; received 0"),
])
def test_bad_flags(fields, message):
    with pytest.raises(ValueError, match=message):
        predict.PredictConfig(**fields)


def test_labels_round_trip_and_places(tmp_path):
    path = labels.write_labels(SPEC, tmp_path / "run" / "export")
    assert labels.read_labels(path) == labels.Labels(("zero", "one", "two"), 8, 8, 1)
    for model_file in ("run/export/int8.tflite", "run/export/saved/x.keras", "run/model.keras"):
        assert labels.find_labels(tmp_path / model_file) == path
    with pytest.raises(ValueError, match=r"No class names for .*int8\.tflite: expected labels\.json in .*Give "
                                         r"--labels=PATH"):
        labels.find_labels(tmp_path / "int8.tflite")


@pytest.mark.parametrize("content, message", [
    (None, r"--labels=.* cannot be read: No such file"),
    ("{", r"--labels=.* is damaged: expected JSON with class_names, height, width and channels; received "
          r"JSONDecodeError"),
    ("[]", r"is damaged: expected JSON with class_names.*received TypeError"),
    ('{"class_names": ["a"], "height": 8}', r"is damaged: expected JSON with class_names.*received KeyError: 'width'"),
    ('{"class_names": [], "height": 8, "width": 8, "channels": 1}', r"is damaged: expected at least one class"),
    ('{"class_names": ["a"], "height": 8, "width": 8, "channels": 2}', r"expected .* 1 or 3 channels; received"),
])
def test_bad_labels(tmp_path, content, message):
    path = tmp_path / "labels.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message):
        labels.read_labels(path)
