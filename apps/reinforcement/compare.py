"""Learning curves of several algorithms over several seeds, with confidence bands, as plot and table.

    python -m apps.reinforcement.compare --env=cart_pole --algorithms=dqn,ppo --seeds=5 --workdir=runs/compare

Each run is a training of its own in `<workdir>/runs/<algorithm>_<seed>`. The same command goes on where it was cut.
"""

import dataclasses
import json
import pathlib

import matplotlib.ticker
import numpy as np

from apps.common import config as config_lib
from apps.common import fitting, flagging, reporting, workdir
from apps.common.config import field
from apps.reinforcement import naming, reports
from apps.reinforcement import train as train_lib
from apps.reinforcement.config import Config
from layers.checking import unknown_name

_CURVES = ("greedy_return", "average_return")


@dataclasses.dataclass(frozen=True)
class CompareConfig(Config):
    """Those of `Config`, for all runs, and what is compared; --algorithm is not used."""

    algorithms: str = field("dqn,reinforce,a2c,ppo", "Algorithms, comma-separated; name:flag=value:flag=value changes "
                                                     "one's flags, as dqn:double=true.")
    seeds: int = field(5, "Runs of each, with the seeds from --seed on.", minimum=1)
    export: str = field("none", "Formats that each run exports, or none.")

    def validate(self):
        super().validate()
        for name in self.names:
            if name.split(":")[0] not in naming.ALGORITHMS:
                raise unknown_name("algorithm in --algorithms:", name.split(":")[0], naming.ALGORITHMS)
            self.run_config(name, 0)

    @property
    def names(self):
        """The parts of --algorithms."""
        return [name.strip() for name in self.algorithms.split(",")]

    def run_config(self, name, number):
        """`Config` of a run: an entry of --algorithms, and the number of its seed."""
        algorithm, *changes = name.split(":")
        own = {item.name for item in dataclasses.fields(Config)}
        values = {key: value for key, value in config_lib.to_dict(self).items() if key in own}
        values |= {"algorithm": algorithm, "seed": self.seed + number,
                   "workdir": f"{self.workdir}/runs/{name.replace(':', '_').replace('=', '_')}_{self.seed + number}"}
        return Config(**values | dict(_change(change) for change in changes))


def _change(text):
    """(field, value) of a text as double=true."""
    types = {item.name: item.type for item in dataclasses.fields(Config)}
    name, _, value = text.partition("=")
    if name not in types:
        raise unknown_name("flag in --algorithms:", name, types)
    if types[name] is bool:
        return name, {"true": True, "false": False}.get(value, value)
    try:
        return name, types[name](value)
    except ValueError:
        raise ValueError(f"--algorithms: {name} must be of type {types[name].__name__}; received {value!r}.") from None


def compare(config):
    """Trains what has not been trained and writes `metrics.json`, `report.md` and `plots/curves.png`.

    Returns:
        the metrics.
    """
    run = workdir.Run(config)
    run.begin()
    try:
        curves, results = {}, {}
        for name in config.names:
            folders = [_trained(config.run_config(name, number)) for number in range(config.seeds)]
            curves[name] = [fitting.read_history(folder / "history.csv") for folder in folders]
            results[name] = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
        return _report(run, curves, results)
    finally:
        run.end()


def _trained(config):
    """The folder of a run, trained unless it has ended."""
    path = pathlib.Path(config.workdir)
    if not (path / "report.md").exists():  # the last file that a run writes
        print(f"{path.name}", flush=True)
        train_lib.train(config)
    return path


def _report(run, curves, results):
    rows, metrics = [], {}
    for name, found in results.items():
        values = np.array([one["test_return"] for one in found])
        low, high = reports.interval(values)
        steps = [one["steps_to_stop_return"] for one in found if one.get("steps_to_stop_return", -1) >= 0]
        rows.append([name, len(found), float(values.mean()), f"{low:.4g} to {high:.4g}", float(values.min()),
                     float(np.median(steps)) if len(steps) == len(found) else "",
                     float(np.mean([one["seconds"] for one in found]))])
        metrics[f"test_return_{name}"] = float(values.mean())
    header = ["algorithm", "seeds", "test return, mean", "95 %", "worst", "steps to --stop_return, median", "seconds"]
    table = reporting.markdown_table(header, rows)
    print(f"\n{table}")
    figures = {"curves": figure_of(curves)}
    return reports.write_report(run, f"{', '.join(curves)} on {run.config.env}", metrics, {"Test": table}, figures)


def figure_of(curves):
    """Mean over the seeds against steps, with the bootstrap's 95 % band of the mean.

    Args:
        curves: {name: list over the seeds of rows of `history.csv`}.
    """
    figure = reporting.new_figure(11, 4)
    for axes, column in zip(figure.subplots(1, len(_CURVES)), _CURVES):
        draw_curves(axes, curves, column)
        axes.set_title(column.replace("_", " "))
    return figure


def draw_curves(axes, curves, column):
    """One diagram of `figure_of`: a column of the histories."""
    for name, seeds in curves.items():
        steps, values = common_grid(seeds, column)
        bands = np.array([reports.interval(values[:, i]) for i in range(len(steps))])
        line, = axes.plot(steps, values.mean(axis=0), label=f"{name} ({len(seeds)})")
        axes.fill_between(steps, bands[:, 0], bands[:, 1], alpha=0.2, color=line.get_color(), linewidth=0)
    axes.set_xlabel("steps of the environments")
    axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))  # 100k
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def common_grid(seeds, column, points=100):
    """(steps [P], values [runs, P]) of histories, between the steps that all have, linear in between."""
    last = min(rows[-1]["steps"] for rows in seeds)
    first = max(rows[0]["steps"] for rows in seeds)
    steps = np.linspace(min(first, last), last, points)
    values = [np.interp(steps, [row["steps"] for row in rows], [row[column] for row in rows]) for rows in seeds]
    return steps, np.array(values)


if __name__ == "__main__":
    from apps.reinforcement import compare as module

    flagging.run_app(module.CompareConfig, module.compare)
