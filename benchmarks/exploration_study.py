"""Exploration against exploitation: regret of bandit algorithms over time.

    python -m benchmarks.exploration_study [--steps=4000] [--runs=200]

Two problems whose expected rewards are known, so that regret has no noise but that of the choices: ten arms with means
of their own in each run (Bernoulli, uniform in [0, 1)), and adverts for visitors with known interests. A constant
epsilon pays for ever in proportion to it, and learns the faster the larger it is; one that falls does both; confidence
bounds and Thompson sampling try what may still be the best, and their regret grows as the logarithm of the time. On
adverts, what does not look at the visitor never learns whom to show what.
"""

import argparse
import pathlib

import matplotlib.pyplot as plt
import numpy as np

from apps.common import reporting
from apps.reinforcement import bandits
from apps.reinforcement.bandits import Options
from apps.reinforcement.environments import advertising, bandit
from benchmarks import common

ARMS = {
    "ε = 0": Options(start=0.0), "ε = 0.01": Options(start=0.01), "ε = 0.1": Options(start=0.1),
    "ε 1 to 0.01 in 1,000 steps": Options(schedule="exponential", start=1.0, end=0.01, steps=1000),
    "UCB1, c = √2": Options("ucb"), "UCB, c = 0.5": Options("ucb", width=0.5), "Thompson": Options("thompson")}
ADVERTS = {
    "ε = 0.1": Options(start=0.1), "Thompson": Options("thompson"),
    "linear, ε = 0": Options("linear_epsilon_greedy", start=0.0),
    "linear, ε = 0.1": Options("linear_epsilon_greedy", start=0.1),
    "LinUCB, α = 0.3": Options("linucb", width=0.3), "LinUCB, α = 1": Options("linucb", width=1.0),
    "linear Thompson, v = 0.3": Options("linear_thompson", width=0.3)}
PICTURE = pathlib.Path(__file__).parents[1] / "docs" / "pictures" / "exploration_study.png"


def regrets(problem, table, steps, runs):
    """{name: cumulative regret [T, R]}."""
    return {name: np.cumsum(bandits.learn(problem, Options(**{**vars(options), "num_runs": runs}), 1,
                                          num_steps=steps).regret, axis=0, dtype=np.float64)
            for name, options in table.items()}


def row_of(problem, name, regret):
    """A row of the table: mean regret in the end with its 95 % interval, a quarter of the way, and lately."""
    steps, runs = regret.shape
    end = regret[-1]
    return {"problem": problem, "algorithm": name, "regret": round(float(end.mean()), 1),
            "±": round(1.96 * float(end.std(ddof=1)) / runs**0.5, 1),
            "regret at a quarter": round(float(regret[steps // 4 - 1].mean()), 1),
            "a step in the last tenth": round(float((end - regret[-steps // 10 - 1]).mean()) / (steps // 10), 4)}


def draw(found):
    """Mean cumulative regret over time, with its 95 % band."""
    figure, panels = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    for axis, (problem, curves) in zip(panels, found.items()):
        for name, regret in curves.items():
            steps, runs = regret.shape
            shown = np.unique(np.linspace(0, steps - 1, 200).astype(int))
            mean, band = regret[shown].mean(axis=1), 1.96 * regret[shown].std(axis=1, ddof=1) / runs**0.5
            line, = axis.plot(shown + 1, mean, label=name)
            axis.fill_between(shown + 1, mean - band, mean + band, color=line.get_color(), alpha=0.2, linewidth=0)
        axis.set(title=problem, xlabel="pulls", ylabel="cumulative regret")
        # The worst curves leave the picture.
        axis.set_ylim(0, 2.1 * np.median([curve[-1].mean() for curve in curves.values()]))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    PICTURE.parent.mkdir(exist_ok=True)
    reporting.save_figure(figure, PICTURE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    found = {"ten arms": regrets(bandit.k_armed(10, "bernoulli"), ARMS, options.steps, options.runs),
             "adverts": regrets(advertising.bandit(), ADVERTS, options.steps, options.runs)}
    draw(found)
    common.write("exploration_study", [row_of(problem, name, regret) for problem, curves in found.items()
                                       for name, regret in curves.items()], steps=options.steps, runs=options.runs)


if __name__ == "__main__":
    main()
