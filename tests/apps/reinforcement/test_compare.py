"""Comparisons: runs of their own, resumed, their curves on one grid, and what is refused."""

import json

import numpy as np
import pytest

from apps.reinforcement import compare
from apps.reinforcement import train as train_lib
from apps.reinforcement.compare import CompareConfig

SMALL = {"epochs": 2, "steps_per_epoch": 20, "eval_episodes": 2, "verbose": 0, "seeds": 1, "units": "4",
         "parallel_environments": 2, "rollout": 5, "jit_compile": False, "algorithms": "a2c,ppo:passes=2"}


def test_a_comparison_that_was_cut_goes_on(tmp_path, monkeypatch):
    names, train = [], train_lib.train

    def counted(config):
        if len(names) == 1:
            names.append("cut")
            raise KeyboardInterrupt
        names.append((config.algorithm, config.seed, config.passes))
        return train(config)

    monkeypatch.setattr(train_lib, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        compare.compare(CompareConfig(workdir=str(tmp_path), **SMALL))
    metrics = compare.compare(CompareConfig(workdir=str(tmp_path), **SMALL))
    assert names == [("a2c", 0, -1), "cut", ("ppo", 0, 2)]  # what had ended is not trained again
    single = json.loads((tmp_path / "runs" / "a2c_0" / "metrics.json").read_text())
    assert metrics["test_return_a2c"] == single["test_return"]
    assert (tmp_path / "plots" / "curves.png").exists()
    assert "| ppo:passes=2 | 1 |" in (tmp_path / "report.md").read_text()


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
