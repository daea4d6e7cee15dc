"""Text files as people have them: plain or gzip'd, one file or a folder of parts, in an encoding that may be wrong."""

import gzip
import pathlib
import re
import sys
import zlib

# What a file's name holds, between what is no letter.
PARTS = {"train": {"train", "training"}, "validation": {"val", "valid", "validation", "dev", "development"},
         "test": {"test", "testing", "newstest"}}
ENDINGS = (".txt", ".txt.gz", ".tsv", ".tsv.gz")


def read_text(path, encoding="utf-8", flag="--data_dir"):
    """The content of a text file, with line ends as \\n.

    Args:
        path: of the file.
        encoding: as Python names it.
        flag: what named the file, for errors.

    Raises:
        ValueError: it cannot be read, is no gzip file though its name says so, or is not in this encoding.
    """
    path = pathlib.Path(path)
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{flag}: {path} cannot be read ({error}). Give a readable text file; .gz must be "
                         "gzip'd.") from None
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[:error.start].count(b"\n") + 1
        raise ValueError(f"{flag}: {path} is not {encoding}: byte 0x{content[error.start]:02x} in line {line} "
                         f"(position {error.start}) stands for no character. " + (
                             "Give its --encoding, such as latin-1 or shift_jis." if flag == "--data_dir" else
                             f"Write it in {encoding}.")) from None
    except LookupError:
        raise ValueError(f"--encoding={encoding} is unknown. Expected a name that Python knows, such as utf-8, latin-1 "
                         "or shift_jis.") from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def use_utf8():
    """Standard input and output in UTF-8, whatever the terminal's language; a broken byte must not end a program."""
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")


def clean(argument):
    """An argument of a command without the halves of characters that broken bytes in it leave."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def part_of(name):
    """The part of a data set that a file's name says, such as wmt14.train.en; None where it says none."""
    words = set(re.split("[^a-z]+", name.lower()))
    return next((part for part, names in PARTS.items() if words & names), None)


def find_parts(data_dir, data, endings=ENDINGS):
    """The files of a data set by what their names say.

    Args:
        data_dir: a file, or a folder.
        data: name of the data set, for errors.
        endings: of files that are looked at.

    Returns:
        {"train": [paths], "validation": [...], "test": [...]}; all files are training files where no name says train.

    Raises:
        ValueError: no such file or folder, none in it, or a part without a training part.
    """
    if not data_dir:
        raise ValueError(f"--data={data} needs --data_dir=FILE or FOLDER; received none.")
    path = pathlib.Path(data_dir).expanduser()
    if path.is_file():
        return {"train": [path], "validation": [], "test": []}
    if not path.is_dir():
        raise ValueError(f"--data_dir={data_dir} does not exist: expected a text file or a folder of them.")
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name.lower().endswith(endings)
                   and not file.name.startswith("."))
    if not files:
        raise ValueError(f"--data_dir={data_dir} holds no text: expected files ending in {', '.join(endings)}.")
    found = {part: [file for file in files if part_of(file.name) == part] for part in PARTS}
    if not found["train"]:
        if found["validation"] or found["test"]:
            rest = [file for file in files if file not in found["validation"] + found["test"]]
            if not rest:
                raise ValueError(f"--data_dir={data_dir} has {', '.join(file.name for file in files)} but no training "
                                 "part: expected a file whose name holds the word 'train'. To split one file, give "
                                 "that file as --data_dir.")
            found["train"] = rest
        else:
            found["train"] = files
    return found
