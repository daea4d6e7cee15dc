"""Makes a trained network smaller in several ways and puts them side by side: accuracy, size, speed, memory.

    python -m apps.image_classification.compress --workdir=runs/demo --variants=quantize,distill,distill+prune+quantize

Each variant is a run of `train` in `<workdir>/compressed/<variant>`, with the flags of the trained run but for those
given here. A chain goes on from the longest variant that it begins with, so nothing is trained twice. The table is in
`<workdir>/compressed/report.md`, with a plot of size against accuracy; `<workdir>/report.csv` gets all rows.
"""

import csv
import dataclasses
import pathlib

from absl import flags

from apps.common import config as config_lib
from apps.common import flagging, reporting, workdir
from apps.common.config import field
from apps.image_classification import train as train_lib
from apps.image_classification.config import Config
from strategies import compression, export

FOLDER = "compressed"
_SEPARATOR = "+"
_MARKERS = {"float32": "o", "float16": "s", "dynamic": "^", "int8": "D", "sparse": "v", "lbw": "P"}
# Flags by the beginning of their name, and the methods that read them.
_READERS = {"filters_": ["filters"], "prune_": ["prune", "share", "low_bit"], "share_": ["share"],
            "quantize_": ["quantize"], "low_bit_": ["low_bit"]}


@dataclasses.dataclass(frozen=True)
class CompressConfig(Config):
    """The flags of `train`, and which variants to make."""

    variants: str = field("quantize,prune,prune+quantize", "Comma-separated chains of compressions, joined by +.")

    def validate(self):
        if not self.workdir:
            raise ValueError("--workdir is missing: expected the folder of a trained run.")
        parse_variants(self.variants)


def parse_variants(text):
    """[[method, ...], ...] of `--variants`, shorter chains first. Raises ValueError for an illegal one."""
    chains = [compression.check_chain(chain.strip().split(_SEPARATOR)) for chain in text.split(",")]
    return sorted(chains, key=len)


def variant_configs(trained, changes, chains):
    """The configuration of each variant's run.

    Args:
        trained: `Config` of the trained run.
        changes: {field: value}, the flags given here.
        chains: what `parse_variants` returned.

    Returns:
        {name: `Config`}.
    """
    configs, folder = {}, pathlib.Path(trained.workdir) / FOLDER
    for chain in chains:
        name = _SEPARATOR.join(chain)
        before = next((k for k in range(len(chain) - 1, 0, -1) if _SEPARATOR.join(chain[:k]) in configs), 0)
        start = folder / _SEPARATOR.join(chain[:before]) if before else pathlib.Path(trained.workdir)
        values = {**config_lib.to_dict(trained), **changes, "workdir": str(folder / name), "time_budget": 0.0,
                  "compression": ",".join(chain[before:])}
        if chain[0] == "distill":  # what follows in the chain keeps the teacher
            values["distill_teacher"] = values["distill_teacher"] or trained.workdir
        values["initial_model"] = "" if chain[0] == "distill" and not before else str(start)
        configs[name] = config_lib.from_dict(Config, values | _unread(chain))
    return configs


def _unread(chain):
    """{flag: default} of the flags that no method of a chain reads: another value would make it another run."""
    return {item.name: item.default for item in dataclasses.fields(Config) for prefix, methods in _READERS.items()
            if item.name.startswith(prefix) and not set(methods) & set(chain)}


def read_rows(path):
    """Rows of a `report.csv`, with numbers as numbers and empty cells as None."""
    with open(path, newline="") as file:
        return [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _number(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text or None


def report(trained_folder, rows):
    """Writes the joint table and the plot; returns the path of the report."""
    folder = trained_folder / FOLDER
    export.write_csv(rows, trained_folder / "report.csv")
    figure = reporting.new_figure(9, 5)
    axes = figure.subplots()
    for number, variant in enumerate(dict.fromkeys(row["variant"] for row in rows)):
        axes.plot([], [], color=f"C{number}", linewidth=4, label=variant)
        for row in rows:
            if row["variant"] == variant and row["format"] in _MARKERS:
                axes.plot(row["gzip_bytes"], row["value"], _MARKERS[row["format"]], color=f"C{number}", markersize=8,
                          markerfacecolor="none", markeredgewidth=2)
    for name in (name for name in _MARKERS if name in {row["format"] for row in rows}):
        axes.plot([], [], _MARKERS[name], color="gray", markerfacecolor="none", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("bytes after gzip")
    axes.set_ylabel("test accuracy")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    reporting.save_figure(figure, folder / "size_accuracy.png")
    path = folder / "report.md"
    path.write_text(f"# Compression of {trained_folder.name}\n\n{export.markdown_table(rows)}\n"
                    "![size and accuracy](size_accuracy.png)\n")
    return path


def compress(trained, changes, chains):
    """Trains all variants and reports; see the module.

    Returns:
        rows of the joint `report.csv`: the trained network, variants of earlier calls, and these.
    """
    folder = pathlib.Path(trained.workdir)
    if not (folder / "model.keras").exists():
        raise ValueError(f"--workdir={folder} has no trained model yet. Train first: python -m "
                         f"apps.image_classification.train --workdir={folder} …")
    configs = variant_configs(trained, changes, chains)
    rows = [row for row in read_rows(folder / "report.csv") if row["variant"] not in configs]
    for name, config in configs.items():
        print(f"variant {name}")
        train_lib.train(config)
        rows += [{**row, "variant": name} for row in read_rows(pathlib.Path(config.workdir) / "report.csv")]
    path = report(folder, rows)
    print(f"\n{export.markdown_table(rows)}\nreport: {path}")
    return rows


def main(argv):
    if len(argv) > 1:
        raise ValueError(f"Unexpected argument {argv[1]!r}: every option is a flag, as --name=value.")
    given = flagging.config_from_flags(CompressConfig)
    trained, _ = config_lib.load(Config, given.workdir)
    names = {item.name for item in dataclasses.fields(Config)} - {"workdir", "compression", "initial_model"}
    changes = {name: getattr(given, name) for name in names if flags.FLAGS[name].present}
    if given.distribution in config_lib.CLUSTERS:
        raise ValueError(f"--distribution={given.distribution} is for one training; this program makes several. Use "
                         "train with --initial_model and --compression for each, under apps.cluster.")
    if trained.distribution in config_lib.CLUSTERS:  # variants are trained by this process alone
        changes = {item.name: item.default for item in dataclasses.fields(Config)
                   if item.name in ("distribution", *workdir.DISTRIBUTION_FLAGS)} | changes
    compress(trained.replace(workdir=given.workdir), changes, parse_variants(given.variants))


if __name__ == "__main__":
    flagging.define_flags(CompressConfig)
    flagging.run(main)
