"""CIFAR pickles, written as Python 2 (the publisher) and as Python 3 write them."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import tf_keras as keras

from apps.image_classification import cifar
from apps.image_classification.config import Config

NUM = 6


def make_batch(seed, num_classes=10):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (NUM, 3, 32, 32)).astype(np.uint8), rng.integers(0, num_classes, NUM)


def cifar10_files(protocol=2):
    files = {}
    for i in range(6):
        images, labels = make_batch(i)
        name = "test_batch" if i == 5 else f"data_batch_{i + 1}"
        files[name] = pickle.dumps({b"batch_label": name.encode(), b"labels": labels.tolist(),
                                    b"data": images.reshape(NUM, -1)}, protocol)
    return files


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def load(folder, data="cifar10"):
    return cifar.load_cifar(Config(workdir="unused", data=data, data_dir=str(folder)))


def check_cifar10(source):
    images = np.concatenate([make_batch(i)[0] for i in range(5)])
    np.testing.assert_array_equal(source.train.images, np.moveaxis(images, 1, -1))
    np.testing.assert_array_equal(source.train.labels, np.concatenate([make_batch(i)[1] for i in range(5)]))
    np.testing.assert_array_equal(source.test.images, np.moveaxis(make_batch(5)[0], 1, -1))
    assert source.class_names[:2] == ("airplane", "automobile")


@pytest.mark.parametrize("place", ["cifar-10-batches-py", "below/cifar-10-batches-py", "renamed"])
def test_cifar10_folder(tmp_path, place):
    folder = write(tmp_path / place, cifar10_files())
    check_cifar10(load(folder if place == "renamed" else tmp_path))
    check_cifar10(load(folder))


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_every_pickle_protocol(tmp_path, protocol):
    write(tmp_path / "cifar-10-batches-py", cifar10_files(protocol))
    check_cifar10(load(tmp_path))


def test_archive(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name, content in cifar10_files().items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    check_cifar10(load(tmp_path))
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz is damaged: expected a complete \.tar\.gz"):
        load(tmp_path)


def test_archive_without_the_files(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz"):
        pass
    with pytest.raises(ValueError, match=r"--data=cifar10 is incomplete: .*tar\.gz lacks data_batch_1, .*test_batch"):
        load(tmp_path)


def test_cifar100_takes_the_fine_labels(tmp_path):
    files = {}
    for seed, name in enumerate(("train", "test")):
        images, labels = make_batch(seed, 100)
        files[name] = pickle.dumps({"data": images.reshape(NUM, -1), "fine_labels": labels.tolist(),
                                    "coarse_labels": [0] * NUM}, 2)
    write(tmp_path / "cifar-100-python", files)
    source = load(tmp_path, "cifar100")
    np.testing.assert_array_equal(source.train.labels, make_batch(0, 100)[1])
    assert len(source.class_names) == len(set(source.class_names)) == 100
    assert list(source.class_names) == sorted(source.class_names)


def test_keras_datasets(monkeypatch):
    parts = [(np.moveaxis(images, 1, -1), labels[:, None]) for images, labels in (make_batch(0), make_batch(1))]
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: parts)
    source = load("")
    assert source.train.images.shape == (NUM, 32, 32, 3)
    np.testing.assert_array_equal(source.test.labels, make_batch(1)[1])


def test_failed_download(monkeypatch):
    def fail():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.cifar100, "load_data", fail)
    with pytest.raises(ValueError, match=r"--data=cifar100 could not be downloaded \(URL fetch failure\)\. Give "
                                         r"--data_dir=FOLDER with cifar-100-python/\{train,test\} or "
                                         r"cifar-100-python\.tar\.gz"):
        load("", "cifar100")


def test_missing(tmp_path):
    with pytest.raises(ValueError, match=r"--data=cifar10 is not in --data_dir=.*: expected the folder "
                                         r"cifar-10-batches-py with data_batch_1, .*, or cifar-10-python\.tar\.gz"):
        load(tmp_path)
    files = cifar10_files()
    del files["data_batch_3"]
    write(tmp_path / "cifar-10-batches-py", files)
    with pytest.raises(ValueError, match=r"--data=cifar10 is incomplete: .* lacks data_batch_3\. Unpack "
                                         r"cifar-10-python\.tar\.gz again"):
        load(tmp_path)


@pytest.mark.parametrize("change, message", [
    ({"data": np.zeros((NUM, 3072), np.float32)}, r"data_batch_2 is damaged: expected 'data' to be a uint8 array with "
                                                  r"3072 columns; received float32 \[6, 3072\]"),
    ({"data": None}, r"expected 'data' to be a uint8 array .*; received nothing"),
    ({"labels": "cat"}, r"expected 'labels' to be a list of whole numbers; received str"),
    ({"labels": [0.5] * NUM}, r"expected 'labels' to be a list of whole numbers; received list"),
    ({"labels": [0] * 5}, r"expected as many labels as images, at least one; received 6 images and 5 labels"),
    ({"labels": [0] * 5 + [10]}, r"data_batch_2 has 1 labels out of range: expected 0 to 9; received 10 at row 5"),
])
def test_damaged_batch(tmp_path, change, message):
    images, labels = make_batch(0)
    files = cifar10_files()
    files["data_batch_2"] = pickle.dumps({"data": images.reshape(NUM, -1), "labels": labels.tolist()} | change)
    write(tmp_path / "cifar-10-batches-py", files)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_damaged_pickle(tmp_path):
    for content in (cifar10_files()["data_batch_2"][:-300], b"", pickle.dumps([1, 2])):
        write(tmp_path / "cifar-10-batches-py", cifar10_files() | {"data_batch_2": content})
        with pytest.raises(ValueError, match=r"data_batch_2 is damaged: expected .*Download it again"):
            load(tmp_path)


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function, arguments", [(os.mkdir, ("made",)), (eval, ("1 + 1",)), (np.fromfile, ("made",)),
                                                 (str.encode, ("a", "rot13"))])
def test_a_pickle_cannot_call_functions(tmp_path, monkeypatch, function, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"some file is damaged: expected a pickle of arrays, lists and dicts; "
                                         r"received UnpicklingError: .* is not admitted"):
        cifar.read_pickle(pickle.dumps({"data": Attack(function, *arguments)}), "some file")
    assert not (tmp_path / "made").exists()


def test_only_the_codec_of_bytes_is_admitted():
    hostile = pickle.dumps(b"\xff", 2).replace(b"latin1", b"utf-16")
    with pytest.raises(ValueError, match=r"UnpicklingError: codec .*utf-16"):
        cifar.read_pickle(hostile, "some file")
