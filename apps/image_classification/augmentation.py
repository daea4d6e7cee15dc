"""Augmentation as pure functions of (images, noise): the same noise gives the same pictures.

Images are [B, H, W, C] of any dtype, noise is float32, uniform in [0, 1), one row an image; a row's result depends on
that row alone, so batches may be shared out among workers. Everything works on the whole batch at once.
"""

from typing import NamedTuple

import numpy as np
import scipy.stats
import tensorflow as tf

from apps.common.config import unknown_name

AUGMENTATIONS = ("flip", "shift", "cutout", "mixup")
_NUM_QUANTILES = 4097


def parse(text):
    """Names in `--augmentation`, in the order in which they are applied (that of `AUGMENTATIONS`).

    Raises:
        ValueError: for an unknown name, one that stands twice, or `none` among others.
    """
    names = [name.strip() for name in text.split(",")]
    if names == ["none"]:
        return ()
    if "none" in names:
        raise ValueError(f"--augmentation: none stands alone; received {text!r}. Leave none or the others out.")
    for name in names:
        if name not in AUGMENTATIONS:
            raise unknown_name("value of --augmentation:", name, (*AUGMENTATIONS, "none"))
    if len(set(names)) < len(names):
        raise ValueError(f"--augmentation names something twice: expected each of {', '.join(AUGMENTATIONS)} at most "
                         f"once; received {text!r}.")
    return tuple(name for name in AUGMENTATIONS if name in names)


class Origin(NamedTuple):
    """Where each pixel of the new image comes from.

    rows: int32 [B, H] and columns: int32 [B, W], in the old image; outside it there are zeros. blank: bool [B, H, W],
    pixels that come from nowhere. All of an image's augmentations are put together in these small tensors, so that the
    pixels are moved once.
    """

    rows: tf.Tensor
    columns: tf.Tensor
    blank: tf.Tensor | None = None


def unmoved(num_images, height, width):
    """The `Origin` of images that stay as they are."""
    return Origin(tf.tile(tf.range(height)[None], [num_images, 1]), tf.tile(tf.range(width)[None], [num_images, 1]))


def shift(origin, noise, pixels):
    """Random crop of the zero-padded image: moves it by -pixels..pixels, each as likely, down and right.

    With 4 pixels on 32x32 this is the crop of He et al. 2016, section 4.2. noise: [B, 2], vertical and horizontal.
    """
    offset = _whole(noise, 2 * pixels + 1) - pixels  # [B, 2], corner of the crop
    return origin._replace(rows=origin.rows + offset[:, :1], columns=origin.columns + offset[:, 1:])


def flip(origin, noise):
    """Mirrors the old image left and right where noise [B, 1] is below 1/2."""
    return origin._replace(columns=tf.where(noise < 0.5, origin.columns.shape[1] - 1 - origin.columns, origin.columns))


def cutout(origin, noise, size):
    """Blanks a square of `size` pixels whose centre is any pixel; what falls outside the image is cut off.

    DeVries and Taylor 2017, section 3.2. noise: [B, 2], vertical and horizontal.
    """

    def covered(noise, side):  # -> bool [B, side]
        distance = tf.range(side) - _whole(noise, side)[:, None] + size // 2
        return (distance >= 0) & (distance < size)

    height, width = origin.rows.shape[1], origin.columns.shape[1]
    return origin._replace(blank=covered(noise[:, 0], height)[:, :, None] & covered(noise[:, 1], width)[:, None, :])


