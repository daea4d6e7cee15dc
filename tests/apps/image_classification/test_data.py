"""Splits, streams and their purity, on the embedded digits; real data where it is at hand."""

import os
import pathlib
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn import datasets as sklearn_datasets
from sklearn.model_selection import train_test_split

from apps.image_classification import data
from apps.image_classification.config import Config

ALL = "flip,shift,cutout,mixup"


def load(**fields):
    return data.load(Config(**{"workdir": "unused", "batch_size": 100} | fields))


def collect(stream):
    inputs, targets = zip(*((x.numpy(), y.numpy()) for x, y in stream()), strict=True)
    return np.concatenate(inputs), np.concatenate(targets)


def take(stream, num_batches, **where):
    return [(x.numpy(), y.numpy()) for x, y in stream(**where).take(num_batches)]


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


def whole_part(splits):
    """All training examples without augmentation."""
    inputs, targets = splits.plain(tf.range(splits.train.num_examples, dtype=tf.int64))
    return inputs.numpy(), targets.numpy()


@pytest.fixture(scope="module")
def digits():
    return load()


def test_digits_spec_and_batches(digits):
    spec = digits.spec
    assert (spec.height, spec.width, spec.channels, spec.num_classes) == (8, 8, 1, 10)
    assert spec.class_names == tuple("0123456789")
    inputs, targets = collect(digits.test)
    assert inputs.dtype == targets.dtype == np.float32
    assert inputs.shape == (360, 8, 8, 1) and targets.shape == (360, 10)
    assert inputs.min() == 0 and inputs.max() == 255
    np.testing.assert_array_equal(np.sort(targets, axis=1), np.eye(10)[[9] * 360])
    train_inputs, train_targets = next(iter(digits.train()))
    assert train_inputs.shape == (100, 8, 8, 1) and train_targets.shape == (100, 10)  # static, as a model wants


def test_test_part_is_scikit_learns_stratified_split(digits):
    source = sklearn_datasets.load_digits()
    _, images, _, labels = train_test_split(source.images, source.target, test_size=0.2, random_state=0,
                                            stratify=source.target)
    inputs, targets = collect(digits.test)
    np.testing.assert_array_equal(targets.argmax(1), labels)
    np.testing.assert_allclose(inputs[..., 0], images * 255 / 16, atol=0.5)


def test_parts_are_disjoint_complete_and_stratified(digits):
    parts = [whole_part(digits), collect(digits.validation), collect(digits.test)]
    assert [len(x) for x, _ in parts] == [1293, 144, 360]
    together = np.sort(np.concatenate([x for x, _ in parts]).reshape(1797, -1).view("f4,f4" + ",f4" * 62), axis=0)
    source = np.round(sklearn_datasets.load_digits().data * 255 / 16).astype(np.float32)
    np.testing.assert_array_equal(together, np.sort(source.view("f4,f4" + ",f4" * 62), axis=0))
    everything = np.bincount(sklearn_datasets.load_digits().target)
    for _, targets in parts:
        np.testing.assert_allclose(targets.sum(0), everything * len(targets) / 1797, atol=1.01)


def test_split_seed_changes_the_parts_and_seed_does_not(digits):
    inputs = collect(digits.test)[0]
    assert not np.array_equal(collect(load(split_seed=1).test)[0], inputs)
    np.testing.assert_array_equal(collect(load(seed=1).test)[0], inputs)


def test_no_validation():
    splits = load(validation_fraction=0.0)
    assert splits.validation is None
    assert splits.train.num_examples == 1437


def test_mean_and_std_are_of_the_training_part(digits):
    inputs, _ = whole_part(digits)
    np.testing.assert_allclose(digits.spec.mean, inputs.mean((0, 1, 2), np.float64), rtol=1e-9)
    np.testing.assert_allclose(digits.spec.std, inputs.std((0, 1, 2), np.float64), rtol=1e-9)
    assert all(type(value) is float for value in digits.spec.mean + digits.spec.std)


@pytest.mark.parametrize("augmentation", ["none", ALL])
def test_same_seed_same_batches(augmentation):
    first, second, other = (take(load(augmentation=augmentation, seed=seed).train, 3) for seed in (4, 4, 5))
    assert_same(first, second)
    assert not np.array_equal(first[0][0], other[0][0])


def test_start_step_equals_skipping():
    train = load(augmentation=ALL, batch_size=500).train  # 2 steps an epoch
    assert train.steps_per_epoch == 2
    whole = take(train, 6)
    for step in (1, 2, 5):
        assert_same(take(train, 6 - step, start_step=step), whole[step:])
    assert not np.array_equal(whole[0][0], whole[2][0])  # another order in the next epoch


def test_two_workers_together_see_what_one_sees():
    splits = load(augmentation=ALL)
    contexts = [tf.distribute.InputContext(2, worker, 2) for worker in range(2)]
    for stream, num_batches in ((splits.train, 3), (splits.test, 4)):
        halves = [take(stream, num_batches, input_context=context) for context in contexts]
        joined = [tuple(map(np.concatenate, zip(*rows, strict=True))) for rows in zip(*halves, strict=False)]
        assert_same(joined, take(stream, num_batches)[:len(joined)])
        assert len(joined) >= 3


def test_an_epoch_holds_each_example_once():
    splits = load(batch_size=1293)
    (inputs, _), = take(splits.train, 1)
    np.testing.assert_array_equal(np.sort(inputs.reshape(1293, -1).sum(1)),
                                  np.sort(whole_part(splits)[0].reshape(1293, -1).sum(1)))


def test_augmentation_leaves_the_other_parts_alone(digits):
    augmented = load(augmentation=ALL, label_smoothing=0.1)
    assert_same([collect(digits.test)], [collect(augmented.test)])
    assert_same([collect(digits.validation)], [collect(augmented.validation)])
    assert_same([whole_part(digits)], [whole_part(augmented)])


