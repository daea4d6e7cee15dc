"""`labels.json`: what a program needs besides the model to classify a picture. Imports no TensorFlow."""

import dataclasses
import json
import pathlib

from apps.common import config as config_lib

LABELS_FILE = "labels.json"


@dataclasses.dataclass(frozen=True)
class Labels:
    """Names of the K classes, and the size and channels of the model's input (float32 pixels, 0..255)."""

    class_names: tuple
    height: int
    width: int
    channels: int


def write_labels(spec, directory):
    """Writes `labels.json` into `directory` (made when missing) from an `ImageSpec`; returns its path."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LABELS_FILE
    config_lib.write_json(path, {"class_names": list(spec.class_names), "height": spec.height, "width": spec.width,
                                 "channels": spec.channels})
    return path


def read_labels(path):
    """Reads a file of `write_labels`; raises ValueError when it is missing or not of that form."""
    try:
        content = json.loads(pathlib.Path(path).read_text())
        labels = Labels(tuple(content["class_names"]), *(int(content[k]) for k in ("height", "width", "channels")))
    except OSError as error:
        raise ValueError(f"--labels={path} cannot be read: {error.strerror}. Expected the {LABELS_FILE} that training "
                         "writes beside its exports.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--labels={path} is damaged: expected JSON with class_names, height, width and channels; "
                         f"received {type(error).__name__}: {error}. Export the model again.") from None
    if not labels.class_names or min(labels.height, labels.width) < 1 or labels.channels not in (1, 3):
        raise ValueError(f"--labels={path} is damaged: expected at least one class, a size of at least 1x1 and 1 or 3 "
                         f"channels; received {labels}. Export the model again.")
    return labels


def find_labels(model_file):
    """Path of the `labels.json` that belongs to a model: beside it, in `export/` beside it, or one folder up."""
    folder = pathlib.Path(model_file).resolve().parent
    places = [folder / LABELS_FILE, folder / "export" / LABELS_FILE, folder.parent / LABELS_FILE]
    for place in places:
        if place.is_file():
            return place
    raise ValueError(f"No class names for {model_file}: expected {LABELS_FILE} in {', '.join(map(str, places))}. Give "
                     "--labels=PATH.")
