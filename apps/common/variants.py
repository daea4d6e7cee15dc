"""A trained model made smaller in several ways, put side by side: what `apps.compress` does."""

import csv
import dataclasses
import pathlib

from apps.common import config as config_lib
from apps.common import reporting, training, workdir
from strategies import compression, export

FOLDER = "compressed"
_SEPARATOR = "+"
_MARKERS = {"float32": "o", "float16": "s", "dynamic": "^", "int8": "D", "int16": "P", "sparse": "v", "lbw": "X"}
# Flags by the beginning of their name, and the methods that read them.
_READERS = {"filters_": ["filters"], "prune_": ["prune", "share", "low_bit"], "share_": ["share"],
            "quantize_": ["quantize"], "low_bit_": ["low_bit"]}


def parse_variants(text):
    """[[method, ...], ...] of `--variants`, shorter chains first. Raises ValueError for an illegal one."""
    chains = [compression.check_chain(chain.strip().split(_SEPARATOR)) for chain in text.split(",")]
    return sorted(chains, key=len)


def variant_configs(trained, changes, chains):
    """The configuration of each variant's run.

    Args:
        trained: configuration of the trained run.
        changes: {field: value}, the flags given here.
        chains: what `parse_variants` returned.

    Returns:
        {name: configuration of the same class}.
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
        else:  # the network is the trained one
            values |= {field: getattr(trained, field) for field in trained.NETWORK}
        values["initial_model"] = "" if chain[0] == "distill" and not before else str(start)
        configs[name] = config_lib.from_dict(type(trained), values | _unread(type(trained), chain))
    return configs


def _unread(config_class, chain):
    """{flag: default} of the flags that no method of a chain reads: another value would make it another run."""
    return {item.name: item.default for item in dataclasses.fields(config_class) for prefix, methods in _READERS.items()
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


def plot_sizes(rows, path, label, *, line=None):
    """A picture of what each variant's files are worth at their size.

    Args:
        rows: of a table with variant, format, gzip_bytes and value.
        path: of the PNG.
        label: what `value` is.
        line: (value, what it means), drawn across; None: no line.
    """
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
    if line is not None:
        axes.axhline(line[0], color="gray", linewidth=0.8, label=line[1])
    axes.set_xscale("log")
    axes.set_xlabel("bytes after gzip")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    reporting.save_figure(figure, path)


def report(trained_folder, rows):
    """Writes the joint table and the plot; returns the path of the report."""
    folder = trained_folder / FOLDER
    export.write_csv(rows, trained_folder / "report.csv")
    plot_sizes(rows, folder / "size_accuracy.png", f"{rows[0]['metric'].replace('_', ' ')} on test data")
    path = folder / "report.md"
    path.write_text(f"# Compression of {trained_folder.name}\n\n{export.markdown_table(rows)}\n"
                    "![size and accuracy](size_accuracy.png)\n")
    return path


def check(trained, changes, chains, load_task):
    """Tries all chains on untrained networks.

    Args:
        trained, changes, chains: as of `compress`.
        load_task: `load_task(config)` -> `training.Task`.

    Raises:
        ValueError: a variant cannot work.
    """
    task = None
    for chain in chains:
        (config,) = variant_configs(trained, changes, [chain]).values()  # the whole chain, from the trained run
        strategy = workdir.make_distribution(config)
        workdir.prepare_runtime(config)
        task = task or load_task(config)
        training.check_compression(config, task, strategy)


def compress(trained, changes, chains, train, load_task):
    """Trains all variants that have not been trained and reports.

    Args:
        trained: configuration of the trained run.
        changes: {field: value}, in which the variants' runs differ from it.
        chains: what `parse_variants` returned.
        train: the application's `train(config)`.
        load_task: its `load_task(config)` -> `training.Task`.

    Returns:
        rows of the joint `report.csv`: the trained model, variants of earlier calls, and these.

    Raises:
        ValueError: the run has not ended, or a variant cannot work; before anything is trained.
    """
    folder = pathlib.Path(trained.workdir)
    if not (folder / "metrics.json").exists():
        raise ValueError(f"--workdir={folder} has no trained model yet. Repeat the command that began it, to its end.")
    check(trained, changes, chains, load_task)
    configs = variant_configs(trained, changes, chains)
    rows = [row for row in read_rows(folder / "report.csv") if row["variant"] not in configs]
    for name, config in configs.items():
        print(f"variant {name}")
        train(config)
        rows += [{**row, "variant": name} for row in read_rows(pathlib.Path(config.workdir) / "report.csv")]
        path = report(folder, rows)
    print(f"\n{export.markdown_table(rows)}\nreport: {path}")
    return rows
