"""Training runs of the application as parts of a study: one process each, resumable, read back from their workdirs."""

import json
import math
import pathlib
import subprocess
import sys

import numpy as np

from apps.common.fitting import read_history

ROOT = pathlib.Path(__file__).parents[1]


def run_all(folder, runs, common_flags, *, app="image_classification", program="train", metric="test_accuracy"):
    """Trains every run that has not ended yet; a study that was interrupted goes on where it was.

    Args:
        folder: where the workdirs go.
        runs: {name: flags of that run}; "cluster": (workers, servers) among them trains in that many processes.
        common_flags: flags of all runs.
        app: the application that trains.
        program: of the application.
        metric: of `metrics.json`, printed when a run has ended.

    Returns:
        {name: metrics of the run}.

    Raises:
        RuntimeError: a run failed; the message holds the end of what it printed. Or a run that has ended had other
            flags.
    """
    results = {}
    for name, flags in runs.items():
        workdir, flags = pathlib.Path(folder) / name, {**common_flags, **flags}
        if (workdir / "report.md").exists():  # the last file that a run writes
            check_same(workdir, flags)
        else:
            flags["workdir"] = workdir.absolute()
            workers, servers = flags.pop("cluster", (0, 0))
            options = [f"--{k}={v}" for k, v in flags.items()]
            print(f"{name}: {' '.join(options)}", flush=True)
            command = [sys.executable, "-m", f"apps.{app}.{program}", *options]
            if workers:
                command = [sys.executable, "-m", "apps.cluster", f"--workers={workers}", f"--servers={servers}", "--",
                           *command]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode:
                raise RuntimeError(f"run {name} failed with {done.returncode}:\n{done.stdout[-3000:]}")
        results[name] = json.loads((workdir / "metrics.json").read_text())
        print(f"{name}: {metric} {results[name][metric]:.4f}", flush=True)
    return results


def curve(workdir, metrics, column):
    """[(minutes of training, value of a column of `history.csv`)] of a run with these `metrics`. Epochs count as
    equally long, but for the last, which may be cut; those without a value are left out; at most a hundred are given.
    """
    history, minutes = read_history(pathlib.Path(workdir) / "history.csv"), metrics["seconds"] / 60
    points = [(round(minutes * min(1, number / metrics["epochs"]), 3), round(row[column], 5))
              for number, row in enumerate(history, 1) if column in row]
    return points[::-1][::max(1, math.ceil(len(points) / 100))][::-1]  # the last one stays


def check_same(workdir, flags):
    """Raises RuntimeError where a run had other flags; where its files lie may have changed, and a study that wants no
    exported file takes a run that has some."""
    found = json.loads((workdir / "config.json").read_text())["config"]
    for name, wanted in flags.items():
        if (name, wanted) == ("export", "none"):
            continue
        if name in found and not isinstance(wanted, pathlib.Path) and not _same(found[name], wanted):
            raise RuntimeError(f"{workdir} was run with --{name}={found[name]}; wanted is {wanted}. Move it away, or "
                               "give another --folder.")


def _same(a, b):
    try:
        return float(a) == float(b)
    except ValueError:
        return str(a) == str(b)


def loss_over_seeds(accuracy, reference):
    """What a table says of accuracies, in points, against those of the reference, seed by seed."""
    accuracy, lost = np.asarray(accuracy), np.asarray(reference) - np.asarray(accuracy)
    return {"accuracy": float(accuracy.mean()), "spread": float(np.ptp(accuracy)), "lost": float(lost.mean()),
            "smallest_loss": float(lost.min()), "largest_loss": float(lost.max())}
