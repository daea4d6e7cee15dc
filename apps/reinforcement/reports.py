"""What a run of any algorithm leaves beside its policy: history, curves, intervals, the report."""

import csv
import os
import pathlib

import numpy as np
import tensorflow as tf

from apps.common import reporting

_CONFIDENCE, _RESAMPLES = 0.95, 2000


def interval(values, seed=0):
    """(low, high) of the mean of values [N], by bootstrap, 95 %."""
    values = np.asarray(values, np.float64)
    picks = np.random.default_rng(seed).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)


def write_history(path, rows):
    """`history.csv`, a row an epoch; the whole file or the one before."""
    temporary = pathlib.Path(path).with_name(f".{pathlib.Path(path).name}.{os.getpid()}")
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def write_scalars(writer, row, step):
    """A row of the history to TensorBoard, against the number of steps."""
    with writer.as_default(step):
        for name, value in row.items():
            tf.summary.scalar(name, float(value))
    writer.flush()


def curves(rows, x, panels):
    """A picture with a panel for each {title: names of columns} against column `x`."""
    figure = reporting.new_figure(4.2 * len(panels), 3.4)
    for axes, (title, names) in zip(np.ravel(figure.subplots(1, len(panels), squeeze=False)), panels.items()):
        for name in names:
            if rows and name in rows[-1]:
                values = [row.get(name, np.nan) for row in rows]
                axes.plot([row[x] for row in rows], values, label=name.replace("_", " "))
        axes.set(title=title, xlabel=x)
        axes.grid(alpha=0.3)
        if len(names) > 1 and axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    return figure


def beside(algorithm, metrics, returns):
    """(Markdown table, picture) of what was learned beside fixed policies.

    Args:
        algorithm: its name.
        metrics: with test_return, test_return_low and test_return_high.
        returns: {name: float [E]} of the fixed policies.
    """
    rows = [[name, float(np.mean(values)), *interval(values)] for name, values in returns.items()]
    rows.append([algorithm, *(metrics[name] for name in ("test_return", "test_return_low", "test_return_high"))])
    rows.sort(key=lambda row: row[1])
    figure = reporting.new_figure(6.5, 0.8 + 0.4 * len(rows))
    axes = figure.subplots()
    for place, (name, mean, low, high) in enumerate(rows):
        axes.barh(place, mean, xerr=[[mean - low], [high - mean]], color="C1" if name == algorithm else "C0", capsize=3)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_xlabel("mean return of an episode, 95 %")
    axes.grid(alpha=0.3, axis="x")
    return reporting.markdown_table(["policy", "return", "low", "high"], rows), figure


def write_report(run, title, metrics, sections, figures, *, shown=()):
    """`metrics.json`, pictures, `report.md`, and what TensorBoard shows of them.

    Args:
        run: `workdir.Run`.
        title: heading.
        metrics: flat dictionary.
        sections: {heading: Markdown text}.
        figures: {name: Matplotlib figure}.
        shown: names of the metrics on TensorBoard's page of hyper-parameters.
    """
    plain = reporting.write_metrics(run, metrics)
    plots = {name: run.path / "plots" / f"{name}.png" for name in figures}
    reporting.log_images(run, {name: reporting.save_figure(figure, plots[name]) for name, figure in figures.items()})
    reporting.log_hparams(run.folder("logs") / "hparams", run.config, {name: plain[name] for name in shown})
    path = reporting.write_report(run, title, plain, sections, plots)
    print(f"report: {path}   plots: {run.path / 'plots'}   TensorBoard: tensorboard --logdir {run.path / 'logs'}")
    return plain