def test_label_smoothing(digits):
    plain, smooth = (take(stream, 1)[0] for stream in (digits.train, load(label_smoothing=0.1).train))
    np.testing.assert_array_equal(smooth[0], plain[0])
    expected = np.where(plain[1] == 1, 0.9 + 0.01, 0.01)
    np.testing.assert_allclose(smooth[1], expected, atol=1e-7)


def test_mixup_mixes_training_images_and_their_targets(digits):
    (plain, labels), = take(digits.train, 1)
    (mixed, targets), = take(load(augmentation="mixup", mixup_alpha=1.0).train, 1)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    images, image_labels = whole_part(digits)
    share = (targets * labels).sum(1)
    checked = 0
    for row in np.flatnonzero((share > 0.1) & (share < 0.9)):  # two classes: the share can be read off
        other = (mixed[row] - share[row] * plain[row]) / (1 - share[row])
        same_class = images[image_labels[:, (targets[row] * (1 - labels[row])).argmax()] == 1]
        assert np.abs(same_class - other).max((1, 2, 3)).min() < 0.05
        checked += 1
    assert checked > 40


def test_calibration_images(digits):
    config = Config(workdir="unused")
    chosen = data.calibration_images(config, digits, 50)
    assert chosen.shape == (50, 8, 8, 1) and chosen.dtype == np.float32
    known = {image.tobytes() for image in whole_part(digits)[0]}
    assert len({image.tobytes() for image in chosen} & known) >= 49
    np.testing.assert_array_equal(data.calibration_images(config, digits, 50), chosen)
    assert len(data.calibration_images(config, digits, 5000)) == 1293


def test_image_size_and_resolution_multiplier():
    splits = load(image_size=24, resolution_multiplier=0.5)
    assert (splits.spec.height, splits.spec.width) == (12, 12)
    small, large = collect(load().test)[0][0], collect(splits.test)[0][0]
    expected = Image.fromarray(small[..., 0].astype(np.uint8)).resize((12, 12), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(large[..., 0], np.asarray(expected, np.float32))


@pytest.mark.parametrize("fields, message", [
    ({"data": "mnits"}, r"Unknown data set 'mnits': expected one of digits, mnist, fashion_mnist, cifar10, cifar100, "
                        r"folder, tfds:<name>\. Did you mean 'mnist'\?"),
    ({"data_dir": "photos"}, r"--data=digits is embedded and reads no files; received --data_dir=photos\. Add "
                             r"--data=folder"),
    ({"data": "folder"}, r"--data=folder needs --data_dir=FOLDER; received none\."),
    ({"batch_size": 1294}, r"--batch_size must be between 1 and the number of training examples, 1293; received 1294"),
    ({"validation_fraction": 0.001}, r"--validation_fraction=0\.001 leaves a class empty: expected at least one image "
                                     r"of each of 10 classes on both sides; received 2 of 1437 images set aside, .*"
                                     r"Use a fraction nearer to 0\.5, 0 for no validation, or more images\."),
    ({"validation_fraction": 0.999}, r"--validation_fraction=0\.999 leaves a class empty"),
    ({"test_fraction": 0.001}, r"--test_fraction=0\.001 leaves a class empty: .* received 2 of 1797"),
    ({"test_fraction": 0.9999}, r"--test_fraction=0\.9999 leaves a class empty"),
    ({"augmentation": "flip,mix"}, r"Unknown value of --augmentation: 'mix'"),
    ({"augmentation": "shift", "shift_pixels": 9}, r"--shift_pixels must be at most the side of the images, 8; "
                                                   r"received 9\."),
    ({"augmentation": "cutout", "cutout_pixels": 9}, r"--cutout_pixels must be at most the side of the images, 8"),
    ({"resolution_multiplier": 0.01}, r"--resolution_multiplier=0\.01 leaves no pixel of images of 8x8: expected at "
                                      r"least 1x1"),
])
def test_bad_input(fields, message):
    with pytest.raises(ValueError, match=message):
        load(**fields)


def real_data(name):
    root = os.environ.get("USAGI_DATA") or pathlib.Path(__file__).parents[4] / "shared" / "data"
    folder = pathlib.Path(root) / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; USAGI_DATA names the folder of real data sets")
    return folder


def test_real_fashion_mnist():
    splits = load(data="fashion_mnist", data_dir=str(real_data("fashion-mnist").parent), augmentation="flip")
    assert (splits.train.num_examples, splits.validation.num_examples) == (54000, 6000)
    np.testing.assert_allclose(splits.spec.mean, 255 * 0.2860, atol=0.3)  # the published mean and deviation of all
    np.testing.assert_allclose(splits.spec.std, 255 * 0.3530, atol=0.3)
    inputs, targets = collect(splits.test)
    assert inputs.shape == (10000, 28, 28, 1)
    np.testing.assert_array_equal(targets.sum(0), 1000)
    np.testing.assert_array_equal(collect(splits.validation)[1].sum(0), 600)


def test_real_flowers(tmp_path):
    with zipfile.ZipFile(real_data("flowers17") / "flowers17_128.zip") as archive:
        archive.extractall(tmp_path)
    splits = load(data="folder", data_dir=str(tmp_path), image_size=32, strict_data=True)
    assert splits.spec.num_classes == 17 and splits.spec.class_names[0] == "00_daffodil"
    assert (splits.train.num_examples, splits.validation.num_examples, splits.test.num_examples) == (918, 102, 340)
    inputs, targets = collect(splits.test)
    assert inputs.shape == (340, 32, 32, 3)
    np.testing.assert_array_equal(targets.sum(0), 20)
