"""A folder of image files, one folder a class: found, checked, and decoded into memory or row by row."""

import concurrent.futures
import dataclasses
import os
import sys
import time

import numpy as np
import tensorflow as tf
from absl import logging

from apps.image_classification import images as images_lib
from apps.image_classification import sources

_BLOCK = 4096  # files handed to the threads at once
_PROGRESS_SECONDS = 5
_NUM_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class FileImages:
    """N images that stay on disk and are decoded when they are asked for.

    Attributes:
        paths: list of str.
        height, width, channels: of the decoded images.
    """

    paths: list
    height: int
    width: int
    channels: int

    @property
    def shape(self):
        return len(self.paths), self.height, self.width, self.channels

    def gather(self, index):
        """uint8 [B, H, W, C] of the images int64 [B], as a TensorFlow operation that decodes in parallel."""
        batch = tf.numpy_function(self._read, [index], tf.uint8, stateful=False)
        return tf.ensure_shape(batch, [*index.shape, self.height, self.width, self.channels])

    def _read(self, index):
        batch = np.empty((len(index), *self.shape[1:]), np.uint8)

        def decode(row):
            batch[row] = images_lib.read_image(self.paths[index[row]], *self.shape[1:])[0]

        with concurrent.futures.ThreadPoolExecutor(_num_threads()) as pool:  # Pillow decodes without Python's lock
            list(pool.map(decode, range(len(index))))
        return batch


def load_folder(config):
    """`<data_dir>/train/<class>/*` and `<data_dir>/test/<class>/*`, or `<data_dir>/<class>/*` without test part.

    Classes are the sorted names of the folders, files are .jpg, .jpeg and .png. Every file is decoded once: broken ones
    are reported and skipped, or raise under --strict_data. Images are grey when all files are. Up to
    `sources.MEMORY_LIMIT` bytes the decoded images are kept in memory, beyond that they are decoded when needed.
    """
    root = sources.data_folder(config)
    height, width = images_lib.target_size(config, images_lib.FOLDER_SIZE, images_lib.FOLDER_SIZE)
    class_names, folders = _class_folders(root)
    files = [_class_files(folder, class_names) for folder in folders]  # of each part
    num_files = sum(len(paths) for paths, _ in files)
    in_memory = num_files * height * width * 3 <= sources.MEMORY_LIMIT
    checked = [_check(config, paths, height, width, in_memory) for paths, _ in files]
    broken = [error for _, errors, _ in checked for error in errors if error]
    if broken:
        more = f" ... and {len(broken) - _NUM_SHOWN} more" if len(broken) > _NUM_SHOWN else ""
        logging.warning("Skipped %d of %d image files: %s%s", len(broken), num_files, "; ".join(broken[:_NUM_SHOWN]),
                        more)
    channels = 1 if all(is_grey for _, _, is_grey in checked) else 3
    parts = [_examples(paths, labels, errors, pixels, (height, width, channels), class_names)
             for (paths, labels), (pixels, errors, _) in zip(files, checked, strict=True)]
    return sources.Source(parts[0], parts[1] if len(parts) > 1 else None, class_names, len(broken))


def _class_folders(root):
    """(class names, [folder of the training part, perhaps folder of the test part])."""
    train, test = root / "train", root / "test"
    if not (train.is_dir() and _subfolders(train)):
        return _class_names(root), [root]
    class_names = _class_names(train)
    if not test.is_dir():
        raise ValueError(f"--data_dir={root} has train/ but no test/: expected both. Add {test}/<class>/, or give "
                         f"--data_dir={train} to set a part aside by --test_fraction.")
    other = _subfolders(test)
    if other != list(class_names):
        raise ValueError(f"The classes in {test} differ from those in {train}: expected {_some(class_names)}; missing "
                         f"{_some(sorted(set(class_names) - set(other)))}, unknown "
                         f"{_some(sorted(set(other) - set(class_names)))}. Make both hold the same class folders.")
    return class_names, [train, test]


