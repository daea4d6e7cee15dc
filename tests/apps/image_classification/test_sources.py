"""Data sets as arrays, written in the form of their publishers."""

import gzip
import struct
import sys
import types

import numpy as np
import pytest
import tf_keras as keras

from apps.image_classification import sources
from apps.image_classification.config import Config

TRAIN, TEST = 40, 20


def make_arrays(num_images, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_images, 28, 28)).astype(np.uint8), np.arange(num_images).astype(np.uint8) % 10


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", side) for side in array.shape)
    return header + array.tobytes()


def write_idx(folder, *, zipped=True, dotted=False):
    folder.mkdir(parents=True, exist_ok=True)
    for kind, seed, num_images in (("train", 0, TRAIN), ("t10k", 1, TEST)):
        for name, array in zip(("images-idx3", "labels-idx1"), make_arrays(num_images, seed), strict=True):
            name = f"{kind}-{name.replace('-', '.') if dotted else name}-ubyte{'.gz' if zipped else ''}"
            (folder / name).write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    return folder


def load(folder, **fields):
    return sources.load_idx(Config(**{"workdir": "unused", "data": "mnist", "data_dir": str(folder)} | fields))


@pytest.mark.parametrize("place, form", [(".", {}), ("fashion_mnist", {}), ("fashion-mnist", {"zipped": False}),
                                         (".", {"zipped": False, "dotted": True})])
def test_idx_files(tmp_path, place, form):
    write_idx(tmp_path / place, **form)
    source = load(tmp_path, data="fashion_mnist")
    for part, seed, num_images in ((source.train, 0, TRAIN), (source.test, 1, TEST)):
        images, labels = make_arrays(num_images, seed)
        np.testing.assert_array_equal(part.images[..., 0], images)
        np.testing.assert_array_equal(part.labels, labels)
    assert source.class_names[9] == "Ankle boot" and len(source.class_names) == 10


def test_gzip_is_known_by_content(tmp_path):
    write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    assert load(tmp_path).train.images.shape == (TRAIN, 28, 28, 1)


def test_missing_idx_files_are_named(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match=r"--data=mnist is incomplete in --data_dir=.*: missing "
                                         r"train-labels-idx1-ubyte\.gz \(also looked for, .*mnist/.*Put the "
                                         r"publisher's files there, or leave --data_dir out"):
        load(tmp_path)


def test_data_dir_that_cannot_be_read(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("nowhere", "file"):
        with pytest.raises(ValueError, match=rf"--data_dir: .*{name} cannot be read: expected a folder; received the "
                                             r"error .*Give an existing, readable folder"):
            load(tmp_path / name)
    with pytest.raises(ValueError, match=r"--data_dir: .* cannot be read: received the error 'Is a directory'"):
        sources.read_bytes(tmp_path)


@pytest.mark.parametrize("name, damage, message", [
    ("train-images-idx3", lambda b: gzip.compress(b)[:-20], r"images.*is damaged: expected a complete gzip file"),
    ("train-images-idx3", lambda b: b"\x1f\x8bnonsense", r"is damaged: expected a complete gzip file"),
    ("train-images-idx3", lambda b: b[:-1], r"is damaged: its header announces 40x28x28 = 31360 bytes of data; "
                                            r"received 31359\. Download it again"),
    ("train-labels-idx1", lambda b: b + b"\0", r"its header announces 40 = 40 bytes of data; received 41"),
    ("train-images-idx3", lambda b: b"<html>not found", r"is not an idx file of images: expected the magic number "
                                                        r"2051; received \d+"),
    ("train-labels-idx1", lambda b: b[:2], r"is not an idx file of labels: expected the magic number 2049; received 0"),
    ("train-labels-idx1", lambda b: idx_bytes(np.zeros(39, np.uint8)), r"do not belong together: 40 images and 39 "
                                                                       r"labels"),
    ("train-labels-idx1", lambda b: b[:-2] + b"\x0a\x00", r"train-labels.* has 1 labels out of range: expected 0 to 9; "
                                                          r"received 10 at row 38"),
    ("t10k-images-idx3", lambda b: idx_bytes(np.zeros((20, 27, 28), np.uint8)), r"do not belong together: images of "
                                                                                r"\(28, 28\) and \(27, 28\) pixels"),
])
def test_damaged_idx_files(tmp_path, name, damage, message):
    path = write_idx(tmp_path, zipped=False) / f"{name}-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_keras_datasets(monkeypatch):
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: (make_arrays(TRAIN, 0), make_arrays(TEST, 1)))
    source = load("")
    np.testing.assert_array_equal(source.train.images[..., 0], make_arrays(TRAIN, 0)[0])
    assert source.test.images.shape == (TEST, 28, 28, 1) and source.test.labels.dtype == np.int32


