"""Files and folders that are there whole or not at all, and their sizes."""

import contextlib
import os
import pathlib
import shutil
import zlib


@contextlib.contextmanager
def replacing(path):
    """Context with a temporary path beside `path`, which takes the place of `path` when the context ends well.

    What stood there before stays until then. The temporary path keeps the suffix, since writers look at it.

    Args:
        path: file or folder to write; its parents are made.

    Yields:
        `pathlib.Path` of the file or folder to write to.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    replaced = path.with_name(f".replaced-{os.getpid()}-{path.name}")
    try:
        yield temporary
        if path.is_dir():  # a folder with files in it cannot be renamed over
            os.rename(path, replaced)
        os.replace(temporary, path)
    finally:
        remove(temporary)
        remove(replaced)


def remove(path):
    """Deletes a file or a folder with all that is in it; neither need exist."""
    path = pathlib.Path(path)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def contents(path):
    """The file itself, or all files under a folder, sorted."""
    path = pathlib.Path(path)
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def size_bytes(path):
    """Bytes of a file, or of all files under a folder."""
    return sum(file.stat().st_size for file in contents(path))


def gzip_bytes(path):
    """Bytes of a file after gzip at level 9, or the sum over the files under a folder."""
    total = 0
    for file in contents(path):
        compressor = zlib.compressobj(9, wbits=31)  # 31: with gzip's header
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                total += len(compressor.compress(block))
        total += len(compressor.flush())
    return total
