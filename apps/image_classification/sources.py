"""Data sets as arrays: scikit-learn's digits, idx files (MNIST, Fashion-MNIST), keras.datasets, tensorflow_datasets.

N images, H W C height, width, channels.
"""

import dataclasses
import gzip
import pathlib
import struct
import zlib

import numpy as np
import tf_keras as keras
from sklearn import datasets as sklearn_datasets

from apps.common.prepared_sets import prepared
from apps.image_classification import images as images_lib

# Decoded images up to this size are kept in memory.
MEMORY_LIMIT = 2**30

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CLASS_NAMES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                      "Ankle boot"),
}


@dataclasses.dataclass(frozen=True)
class Examples:
    """images: uint8 [N, H, W, C] or a `folders.FileImages`; labels: int32 [N], 0..K-1."""

    images: object
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as its files give it; `test` is None when it has no part of that name."""

    train: Examples
    test: Examples | None
    class_names: tuple
    num_skipped: int = 0


def load_digits(config):
    """The 1,797 digits of 8x8 pixels that scikit-learn brings (UCI, Alpaydin and Kaynak 1998); 0..16 becomes 0..255."""
    if config.data_dir:
        raise ValueError(f"--data=digits is embedded and reads no files; received --data_dir={config.data_dir}. Add "
                         "--data=folder (images), --data=mnist, ... or leave --data_dir out.")
    digits = sklearn_datasets.load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return Source(Examples(pixels, digits.target.astype(np.int32)), None, tuple("0123456789"))


def load_idx(config):
    """MNIST, Fashion-MNIST: the four idx files in --data_dir (or a folder of the set's name in it), gzip'd or not."""
    class_names = CLASS_NAMES[config.data]
    if not config.data_dir:
        return load_with_keras(config.data, class_names, [f"{name}.gz" for name in IDX_FILES])
    folder = data_folder(config)
    places = [folder, folder / config.data, folder / config.data.replace("_", "-")]
    paths = _find_idx(config.data, places)
    parts = [_read_idx_pair(paths[i], paths[i + 1], len(class_names)) for i in (0, 2)]
    if parts[0].images.shape[1:] != parts[1].images.shape[1:]:
        raise ValueError(f"{paths[0]} and {paths[2]} do not belong together: images of {parts[0].images.shape[1:3]} "
                         f"and {parts[1].images.shape[1:3]} pixels. Download them again.")
    return Source(*parts, class_names)


def _find_idx(name, places):
    def candidates(file):
        # Some mirrors write train-images.idx3-ubyte.
        return [place / (form + end) for place in places for form in (file, file.replace("-idx", ".idx"))
                for end in (".gz", "")]

    found = [next((path for path in candidates(file) if path.is_file()), None) for file in IDX_FILES]
    missing = [f"{file}.gz" for file, path in zip(IDX_FILES, found, strict=True) if path is None]
    if missing:
        raise ValueError(f"--data={name} is incomplete in --data_dir={places[0]}: missing {', '.join(missing)} (also "
                         f"looked for, without .gz too, in {', '.join(p.name + '/' for p in places[1:])}). Put the "
                         "publisher's files there, or leave --data_dir out to download them.")
    return found


def _read_idx_pair(image_path, label_path, num_classes):
    images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
    if len(images) != len(labels):
        raise ValueError(f"{image_path} and {label_path} do not belong together: {len(images)} images and "
                         f"{len(labels)} labels. Download them again.")
    check_labels(labels, num_classes, label_path)
    return Examples(images[..., None], labels.astype(np.int32))


def read_idx(path, num_axes):
    """Reads an idx file of bytes, gzip'd or not.

    The form (LeCun, Cortes and Burges): magic number 0x0800 + number of axes, the lengths of the axes as big-endian
    int32, then the bytes.

    Returns:
        uint8 array with `num_axes` axes.

    Raises:
        ValueError: when the file is damaged or something else.
    """
    content = read_bytes(path)
    if content[:2] == b"\x1f\x8b":  # not by name: some browsers unpack and keep the ending
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged: expected a complete gzip file; received {error}. Download it "
                             "again.") from None
    size = 4 * (1 + num_axes)
    magic, *shape = struct.unpack(f">{1 + num_axes}I", content[:size].ljust(size, b"\0"))
    if magic != 0x0800 + num_axes:
        raise ValueError(f"{path} is not an idx file of {'images' if num_axes == 3 else 'labels'}: expected the magic "
                         f"number {0x0800 + num_axes}; received {magic}. Download it again.")
    expected, received = int(np.prod(shape, dtype=object)), len(content) - size
    if received != expected or not expected:
        raise ValueError(f"{path} is damaged: its header announces {'x'.join(map(str, shape))} = {expected} bytes of "
                         f"data; received {received}. Download it again.")
    return np.frombuffer(content, np.uint8, offset=size).reshape(shape)


def load_with_keras(name, class_names, files):
    """A data set downloaded (once, to ~/.keras/datasets) by keras.datasets; `files` is what --data_dir may hold."""
    try:
        parts = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails.
        raise ValueError(f"--data={name} could not be downloaded ({error}). Give --data_dir=FOLDER with "
                         f"{', '.join(files)}.") from None
    examples = [Examples(x.reshape(*x.shape[:3], -1), y.reshape(-1).astype(np.int32)) for x, y in parts]
    return Source(*examples, class_names)


def load_tfds(config):
    """`tfds:<name>`: a classification set of tensorflow_datasets, read into memory.

    Images of different sizes are resized to --image_size (128 when it is 0).
    """
    def refuse(expected, received):
        raise ValueError(f"--data={config.data} is not for image classification: expected {expected}; received "
                         f"{', '.join(sorted(received))}. Use another set.")

    def check(features):
        if not {"image", "label"} <= set(features):
            refuse("the features image and label", features)

    tfds, builder = prepared(config, check)
    features, splits = builder.info.features, builder.info.splits
    if "train" not in splits:
        refuse("a split train", splits)
    test = next((split for split in ("test", "validation") if split in splits), None)
    parts = [split and _tfds_examples(tfds, builder, split, config) for split in ("train", test)]
    return Source(*parts, tuple(features["label"].names))


def _tfds_examples(tfds, builder, split, config):
    *size, channels = builder.info.features["image"].shape
    size = [images_lib.FOLDER_SIZE] * 2 if None in size else size
    height, width = images_lib.target_size(config, *size)
    num_images = builder.info.splits[split].num_examples
    if channels not in (1, 3) or num_images * height * width * channels > MEMORY_LIMIT:
        raise ValueError(f"--data={config.data} does not fit: expected 1 or 3 channels and at most {MEMORY_LIMIT} "
                         f"bytes of decoded images in split {split}; received {num_images} images of "
                         f"{height}x{width}x{channels}. Use a smaller --image_size, or write the set out as a folder "
                         "of images (--data=folder).")
    images, labels = np.empty((num_images, height, width, channels), np.uint8), np.empty(num_images, np.int32)
    rows = tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False))
    for row, example in enumerate(rows):
        images[row] = images_lib.resize_image(example["image"], height, width)
        labels[row] = example["label"]
    check_labels(labels, len(builder.info.features["label"].names), f"{config.data}, split {split},")
    return Examples(images, labels)


def data_folder(config):
    """`--data_dir` as a path; raises ValueError when it is missing or cannot be read."""
    if not config.data_dir:
        raise ValueError(f"--data={config.data} needs --data_dir=FOLDER; received none.")
    folder = pathlib.Path(config.data_dir).expanduser()
    list_folder(folder)
    return folder


def list_folder(folder):
    """Sorted entries of a folder whose names do not begin with a dot; raises ValueError when it cannot be read."""
    try:
        return sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise ValueError(f"--data_dir: {folder} cannot be read: expected a folder; received the error "
                         f"{error.strerror!r}. Give an existing, readable folder.") from None


def read_bytes(path):
    """Content of a file; raises ValueError when it cannot be read."""
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"--data_dir: {path} cannot be read: received the error {error.strerror!r}. Give a readable "
                         "file.") from None


def check_labels(labels, num_classes, where):
    """Raises ValueError when a label is not in 0..num_classes-1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise ValueError(f"{where} has {len(wrong)} labels out of range: expected 0 to {num_classes - 1}; received "
                         f"{int(labels[wrong[0]])} at row {int(wrong[0])}. Download the data again.")
