"""Images and targets as a pure function of (seed, epoch, step).

Inputs are float32 pixels 0..255 [B, H, W, C], targets float32 probabilities [B, K]. Augmentation, mixup and label
smoothing act on training batches only, here and nowhere else: the loss is plain cross-entropy.
B batch, N examples of a part, H W C image, K classes.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from sklearn.model_selection import train_test_split

from apps.common.config import unknown_name
from apps.common.splits import Splits, evaluation_stream, training_stream
from apps.image_classification import augmentation, cifar, folders, sources
from apps.image_classification import images as images_lib
from apps.image_classification.labels import write_labels

__all__ = ["ImageSpec", "ImageSplits", "calibration_images", "load", "write_labels"]

_ARRAYS = {"digits": sources.load_digits, "mnist": sources.load_idx, "fashion_mnist": sources.load_idx,
           "cifar10": cifar.load_cifar, "cifar100": cifar.load_cifar}
_NUM_MEASURED = 5000  # images on disk from which mean and standard deviation are taken


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """What a model must know of its data.

    Attributes:
        height, width, channels: of the inputs.
        num_classes: K.
        class_names: K names.
        mean, std: of the training pixels, 0..255, a float for each channel; a constant channel has std 1.
    """

    height: int
    width: int
    channels: int
    num_classes: int
    class_names: tuple
    mean: tuple
    std: tuple


@dataclasses.dataclass(frozen=True)
class ImageSplits(Splits):
    """Attributes beside those of `Splits`:
        plain: `plain(index)`, training examples int64 [B] as (inputs, targets), not augmented.
        num_skipped: broken files that were left out.
    """

    plain: Callable[[np.ndarray], tuple]
    num_skipped: int = 0


def load(config):
    """Reads the data set that `config` names.

    Args:
        config: the application's `Config`.

    Returns:
        `ImageSplits` whose `spec` is an `ImageSpec`; `validation` is None when --validation_fraction is 0.

    Raises:
        ValueError: when the name, the files or the flags are wrong; nothing is trained then.
    """
    names = augmentation.parse(config.augmentation)
    source = _read(config)
    train_rows, validation_rows, test_rows = _partition(config, source)
    num_classes, test = len(source.class_names), source.test or source.train
    gather_train = _gatherer(source.train.images)
    gather_test = gather_train if source.test is None else _gatherer(test.images)
    train = _examples(gather_train, source.train.labels, train_rows, num_classes)
    spec = ImageSpec(*source.train.images.shape[1:], num_classes, source.class_names,
                     *_moments(train, len(train_rows), _NUM_MEASURED if config.data == "folder" else len(train_rows)))
    validation = None
    if len(validation_rows):
        validation = _evaluation(_examples(gather_train, source.train.labels, validation_rows, num_classes),
                                 len(validation_rows), config)
    return ImageSplits(_training(train, len(train_rows), names, spec, config), validation,
                       _evaluation(_examples(gather_test, test.labels, test_rows, num_classes), len(test_rows), config),
                       spec, plain=train, num_skipped=source.num_skipped)


def calibration_images(config, splits, num_images):
    """Training images as they are, without augmentation, for the calibration of int8.

    Args:
        config: the application's `Config`; its --seed chooses the images.
        splits: what `load` returned.
        num_images: how many; all training images when there are fewer.

    Returns:
        float32 [num_images, H, W, C], pixels 0..255.
    """
    num_examples = splits.train.num_examples
    index = np.random.default_rng(config.seed).permutation(num_examples)[:num_images]
    with tf.device("CPU:0"):  # where the images are
        return splits.plain(index)[0].numpy()


def _read(config):
    name = config.data
    if name in _ARRAYS:
        source = _ARRAYS[name](config)
        size = images_lib.target_size(config, *source.train.images.shape[1:3])
        parts = [part and sources.Examples(images_lib.resize_images(part.images, *size), part.labels)
                 for part in (source.train, source.test)]
        return sources.Source(*parts, source.class_names)
    if name == "folder":
        return folders.load_folder(config)
    if name.startswith("tfds:"):
        return sources.load_tfds(config)
    raise unknown_name("data set", name, (*_ARRAYS, "folder", "tfds:<name>"))


def _partition(config, source):
    """Rows of (training, validation, test): the first two in `source.train`, the last where the test images are."""
    labels, names = source.train.labels, source.class_names
    train, validation = np.arange(len(labels)), np.arange(0)
    if source.test is not None:
        test = np.arange(len(source.test.labels))
    else:
        train, test = _set_aside(train, labels, "test_fraction", config, names)
    if config.validation_fraction:
        train, validation = _set_aside(train, labels, "validation_fraction", config, names)
    return train, validation, test


def _set_aside(rows, labels, flag, config, class_names):
    """Splits rows into (kept, set aside) with equal shares of every class; each class must stand in both."""
    fraction, num_classes = getattr(config, flag), len(class_names)
    counts = np.bincount(labels[rows], minlength=num_classes)
    num_aside = int(np.ceil(fraction * len(rows)))  # as scikit-learn rounds
    if min(num_aside, len(rows) - num_aside) >= num_classes and counts.min() >= 2:
        kept, aside = train_test_split(rows, test_size=num_aside, random_state=config.split_seed,
                                       stratify=labels[rows])
        in_aside = np.bincount(labels[aside], minlength=num_classes)
        if in_aside.min() >= 1 and (counts - in_aside).min() >= 1:
            return kept, aside
    rarest = int(np.argmin(counts))
    raise ValueError(f"--{flag}={fraction} leaves a class empty: expected at least one image of each of {num_classes} "
                     f"classes on both sides; received {num_aside} of {len(rows)} images set aside, and class "
                     f"{class_names[rarest]!r} has {counts[rarest]}. Use a fraction nearer to 0.5"
                     f"{', 0 for no validation' if flag == 'validation_fraction' else ''}, or more images.")


def _gatherer(images):
    """`gather(rows)`: int64 [B] -> uint8 [B, H, W, C]."""
    if isinstance(images, folders.FileImages):
        return images.gather
    with tf.device("CPU:0"):  # where tf.data runs
        pixels = tf.constant(images)
    return lambda rows: tf.gather(pixels, rows)


def _examples(gather, labels, rows, num_classes):
    """`fetch(index)`: int64 [B] -> (float32 [B, H, W, C], float32 [B, K]) of a part that consists of `rows`."""
    with tf.device("CPU:0"):
        rows, labels = tf.constant(rows, tf.int64), tf.constant(labels, tf.int32)

    def fetch(index):
        row = tf.gather(rows, index)
        return tf.cast(gather(row), tf.float32), tf.one_hot(tf.gather(labels, row), num_classes)

    return fetch


def _evaluation(fetch, num_examples, config):
    return evaluation_stream(num_examples, config.batch_size, fetch)


def _training(fetch, num_examples, names, spec, config):
    side = min(spec.height, spec.width)
    augment, num_columns = augmentation.image_augmenter(
        names, shift_pixels=augmentation.pixels("shift_pixels", config.shift_pixels, side, 8),
        cutout_pixels=augmentation.pixels("cutout_pixels", config.cutout_pixels, side, 2), fill=spec.mean)
    quantiles = augmentation.beta_quantiles(config.mixup_alpha)
    uses_mixup = "mixup" in names

    def augmented(index, noise):
        images, targets = fetch(index)
        return augment(images, noise), targets

    def batch(index, noise):
        images, targets = augmented(index, noise[:, :num_columns])
        if uses_mixup:  # with any other training example, augmented by noise of its own
            other = augmented(augmentation.partner(noise[:, -1], num_examples), noise[:, num_columns:2 * num_columns])
            share = augmentation.beta_sample(noise[:, -2], quantiles)
            images, targets = augmentation.mixup((images, targets), other, share)
        return images, targets * (1 - config.label_smoothing) + config.label_smoothing / spec.num_classes

    return training_stream(num_examples, config.batch_size, config.seed, batch,
                           num_noise=2 * num_columns + 2 if uses_mixup else num_columns)


def _moments(fetch, num_examples, num_measured):
    """(mean, std): tuples of a float for each channel, of at most `num_measured` images at even distances."""
    index = np.linspace(0, num_examples - 1, min(num_measured, num_examples)).round().astype(np.int64)
    total, squares = 0.0, 0.0  # [H, W, C]: adding up whole images is several times faster than adding up channels
    for first in range(0, len(index), 256):
        with tf.device("CPU:0"):  # where the images are
            pixels = fetch(index[first:first + 256])[0].numpy()
        total = total + pixels.sum(axis=0, dtype=np.float64)
        squares = squares + np.square(pixels).sum(axis=0, dtype=np.float64)
    mean, square = ((x / len(index)).mean(axis=(0, 1)) for x in (total, squares))
    std = np.sqrt(np.maximum(square - np.square(mean), 0))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1).tolist())
