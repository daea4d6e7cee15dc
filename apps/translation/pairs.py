"""Sentence pairs from files: one pair a line, or two files line by line. Bad lines are counted, shown and left out."""

import pathlib
import sys

from apps.common.prepared_sets import prepared
from apps.common.text import PARTS, find_parts, part_of, read_text

_SHOWN = 3  # bad lines that are printed


def read_tsv(config):
    """{part: [(source, target)]} of `source<tab>target` files.

    Raises:
        ValueError: no such files, a part without any pair, or bad lines under --strict_data.
    """
    parts = find_parts(config.data_dir, config.data, (".tsv", ".tsv.gz", ".txt", ".txt.gz"))
    return {part: [pair for path in paths for pair in _pairs_of_lines(path, config)] for part, paths in parts.items()}


def read_parallel(config):
    """{part: [(source, target)]} of files such as train.en and train.de.

    Raises:
        ValueError: no such files, one of two is missing, or they differ in length.
    """
    folder = pathlib.Path(config.data_dir).expanduser()
    if not config.data_dir or not folder.is_dir():
        raise ValueError(f"--data=parallel needs --data_dir=FOLDER with files such as train.en and train.de; received "
                         f"{config.data_dir or 'none'}.")
    codes = [code.strip() for code in config.languages.split(",")]
    found, files = {part: [] for part in PARTS}, {}  # {name without its ending: {code: file}}
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        stem, _, code = path.name.removesuffix(".gz").rpartition(".")
        if code in codes:
            files.setdefault(stem, {})[code] = path
    for stem, sides in files.items():
        if len(sides) < 2:
            (path,), (missing,) = sides.values(), set(codes) - set(sides)
            raise ValueError(f"--data_dir: {path.name} has no {stem}.{missing} beside it. Expected two files with the "
                             "same lines in two languages.")
        found[part_of(stem) or "train"] += _joined(*(sides[code] for code in codes), config)
    if not found["train"]:
        raise ValueError(f"--data_dir={config.data_dir} has no training part: expected train.{codes[0]} and "
                         f"train.{codes[1]}, gzip'd or not.")
    return found


def read_tfds(config):
    """{part: [(source, target)]} of a translation data set of TensorFlow Datasets.

    Raises:
        ValueError: the set cannot be prepared, is no translation set, or bad pairs under --strict_data.
    """
    codes = [code.strip() for code in config.languages.split(",")]

    def check(features):
        if not set(codes) <= set(features):
            raise ValueError(f"--languages={config.languages} are no features of --data={config.data}: expected two "
                             f"of {', '.join(features)}.")

    tfds, builder = prepared(config, check)
    return {part: _whole_pairs(tfds.as_numpy(builder.as_dataset(split=part)), codes, part, config)
            if part in builder.info.splits else [] for part in PARTS}


def _whole_pairs(rows, codes, part, config):
    found, bad, count = [], [], 0
    for count, row in enumerate(rows, 1):
        pair = [row[code] for code in codes]
        if not all(isinstance(side, bytes) for side in pair):
            raise ValueError(f"--data={config.data}: the features {' and '.join(codes)} are not both text. Give "
                             "--languages=source,target, features that are, or another set.")
        pair = tuple(side.decode().strip() for side in pair)
        if all(pair):
            found.append(pair)
        else:
            bad.append((count, "an empty side"))
    _report(f"part {part}", bad, count, config)
    return found


def _pairs_of_lines(path, config):
    lines = read_text(path, config.encoding).split("\n")
    if lines[-1] == "":
        lines.pop()
    found, bad = [], []
    for number, line in enumerate(lines, 1):
        columns = line.split("\t")
        if len(columns) != 2 or not all(column.strip() for column in columns):
            bad.append((number, f"{len(columns)} columns, expected source, tab, target" if len(columns) != 2
                        else "an empty side"))
        else:
            found.append((columns[0].strip(), columns[1].strip()))
    _report(path.name, bad, len(lines), config)
    return found


def _joined(source, target, config):
    sides = [read_text(path, config.encoding).removesuffix("\n").split("\n") for path in (source, target)]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(f"--data_dir: {source.name} has {len(sides[0])} lines and {target.name} {len(sides[1])}: line "
                         "n of one must be the translation of line n of the other. Align them first.")
    bad = [(n, "an empty side") for n, pair in enumerate(zip(*sides), 1) if not all(side.strip() for side in pair)]
    _report(source.name, bad, len(sides[0]), config)
    return [(a.strip(), b.strip()) for a, b in zip(*sides) if a.strip() and b.strip()]


def _report(name, bad, count, config):
    """Says which lines of what `name` says are left out.

    Raises:
        ValueError: under --strict_data, or when all lines are bad.
    """
    if not bad:
        return
    shown = ", ".join(f"line {number}: {what}" for number, what in bad[:_SHOWN])
    message = f"{name}: {len(bad)} of {count} lines are no pair ({shown}" + \
        (", …)" if len(bad) > _SHOWN else ")")
    if config.strict_data or len(bad) == count:
        raise ValueError(f"--data={config.data}: {message}. Mend them" + (
            ", or leave --strict_data out." if len(bad) < count else "."))
    print(f"warning: {message}; left out", file=sys.stderr)
