"""Comparisons: runs of their own, resumed, their curves on one grid, and what is refused."""

import json

import numpy as np
import pytest

from apps.reinforcement import compare
from apps.reinforcement import train as train_lib
from apps.reinforcement.compare import CompareConfig

SMALL = {"env": "shortest_path", "epochs": 2, "steps_per_epoch": 5, "eval_episodes": 4, "verbose": 0, "seeds": 2,
         "algorithms": "q_learning,sarsa:trace_decay=0.5"}


def test_a_comparison_that_was_cut_goes_on(tmp_path, monkeypatch):
    names, train = [], train_lib.train

    def counted(config):
        if len(names) == 1:
            names.append("cut")
            raise KeyboardInterrupt
        names.append((config.algorithm, config.seed, config.trace_decay))
        return train(config)

    monkeypatch.setattr(train_lib, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        compare.compare(CompareConfig(workdir=str(tmp_path), **SMALL))
    metrics = compare.compare(CompareConfig(workdir=str(tmp_path), **SMALL))
    assert names == [("q_learning", 0, 0.0), "cut", ("q_learning", 1, 0.0), ("sarsa", 0, 0.5), ("sarsa", 1, 0.5)]
    single = [json.loads((tmp_path / "runs" / f"q_learning_{seed}" / "metrics.json").read_text())["test_return"]
              for seed in range(2)]
    assert metrics["test_return_q_learning"] == pytest.approx(np.mean(single))
    assert (tmp_path / "plots" / "curves.png").exists()
    assert "| sarsa:trace_decay=0.5 | 2 |" in (tmp_path / "report.md").read_text()


def test_curves_meet_on_a_grid():
    seeds = [[{"steps": s, "v": 2.0 * s} for s in (10, 20, 30)], [{"steps": s, "v": 1.0 * s} for s in (12, 24, 36)]]
    steps, values = compare.common_grid(seeds, "v", points=4)
    np.testing.assert_allclose(steps, [12, 18, 24, 30])
    np.testing.assert_allclose(values, [2 * steps, steps])


@pytest.mark.parametrize("algorithms, words", [
    ("dqn,pqo", "Unknown algorithm in --algorithms: 'pqo'.*Did you mean 'ppo'"),
    ("dqn:doubel=true", "Unknown flag in --algorithms: 'doubel'.*Did you mean 'double'"),
    ("dqn:double=maybe", "--double must be true or false; received 'maybe'"),
    ("dqn:n_step=two", "--algorithms: n_step must be of type int; received 'two'")])
def test_what_is_refused(tmp_path, algorithms, words):
    with pytest.raises(ValueError, match=words):
        CompareConfig(workdir=str(tmp_path), algorithms=algorithms)