def test_failed_download(monkeypatch):
    def fail():
        raise Exception("URL fetch failure on https://somewhere: None -- unreachable")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    with pytest.raises(ValueError, match=r"--data=mnist could not be downloaded \(URL fetch failure.*\)\. Give "
                                         r"--data_dir=FOLDER with train-images-idx3-ubyte\.gz, .*t10k-labels-idx1"):
        load("")


class FakeBuilder:
    """Stands for a `tfds.core.DatasetBuilder`: images of given shapes, labels 0, 1, 0, 1, ..."""

    def __init__(self, shape, splits, features=("image", "label")):
        label = types.SimpleNamespace(names=["cat", "dog"], num_classes=2)
        known = {"image": types.SimpleNamespace(shape=shape), "label": label}
        self.shape, self.prepared = shape, False
        self.info = types.SimpleNamespace(
            features={name: known.get(name) for name in features},
            splits={name: types.SimpleNamespace(num_examples=count) for name, count in splits.items()})

    def download_and_prepare(self):
        self.prepared = True

    def as_dataset(self, split, shuffle_files):
        assert self.prepared and not shuffle_files
        for row in range(self.info.splits[split].num_examples):
            height, width, channels = (side or 10 + row for side in self.shape)
            yield {"image": np.full((height, width, channels), row, np.uint8), "label": row % 2}


def load_fake_tfds(monkeypatch, builder, **fields):
    def builder_of(name, data_dir):
        if builder is None:
            raise FileNotFoundError(name)
        return builder

    module = types.SimpleNamespace(builder=builder_of, as_numpy=lambda dataset: dataset)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return sources.load_tfds(Config(**{"workdir": "unused", "data": "tfds:pets"} | fields))


def test_tfds_of_one_size(monkeypatch):
    source = load_fake_tfds(monkeypatch, FakeBuilder((6, 6, 1), {"train": 5, "test": 3}))
    assert source.train.images.shape == (5, 6, 6, 1) and source.test.images.shape == (3, 6, 6, 1)
    np.testing.assert_array_equal(source.train.images[:, 0, 0, 0], range(5))
    np.testing.assert_array_equal(source.train.labels, [0, 1, 0, 1, 0])
    assert source.class_names == ("cat", "dog")


def test_tfds_of_many_sizes(monkeypatch):
    builder = FakeBuilder((None, None, 3), {"train": 2, "validation": 2})
    source = load_fake_tfds(monkeypatch, builder, image_size=16, resolution_multiplier=0.5)
    assert source.train.images.shape == source.test.images.shape == (2, 8, 8, 3)
    assert load_fake_tfds(monkeypatch, FakeBuilder((None, None, 3), {"train": 2})).test is None
    assert load_fake_tfds(monkeypatch, builder).train.images.shape == (2, 128, 128, 3)


@pytest.mark.parametrize("builder, message", [
    (FakeBuilder((6, 6, 1), {"train": 5}, ("text", "label")), r"--data=tfds:pets is not for image classification: "
                                                             r"expected the features image and label; received "
                                                             r"label, text\. Use another set"),
    (FakeBuilder((6, 6, 1), {"test": 5}), r"is not for image classification: expected a split train; received test"),
    (FakeBuilder((60000, 60000, 3), {"train": 1}), r"--data=tfds:pets does not fit: expected 1 or 3 channels and at "
                                                   r"most \d+ bytes .* received 1 images of 60000x60000x3"),
    (FakeBuilder((6, 6, 4), {"train": 1}), r"does not fit: .* received 1 images of 6x6x4"),
    (None, r"--data=tfds:pets could not be prepared \(FileNotFoundError: pets\)\. Check the name"),
])
def test_tfds_rejects(monkeypatch, builder, message):
    with pytest.raises(ValueError, match=message):
        load_fake_tfds(monkeypatch, builder)


def test_tfds_not_installed_or_without_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match=r"--data=tfds:pets needs tensorflow_datasets, which is not installed\. "
                                         r"Install the extra: pip install 'usagi-suite\[tfds\]'"):
        sources.load_tfds(Config(workdir="unused", data="tfds:pets"))
    with pytest.raises(ValueError, match=r"--data=tfds: lacks a name: expected tfds:<name>"):
        sources.load_tfds(Config(workdir="unused", data="tfds:"))
