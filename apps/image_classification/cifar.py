"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from their publisher's pickles, read without running code in them."""

import io
import pickle
import tarfile
import zlib

import numpy as np

from apps.image_classification.sources import (
    Examples,
    Source,
    check_labels,
    data_folder,
    list_folder,
    load_with_keras,
    read_bytes,
)

CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_NAMES = tuple("""
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm""".split())

# name: folder of the pickles, archive, training files, test file, key of the labels, class names
FORMS = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz", tuple(f"data_batch_{i}" for i in range(1, 6)),
                "test_batch", "labels", CIFAR10_NAMES),
    "cifar100": ("cifar-100-python", "cifar-100-python.tar.gz", ("train",), "test", "fine_labels", CIFAR100_NAMES),
}


def load_cifar(config):
    """The folder of pickles in --data_dir (itself, or up to two levels below), or the publisher's .tar.gz."""
    folder_name, archive, train_files, test_file, label_key, class_names = FORMS[config.data]
    files = (*train_files, test_file)
    if not config.data_dir:
        return load_with_keras(config.data, class_names, [f"{folder_name}/{{{','.join(files)}}} or {archive}"])
    contents = _contents(config.data, data_folder(config), folder_name, archive, files)
    batches = {file: _read_batch(*contents[file], label_key, len(class_names)) for file in files}
    train = [batches[file] for file in train_files]
    images, labels = (np.concatenate(part) for part in zip(*((b.images, b.labels) for b in train), strict=True))
    return Source(Examples(images, labels), batches[test_file], class_names)


def _contents(name, root, folder_name, archive, files):
    """{file: (where it lies, its bytes)}; raises ValueError that lists the files that are missing."""
    folder = _find_folder(root, folder_name, files)
    if folder is not None:
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            raise ValueError(f"--data={name} is incomplete: {folder} lacks {', '.join(missing)}. Unpack {archive} "
                             "again.")
        return {file: (folder / file, read_bytes(folder / file)) for file in files}
    if (root / archive).is_file():
        return _archive_contents(name, root / archive, folder_name, files)
    raise ValueError(f"--data={name} is not in --data_dir={root}: expected the folder {folder_name} with "
                     f"{', '.join(files)}, or {archive}. Put the publisher's files there, or leave --data_dir out to "
                     "download them.")


def _find_folder(root, folder_name, files):
    if root.name == folder_name or all((root / file).is_file() for file in files):
        return root
    below = [entry for entry in list_folder(root) if entry.is_dir()]
    return next((place / folder_name for place in (root, *below) if (place / folder_name).is_dir()), None)


def _archive_contents(name, path, folder_name, files):
    wanted, found = {f"{folder_name}/{file}": file for file in files}, {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:  # in the order of the archive: going back would unpack it anew
                if member.isfile() and member.name in wanted:
                    found[wanted[member.name]] = (f"{path}:{member.name}", archive.extractfile(member).read())
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: expected a complete .tar.gz; received {error}. Download it "
                         "again.") from None
    missing = [file for file in files if file not in found]
    if missing:
        raise ValueError(f"--data={name} is incomplete: {path} lacks {', '.join(missing)}. Download it again.")
    return found


def _read_batch(where, content, label_key, num_classes):
    batch = read_pickle(content, where)
    batch = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()} if isinstance(batch, dict) else {}
    data, labels = batch.get("data"), batch.get(label_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise ValueError(f"{where} is damaged: expected 'data' to be a uint8 array with 3072 columns; received "
                         f"{_describe(data)}. Download it again.")
    if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
        raise ValueError(f"{where} is damaged: expected {label_key!r} to be a list of whole numbers; received "
                         f"{_describe(labels)}. Download it again.")
    if len(labels) != len(data) or not labels:
        raise ValueError(f"{where} is damaged: expected as many labels as images, at least one; received {len(data)} "
                         f"images and {len(labels)} labels. Download it again.")
    labels = np.array(labels, np.int64)
    check_labels(labels, num_classes, where)
    images = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # published channel first
    return Examples(np.ascontiguousarray(images), labels.astype(np.int32))


def _describe(value):
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return "nothing" if value is None else type(value).__name__


def read_pickle(content, where):
    """Unpickles numbers, text, bytes, lists, dicts and NumPy arrays; anything else in it raises ValueError.

    A pickle may call any function of Python, so a file from the internet must not choose which.
    """
    try:
        return _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise ValueError(f"{where} is damaged: expected a pickle of arrays, lists and dicts; received "
                         f"{type(error).__name__}: {error}. Download it again.") from None


def _encode(text, encoding):
    # Python 3 writes bytes so in old protocols; only the codec that it uses.
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"codec {encoding!r}")
    return text.encode("latin1")


# NumPy's module of these two was renamed; asking an array for them works with every version.
_RECONSTRUCT = np.zeros(1).__reduce__()[0]
_FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]
_ADMITTED = {"ndarray": np.ndarray, "dtype": np.dtype, "_reconstruct": _RECONSTRUCT, "_frombuffer": _FROM_BUFFER}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if module.split(".")[0] == "numpy" and name in _ADMITTED:
            return _ADMITTED[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
