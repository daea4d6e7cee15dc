"""Folders of image files: layouts, decoding, the rule of resizing, broken files."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from apps.image_classification import data, folders, images, sources
from apps.image_classification.config import Config

SIZE = 12


def pixels(seed, size=(SIZE, SIZE), channels=3):
    return np.random.default_rng(seed).integers(0, 256, (*size, channels)).astype(np.uint8)


def smooth(height, width):
    """A colour image without fine detail, so that different filters agree."""
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    return np.stack([255 * x, 255 * y, 127 + 120 * np.sin(4 * x + 3 * y)], -1).round().astype(np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(path, **options)
    return path


def write_classes(folder, counts, channels=3):
    for label, (name, count) in enumerate(sorted(counts.items())):
        for row in range(count):
            save(folder / name / f"{row:02}.png", pixels(100 * label + row, channels=channels))
    return folder


def load(folder, **fields):
    return folders.load_folder(Config(**{"workdir": "unused", "data": "folder", "data_dir": str(folder), "verbose": 0,
                                         "image_size": SIZE} | fields))


def test_train_and_test_folders(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        write_classes(tmp_path / part, {"zebra": count, "ant": count + 1})
    source = load(tmp_path)
    assert source.class_names == ("ant", "zebra")
    np.testing.assert_array_equal(source.train.labels, [0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(source.test.labels, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(source.train.images, np.stack([pixels(i) for i in (0, 1, 2, 3, 100, 101, 102)]))
    np.testing.assert_array_equal(source.test.images, np.stack([pixels(i) for i in (0, 1, 2, 100, 101)]))


def test_one_folder_is_split(tmp_path):
    write_classes(tmp_path, {"a": 10, "b": 20, "train": 10})  # a class may be called train
    splits = data.load(Config(workdir="unused", data="folder", data_dir=str(tmp_path), image_size=SIZE, verbose=0,
                              batch_size=4, test_fraction=0.2, validation_fraction=0.25))
    counts = [splits.train.num_examples, splits.validation.num_examples, splits.test.num_examples]
    assert counts == [24, 8, 8]
    targets = np.concatenate([y for _, y in splits.test()])
    np.testing.assert_array_equal(targets.sum(0), [2, 4, 2])
    assert splits.spec.class_names == ("a", "b", "train") and splits.spec.channels == 3


def test_grey_files(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 2}, channels=1)
    assert load(tmp_path).train.images.shape == (4, SIZE, SIZE, 1)
    save(tmp_path / "b" / "colour.png", pixels(7))
    mixed = load(tmp_path).train.images
    assert mixed.shape == (5, SIZE, SIZE, 3)
    np.testing.assert_array_equal(mixed[0], np.repeat(pixels(0, channels=1), 3, axis=-1))


@pytest.mark.parametrize("channels", [1, 3])
def test_large_sets_stay_on_disk_and_give_the_same(tmp_path, monkeypatch, channels):
    write_classes(tmp_path, {"a": 6, "b": 6}, channels)
    (tmp_path / "a" / "03.png").write_bytes(b"broken")
    fields = {"workdir": "unused", "data": "folder", "data_dir": str(tmp_path), "image_size": 9, "verbose": 0,
              "batch_size": 4, "augmentation": "flip,shift", "validation_fraction": 0.25}
    kept = data.load(Config(**fields))
    monkeypatch.setattr(sources, "MEMORY_LIMIT", 1000)
    assert isinstance(load(tmp_path).train.images, folders.FileImages)
    on_disk = data.load(Config(**fields))
    assert on_disk.spec == kept.spec and on_disk.spec.channels == channels
    assert on_disk.num_skipped == kept.num_skipped == 1
    for first, second in ((kept.train().take(5), on_disk.train().take(5)), (kept.test(), on_disk.test())):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a[0], b[0])
            np.testing.assert_array_equal(a[1], b[1])
            assert b[0].shape[1:] == (9, 9, channels)


def test_file_that_vanishes_during_training_is_named(tmp_path, monkeypatch):
    write_classes(tmp_path, {"a": 2, "b": 2})
    monkeypatch.setattr(sources, "MEMORY_LIMIT", 1000)
    stored = load(tmp_path).train.images
    (tmp_path / "b" / "01.png").unlink()
    batches = tf.data.Dataset.range(4).batch(2).map(stored.gather)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"01\.png is not a readable image"):
        list(batches)


def write_broken(folder):
    """Three broken files; returns their names."""
    jpeg = save(folder / "b" / "cut.jpg", smooth(64, 64), quality=90)
    jpeg.write_bytes(jpeg.read_bytes()[:-400])
    png = save(folder / "b" / "cut.png", pixels(1, (64, 64)))
    png.write_bytes(png.read_bytes()[:6000])
    (folder / "a" / "empty.jpeg").write_bytes(b"")
    return "cut.jpg", "cut.png", "empty.jpeg"


def test_broken_files_are_counted_and_reported(tmp_path, caplog):
    write_classes(tmp_path, {"a": 2, "b": 2})
    names = write_broken(tmp_path)
    with caplog.at_level(logging.WARNING):
        source = load(tmp_path)
    assert source.num_skipped == 3 and len(source.train.labels) == len(source.train.images) == 4
    np.testing.assert_array_equal(source.train.images, np.stack([pixels(i) for i in (0, 1, 100, 101)]))
    assert "Skipped 3 of 7 image files" in caplog.text
    assert all(str(name) in caplog.text for name in names)


def test_ten_broken_files_are_shown(tmp_path, caplog):
    write_classes(tmp_path, {"a": 2, "b": 2})
    for row in range(12):
        (tmp_path / "a" / f"broken_{row:02}.jpg").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        load(tmp_path)
    assert "broken_09.jpg" in caplog.text and "broken_10.jpg" not in caplog.text
    assert "... and 2 more" in caplog.text


def test_strict_data_stops_at_a_broken_file(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 2})
    write_broken(tmp_path)
    with pytest.raises(ValueError, match=r"a/empty\.jpeg is not a readable image: expected a complete JPEG or PNG "
                                         r"file; received UnidentifiedImageError: .*Replace or remove the file\. "
                                         r"\(Without --strict_data it would be skipped"):
        load(tmp_path, strict_data=True)


def test_other_files_are_reported_and_hidden_ones_ignored(tmp_path, caplog):
    write_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "a" / ".hidden.png").write_bytes(b"x")
    save(tmp_path / "b" / "UPPER.PNG", pixels(5))
    with caplog.at_level(logging.WARNING):
        source = load(tmp_path)
    assert len(source.train.labels) == 5 and source.num_skipped == 0
    assert "Ignored 1 files that do not end in .jpg, .jpeg, .png, such as" in caplog.text and "notes.txt" in caplog.text


def test_progress_is_printed(tmp_path, capsys):
    write_classes(tmp_path, {"a": 2, "b": 2})
    load(tmp_path, verbose=1)
    assert "data: checked 4 of 4 image files in" in capsys.readouterr().err


def no_test_part(folder):
    write_classes(folder / "train", {"a": 1, "b": 1})


def other_classes(folder):
    write_classes(folder / "train", {"a": 1, "b": 1})
    write_classes(folder / "test", {"a": 1, "c": 1})


def empty_class(folder):
    write_classes(folder, {"a": 1, "b": 1})
    (folder / "c").mkdir()


def unreadable_class(folder):
    write_classes(folder, {"a": 1, "b": 1})
    (folder / "b" / "00.png").write_bytes(b"x")


@pytest.mark.parametrize("make, message", [
    (lambda folder: None, r"has 0 class folders \(none\): expected at least 2"),
    (lambda folder: save(folder / "a.png", pixels(0)), r"has 0 class folders"),
    (lambda folder: write_classes(folder, {"only": 2}), r"has 1 class folders \(only\): expected at least 2, each with "
                                                        r"the images of one class\. Sort"),
    (lambda folder: write_classes(folder / "train", {"only": 2}), r"train has 1 class folders \(only\)"),
    (no_test_part, r"has train/ but no test/: expected both\. Add .*test/<class>/, or give --data_dir=.*train to set"),
    (other_classes, r"The classes in .*test differ from those in .*train: expected a, b; missing b, unknown c\."),
    (empty_class, r"The class folder .*c is empty: expected at least one file ending in \.jpg, \.jpeg, \.png; received "
                  r"0 other files\. Add images or remove"),
    (unreadable_class, r"The class folder .*b has no readable image: expected at least one; .*00\.png is not a"),
])
def test_bad_folders(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("shape", [(20, 40), (40, 20), (30, 31), (10, 10)])
def test_shorter_side_is_resized_and_the_centre_cut_out(tmp_path, shape):
    path = save(tmp_path / "image.png", smooth(*shape))
    result, is_grey = images.read_image(path, 10, 10, 3)
    scale = 10 / min(shape)
    whole = tf.image.resize(smooth(*shape), [round(scale * side) for side in shape], antialias=True).numpy()
    top, left = ((side - 10) // 2 for side in whole.shape[:2])
    np.testing.assert_allclose(result, whole[top:top + 10, left:left + 10], atol=6 if shape == (30, 31) else 1)
    assert not is_grey


def test_arrays_and_files_follow_one_rule(tmp_path):
    array = pixels(3, (20, 30))
    from_file, _ = images.read_image(save(tmp_path / "image.png", array), 7, 7, 3)
    np.testing.assert_array_equal(images.resize_images(array[None], 7, 7)[0], from_file)


def test_large_jpeg_is_decoded_small_with_the_same_result(tmp_path):
    path = save(tmp_path / "large.jpg", smooth(512, 512), quality=95)
    small, _ = images.read_image(path, 32, 32, 3)
    with Image.open(path) as file:
        whole = np.asarray(file.resize((32, 32), Image.Resampling.BILINEAR), int)
    np.testing.assert_allclose(small, whole, atol=3)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ValueError, match=r"large\.jpg is not a readable image: .*truncated"):
        images.read_image(path, 32, 32, 3)


def test_very_long_image(tmp_path):
    result, _ = images.read_image(save(tmp_path / "line.png", pixels(0, (1, 20000))), 128, 128, 3)
    assert result.shape == (128, 128, 3)


def test_modes_of_files(tmp_path):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    Image.fromarray(values).save(tmp_path / "deep.png")
    deep, is_grey = images.read_image(tmp_path / "deep.png", 8, 8, 1)
    np.testing.assert_allclose(deep[..., 0], values / 257, atol=0.51)
    assert is_grey

    array = pixels(0, (8, 8), 4)
    np.testing.assert_array_equal(images.read_image(save(tmp_path / "clear.png", array), 8, 8, 3)[0], array[..., :3])

    exif = Image.Exif()
    exif[0x0112] = 6  # turned by the camera: a quarter to the right restores it
    path = save(tmp_path / "turned.png", array[..., :3], exif=exif)
    np.testing.assert_array_equal(images.read_image(path, 8, 8, 3)[0], np.rot90(array[..., :3], -1))