def _subfolders(folder):
    return [entry.name for entry in sources.list_folder(folder) if entry.is_dir()]


def _class_names(folder):
    names = _subfolders(folder)
    if len(names) < 2:
        raise ValueError(f"--data_dir: {folder} has {len(names)} class folders ({_some(names)}): expected at least 2, "
                         "each with the images of one class. Sort the images into one folder a class.")
    return tuple(names)


def _some(names):
    return ", ".join(names[:_NUM_SHOWN]) + (", ..." if len(names) > _NUM_SHOWN else "") if names else "none"


def _class_files(folder, class_names):
    """(paths of all images, label of each)."""
    paths, labels, ignored = [], [], []
    for label, name in enumerate(class_names):
        files = [entry for entry in sources.list_folder(folder / name) if entry.is_file()]
        images = [str(file) for file in files if file.suffix.lower() in images_lib.SUFFIXES]
        if not images:
            raise ValueError(f"The class folder {folder / name} is empty: expected at least one file ending in "
                             f"{', '.join(images_lib.SUFFIXES)}; received {len(files)} other files. Add images or "
                             "remove the folder.")
        ignored += [str(file) for file in files if file.suffix.lower() not in images_lib.SUFFIXES]
        paths += images
        labels += [label] * len(images)
    if ignored:
        logging.warning("Ignored %d files that do not end in %s, such as %s", len(ignored),
                        ", ".join(images_lib.SUFFIXES), ignored[0])
    return paths, np.array(labels, np.int32)


def _check(config, paths, height, width, in_memory):
    """Decodes every file.

    Returns:
        (pixels, errors, is_grey): uint8 [N, H, W, 3] or None when they are not kept; for each file None or what is
        wrong with it; whether no readable file has colour.
    """
    pixels = np.empty((len(paths), height, width, 3), np.uint8) if in_memory else None

    def decode(row):
        try:
            image, is_grey = images_lib.read_image(paths[row], height, width, 3)
        except ValueError as error:
            return str(error), True
        if in_memory:
            pixels[row] = image
        return None, is_grey

    errors, is_grey = [], True
    for error, grey in _in_threads(decode, len(paths), config.verbose != 0):
        if error and config.strict_data:
            raise ValueError(f"{error} (Without --strict_data it would be skipped.)")
        errors.append(error)
        is_grey = is_grey and grey
    return pixels, errors, is_grey


def _examples(paths, labels, errors, pixels, shape, class_names):
    """The readable files as `Examples`; raises ValueError when a class has none."""
    good = np.array([error is None for error in errors])
    for label in np.setdiff1d(np.arange(len(class_names)), labels[good]):
        first = int(np.argmax(labels == label))
        raise ValueError(f"The class folder {os.path.dirname(paths[first])} has no readable image: expected at least "
                         f"one; {errors[first]}")
    if pixels is None:
        return sources.Examples(FileImages([paths[row] for row in np.flatnonzero(good)], *shape), labels[good])
    pixels = pixels if good.all() else pixels[good]
    return sources.Examples(pixels if shape[2] == 3 else np.ascontiguousarray(pixels[..., :1]), labels[good])


def _in_threads(function, count, verbose):
    """Yields function(0), function(1), ... in order, computed in threads, with a line of progress now and then."""
    start = last = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(_num_threads()) as pool:
        for first in range(0, count, _BLOCK):  # in blocks: a million waiting tasks would fill the memory
            for row, result in enumerate(pool.map(function, range(first, min(first + _BLOCK, count))), first):
                now = time.monotonic()
                if verbose and (row == count - 1 or now - last > _PROGRESS_SECONDS):
                    last = now
                    print(f"data: checked {row + 1} of {count} image files in {now - start:.1f} s", file=sys.stderr,
                          flush=True)
                yield result


def _num_threads():
    return min(32, os.cpu_count() or 1)
