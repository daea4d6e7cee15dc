"""Classifies image files with an exported model, as a phone would.

    python -m apps.image_classification.predict --model_file=runs/demo/export/int8.tflite image1.png image2.jpg

A `.tflite` file needs NumPy, Pillow and ai_edge_litert only; TensorFlow is imported for `.keras` alone. B batch (always
1 here), H W C image, K classes.
"""

import dataclasses
import pathlib
import sys

import numpy as np
from absl import flags

from apps.common import config as config_lib
from apps.common import flagging
from apps.image_classification import images as images_lib
from apps.image_classification import labels as labels_lib
from strategies import interpreter


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Options of this program."""

    model_file: str = config_lib.field("", "Exported model: a .tflite or .keras file.")
    labels: str = config_lib.field("", "The labels.json of the model. Empty: looked for beside the model file, in "
                                       "export/ beside it, and one folder up.")
    top: int = config_lib.field(3, "Classes to print for each image.", minimum=1)

    def __post_init__(self):
        for item in dataclasses.fields(self):
            config_lib.check_value(item, getattr(self, item.name))
        if not self.model_file:
            raise ValueError("--model_file is missing: expected an exported .tflite or .keras file, such as "
                             "--model_file=runs/demo/export/int8.tflite.")


def load_model(path):
    """Reads a model.

    Args:
        path: a `.tflite` or `.keras` file whose input is float32 pixels 0..255 (or their 8-bit form) and whose output
            is logits.

    Returns:
        (input_shape, run): (H, W, C), None where the model leaves it open; `run(images)` turns float32 [1, H, W, C]
        into logits, float32 [1, K].

    Raises:
        ValueError: when the file is missing, damaged, or of another kind.
    """
    loaders = {".tflite": _load_tflite, ".keras": _load_keras}
    path = pathlib.Path(path)
    if path.suffix not in loaders:
        raise ValueError(f"--model_file={path} has an unknown ending: expected .tflite or .keras; received "
                         f"{path.suffix!r}. Give one of the exported files.")
    if not path.is_file():
        raise ValueError(f"--model_file={path} does not exist: expected an exported .tflite or .keras file. Train "
                         "first, or check the path.")
    try:
        return loaders[path.suffix](path)
    except ImportError as error:
        raise ValueError(f"--model_file={path} needs a package that is not installed ({error}). Install usagi-suite "
                         "with its dependencies.") from None
    except Exception as error:  # the readers raise many types: OSError, RuntimeError, BadZipFile, TypeError, ...
        raise ValueError(f"--model_file={path} is not a readable {path.suffix} file of one input and one output: "
                         f"{error} Export it again.") from None


def _load_tflite(path):
    opened = interpreter.open_file(path)
    (source,), (target,) = opened.get_input_details(), opened.get_output_details()

    def run(images):
        opened.set_tensor(source["index"], quantize(images, source["dtype"], *source["quantization"]))
        opened.invoke()
        return dequantize(opened.get_tensor(target["index"]), *target["quantization"])

    shape = source.get("shape_signature", source["shape"])
    return tuple(None if side < 0 else int(side) for side in shape[1:]), run


def _load_keras(path):
    import tf_keras as keras

    from apps.image_classification import models  # noqa: F401  registers the layers that a file may name

    model = keras.models.load_model(path, compile=False)
    return tuple(model.input_shape[1:]), lambda images: np.asarray(model(images, training=False), np.float32)


def quantize(values, dtype, scale, zero_point):
    """Real numbers in the form of a tensor: as they are for a float dtype, else round(value / scale) + zero_point."""
    if np.issubdtype(dtype, np.floating):
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(dtype)


def dequantize(values, scale, zero_point):
    """Inverse of `quantize`: (value - zero_point) · scale for whole numbers; float32."""
    if np.issubdtype(values.dtype, np.floating):
        return values.astype(np.float32)
    return ((values.astype(np.int32) - zero_point) * scale).astype(np.float32)


def softmax(logits):
    """Probabilities of logits [..., K], float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def predict(run, labels, path, top):
    """The `top` most probable classes of one image file, as a list of (name, probability), best first.

    Raises:
        ValueError: when the file is not a readable image, or the model does not have as many outputs as `labels`.
    """
    image, _ = images_lib.read_image(path, labels.height, labels.width, labels.channels)
    probabilities = softmax(run(image[None].astype(np.float32)))[0]
    best = np.argsort(-probabilities, kind="stable")[:top]
    return [(labels.class_names[i], float(probabilities[i])) for i in best]


def check_model(input_shape, run, labels):
    """Raises ValueError when a model and a `Labels` do not belong together."""
    size = (labels.height, labels.width, labels.channels)
    if len(input_shape) != 3 or any(a is not None and a != b for a, b in zip(input_shape, size, strict=True)):
        raise ValueError(f"The model and its {labels_lib.LABELS_FILE} do not belong together: the model takes "
                         f"{input_shape}, the labels say {size}. Give the right --labels.")
    num_outputs = run(np.zeros((1, *size), np.float32)).shape[-1]
    if num_outputs != len(labels.class_names):
        raise ValueError(f"The model and its {labels_lib.LABELS_FILE} do not belong together: the model has "
                         f"{num_outputs} outputs, the labels name {len(labels.class_names)} classes. Give the right "
                         "--labels.")


def main(config, paths):
    """Prints the classes of each image file.

    Args:
        config: `PredictConfig`.
        paths: image files.

    Returns:
        exit code: 1 when an image could not be read (the others are classified all the same), else 0.
    """
    if not paths:
        raise ValueError("No image was given: expected one or more image files after the flags, such as photo.jpg.")
    input_shape, run = load_model(config.model_file)
    labels = labels_lib.read_labels(config.labels or labels_lib.find_labels(config.model_file))
    check_model(input_shape, run, labels)
    num_broken = 0
    for path in paths:
        try:
            classes = predict(run, labels, path, config.top)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            num_broken += 1
            continue
        print(path)
        for name, probability in classes:
            print(f"  {probability:7.2%}  {name}")
    return 1 if num_broken else 0


def _entry(argv):
    sys.exit(main(flagging.config_from_flags(PredictConfig), argv[1:]))


if __name__ == "__main__":
    flagging.define_flags(PredictConfig, flags.FLAGS)
    flagging.run(_entry)