def move(images, origin, fill):
    """Images [B, H, W, C] made of their old pixels by `origin`; `fill` [C] goes where it is blank."""
    num_images, height, width, channels = images.shape
    num_pixels = num_images * height * width
    outside = tf.cast(num_pixels, tf.int32)  # so large that adding the other coordinate keeps it outside

    def inside(coordinate, side):
        return (coordinate >= 0) & (coordinate < side)

    rows = origin.rows * width + (tf.range(num_images) * (height * width))[:, None]
    rows = tf.where(inside(origin.rows, height), rows, outside)  # [B, H]
    columns = tf.where(inside(origin.columns, width), origin.columns, outside)  # [B, W]
    index = tf.minimum(rows[:, :, None] + columns[:, None, :], outside)  # [B, H, W]
    if origin.blank is not None:
        index = tf.where(origin.blank, num_pixels + 1, index)
    extra = tf.stack([tf.zeros([channels], images.dtype), tf.cast(fill, images.dtype)])
    return tf.gather(tf.concat([tf.reshape(images, [-1, channels]), extra], axis=0), index)


def mixup(first, second, share):
    """share · first + (1 - share) · second, row by row; Zhang et al. 2018, section 2.

    first, second: (images, targets) with [B, H, W, C] and [B, K], floating; share: [B], see `beta_sample`.
    """
    mixed = []
    for a, b in zip(first, second, strict=True):
        weight = tf.reshape(tf.cast(share, a.dtype), [-1] + [1] * (a.shape.rank - 1))
        mixed.append(weight * a + (1 - weight) * b)
    return tuple(mixed)


def beta_quantiles(alpha):
    """Table for `beta_sample`: float32 [4097], the inverse distribution function of Beta(alpha, alpha)."""
    return scipy.stats.beta.ppf(np.linspace(0.0, 1.0, _NUM_QUANTILES), alpha, alpha).astype(np.float32)


def beta_sample(noise, quantiles):
    """Draws from the distribution that `quantiles` tabulates, linear in between. noise: [B] -> float32 [B]."""
    position = noise * (len(quantiles) - 1)
    below = tf.cast(position, tf.int32)
    table = tf.constant(quantiles)
    low, high = tf.gather(table, below), tf.gather(table, tf.minimum(below + 1, len(quantiles) - 1))
    return low + (high - low) * (position - tf.cast(below, noise.dtype))


def partner(noise, num_examples):
    """Index of any of `num_examples` examples, each as likely. noise: [B] -> int64 [B]."""
    return tf.cast(_whole(tf.cast(noise, tf.float64), num_examples), tf.int64)


def image_augmenter(names, *, shift_pixels, cutout_pixels, fill):
    """Puts the augmentations of single images (all but mixup) together: mirrored, then shifted, then blanked.

    Args:
        names: result of `parse`.
        shift_pixels, cutout_pixels: as in `shift` and `cutout`.
        fill: [C], what `cutout` blanks with. DeVries and Taylor blank normalised images with zeros, which is the mean
            of the training pixels.

    Returns:
        (augment, num_noise): `augment(images, noise)` turns [B, H, W, C] and noise [B, num_noise] into new images; B is
        static.
    """
    fill = np.asarray(fill, np.float32)
    # An origin is followed backwards, from the new image to the old: what happens last comes first.
    steps = {"cutout": (2, lambda origin, noise: cutout(origin, noise, cutout_pixels)),
             "shift": (2, lambda origin, noise: shift(origin, noise, shift_pixels)), "flip": (1, flip)}
    chosen = [step for name, step in steps.items() if name in names]

    def augment(images, noise):
        if not chosen:
            return images
        origin, column = unmoved(*images.shape[:3]), 0
        for num_columns, step in chosen:
            origin = step(origin, noise[:, column:column + num_columns])
            column += num_columns
        return move(images, origin, fill)

    return augment, sum(num_columns for num_columns, _ in chosen)


def pixels(flag, value, side, part):
    """`--shift_pixels` or `--cutout_pixels` for images of `side` pixels; 0 means a `part`-th of it, at least 1.

    Raises:
        ValueError: when it exceeds the side.
    """
    if value > side:
        raise ValueError(f"--{flag} must be at most the side of the images, {side}; received {value}.")
    return value or max(1, side // part)


def _whole(noise, limit):
    """int32 0..limit-1, each as likely; the minimum guards against rounding up to `limit`."""
    return tf.minimum(tf.cast(noise * limit, tf.int32), limit - 1)
