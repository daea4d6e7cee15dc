"""Augmentation against NumPy loops over single images."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from apps.image_classification import augmentation

FILL = np.array([7.5, 8.25, 9.0], np.float32)
SHIFT, CUTOUT = 3, 4


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (12, 9, 11, 3)).astype(np.float32)  # odd, not square


def make_noise(num_columns, num_rows=12, seed=1):
    return np.random.default_rng(seed).random((num_rows, num_columns), np.float32)


def flip_loop(image, noise):
    return image[:, ::-1] if noise[0] < 0.5 else image


def shift_loop(image, noise):
    padded = np.zeros((image.shape[0] + 2 * SHIFT, image.shape[1] + 2 * SHIFT, image.shape[2]), np.float32)
    padded[SHIFT:-SHIFT, SHIFT:-SHIFT] = image
    top, left = (int(np.float32(x) * np.float32(2 * SHIFT + 1)) for x in noise)
    return padded[top:top + image.shape[0], left:left + image.shape[1]]


def cutout_loop(image, noise):
    image = image.copy()
    center = [int(np.float32(x) * np.float32(side)) for x, side in zip(noise, image.shape[:2], strict=True)]
    for row in range(center[0] - CUTOUT // 2, center[0] - CUTOUT // 2 + CUTOUT):
        for column in range(center[1] - CUTOUT // 2, center[1] - CUTOUT // 2 + CUTOUT):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                image[row, column] = FILL
    return image


# In the order in which they happen to an image, and the columns of noise that each takes when all are used.
LOOPS = {"flip": (flip_loop, slice(4, 5)), "shift": (shift_loop, slice(2, 4)), "cutout": (cutout_loop, slice(0, 2))}


@pytest.mark.parametrize("names", [("flip",), ("shift",), ("cutout",), ("flip", "shift", "cutout")])
def test_augment_equals_loops(images, names):
    augment, num_columns = augmentation.image_augmenter(names, shift_pixels=SHIFT, cutout_pixels=CUTOUT, fill=FILL)
    noise = make_noise(num_columns)
    expected = images
    for name in names:
        loop, columns = LOOPS[name]
        columns = columns if len(names) > 1 else slice(None)
        expected = np.stack([loop(image, row[columns]) for image, row in zip(expected, noise, strict=True)])
    assert not np.array_equal(expected, images)
    np.testing.assert_array_equal(augment(tf.constant(images), tf.constant(noise)), expected)
    np.testing.assert_array_equal(tf.function(augment)(tf.constant(images), tf.constant(noise)), expected)


def test_rows_do_not_depend_on_each_other(images):
    augment, num_columns = augmentation.image_augmenter(("flip", "shift", "cutout"), shift_pixels=SHIFT,
                                                        cutout_pixels=CUTOUT, fill=FILL)
    noise = make_noise(num_columns)
    together = augment(tf.constant(images), tf.constant(noise)).numpy()
    for rows in (slice(0, 5), slice(5, 6), slice(6, 12)):
        np.testing.assert_array_equal(augment(tf.constant(images[rows]), tf.constant(noise[rows])), together[rows])


def test_nothing_chosen_changes_nothing(images):
    augment, num_columns = augmentation.image_augmenter((), shift_pixels=SHIFT, cutout_pixels=CUTOUT, fill=FILL)
    assert num_columns == 0
    np.testing.assert_array_equal(augment(tf.constant(images), tf.zeros([12, 0])), images)


def test_bytes_stay_bytes(images):
    augment, num_columns = augmentation.image_augmenter(("flip", "shift"), shift_pixels=SHIFT, cutout_pixels=CUTOUT,
                                                        fill=FILL)
    noise = tf.constant(make_noise(num_columns))
    moved = augment(tf.constant(images.astype(np.uint8)), noise)
    assert moved.dtype == tf.uint8
    np.testing.assert_array_equal(moved, augment(tf.constant(images), noise))


def test_extreme_noise_reaches_the_extreme_shifts_and_no_further():
    image = np.arange(1, 26, dtype=np.float32).reshape(1, 5, 5, 1)
    augment, _ = augmentation.image_augmenter(("shift",), shift_pixels=2, cutout_pixels=1, fill=[0.0])
    last = np.nextafter(np.float32(1), np.float32(0))
    down_right = augment(tf.constant(image), tf.zeros([1, 2])).numpy()[0, :, :, 0]
    up_left = augment(tf.constant(image), tf.fill([1, 2], last)).numpy()[0, :, :, 0]
    np.testing.assert_array_equal(down_right, np.pad(image[0, :3, :3, 0], ((2, 0), (2, 0))))
    np.testing.assert_array_equal(up_left, np.pad(image[0, 2:, 2:, 0], ((0, 2), (0, 2))))


def test_each_shift_is_as_likely():
    image = tf.tile(tf.reshape(tf.range(1, 10, dtype=tf.float32), [1, 1, 9, 1]), [7000, 1, 1, 1])
    augment, num_columns = augmentation.image_augmenter(("shift",), shift_pixels=3, cutout_pixels=1, fill=[0.0])
    middle = augment(image, tf.constant(np.stack([np.full(7000, 0.5), np.arange(7000) / 7000], 1), tf.float32))
    assert num_columns == 2
    np.testing.assert_allclose(np.bincount(middle[:, 0, 4, 0].numpy().astype(int), minlength=9)[2:9], 1000, atol=2)


def test_mixup_equals_loop(images):
    targets = np.eye(4, dtype=np.float32)[np.arange(12) % 4]
    order, share = np.roll(np.arange(12), 1), make_noise(1)[:, 0]
    mixed = augmentation.mixup((tf.constant(images), tf.constant(targets)),
                               (tf.constant(images[order]), tf.constant(targets[order])), tf.constant(share))
    for row in range(12):
        for result, source in zip(mixed, (images, targets), strict=True):
            expected = share[row] * source[row] + (1 - share[row]) * source[order[row]]
            np.testing.assert_allclose(result[row], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_beta_sample_has_the_distribution(alpha):
    noise = (np.arange(20000, dtype=np.float32) + 0.5) / 20000
    drawn = augmentation.beta_sample(tf.constant(noise), augmentation.beta_quantiles(alpha)).numpy()
    assert drawn.min() >= 0 and drawn.max() <= 1
    distribution = scipy.stats.beta(alpha, alpha)
    np.testing.assert_allclose(drawn.mean(), 0.5, atol=1e-3)
    np.testing.assert_allclose(drawn.var(), distribution.var(), rtol=1e-2)
    points = np.array([0.01, 0.1, 0.3, 0.5, 0.8, 0.97])
    np.testing.assert_allclose([(drawn <= p).mean() for p in points], distribution.cdf(points), atol=2e-3)


def test_beta_sample_takes_the_whole_range():
    quantiles = augmentation.beta_quantiles(1.0)
    ends = augmentation.beta_sample(tf.constant([0.0, np.nextafter(np.float32(1), np.float32(0))]), quantiles)
    np.testing.assert_allclose(ends, [0.0, 1.0], atol=1e-6)


def test_partner_is_any_example():
    noise = tf.constant(np.append(np.arange(5000) / 5000, np.nextafter(np.float32(1), np.float32(0))), tf.float32)
    index = augmentation.partner(noise, 50).numpy()
    assert index.dtype == np.int64
    np.testing.assert_allclose(np.bincount(index, minlength=50), 100, atol=2)
    assert len(np.bincount(index)) == 50


def test_parse():
    assert augmentation.parse("none") == ()
    assert augmentation.parse("mixup, flip,cutout") == ("flip", "cutout", "mixup")


@pytest.mark.parametrize("text, message", [
    ("flop", r"Unknown value of --augmentation: 'flop': expected one of flip, shift, cutout, mixup, none\. Did you mean"
             r" 'flip'\?"),
    ("flip,none", r"--augmentation: none stands alone; received 'flip,none'\."),
    ("", r"Unknown value of --augmentation: ''"),
    ("flip,flip", r"--augmentation names something twice: expected each of .* at most once; received 'flip,flip'\."),
])
def test_parse_rejects(text, message):
    with pytest.raises(ValueError, match=message):
        augmentation.parse(text)


def test_pixels():
    assert augmentation.pixels("shift_pixels", 0, 32, 8) == 4
    assert augmentation.pixels("shift_pixels", 0, 5, 8) == 1
    assert augmentation.pixels("shift_pixels", 3, 5, 8) == 3
    with pytest.raises(ValueError, match=r"--shift_pixels must be at most the side of the images, 5; received 6\."):
        augmentation.pixels("shift_pixels", 6, 5, 8)
