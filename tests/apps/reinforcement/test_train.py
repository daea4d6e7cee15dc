"""The application: runs from beginning to end, exact resuming, and what is refused."""

import csv
import json
import os
import signal

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from apps.common import config as config_lib
from apps.common import fitting, workdir
from apps.reinforcement import bandit_runs, checking, deep, defaults, tables, train
from apps.reinforcement.config import Config
from apps.reinforcement.environments import catalogue
from apps.reinforcement.environments.cart_pole import cart_pole
from strategies import checkpoint

SMALL = {"epochs": 2, "steps_per_epoch": 60, "parallel_environments": 2, "rollout": 8, "units": "8",
         "eval_episodes": 2, "export": "none", "num_representative": 8, "verbose": 0, "jit_compile": False}
KINDS = {"ppo": {"batch_size": 8, "passes": 2}, "a2c": {}, "reinforce": {}, "average": {"objective": "average"},
         "dqn": {"batch_size": 4, "updates": 3, "warmup_steps": 16, "target_period": 5, "prioritized": True,
                 "n_step": 2, "double": True, "replay_capacity": 64}}


def config(folder, kind="ppo", **changes):
    algorithm = "reinforce" if kind == "average" else kind
    return Config(workdir=str(folder), algorithm=algorithm, **{**SMALL, **KINDS.get(kind, {}), **changes})


def last_checkpoint(folder):
    arrays, state = checkpoint.Directory(folder / "checkpoints").latest()
    for row in state["progress"]["rows"]:
        row.pop("seconds")
    state["progress"].pop("seconds")
    return arrays, state


def assert_same(a, b):
    (arrays, state), (others, other) = a, b
    assert json.dumps(state) == json.dumps(other) and set(arrays) == set(others)
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], others[name], err_msg=name)


def trained(folder, kind, **changes):
    """A `DeepRun` that has trained in a folder, without the report at its end."""
    settings = defaults.resolve(config(folder, kind, **changes))
    workdir.prepare_runtime(settings)
    run = workdir.Run(settings)
    run.begin()
    try:
        training = deep.DeepRun(run, catalogue.make(settings.env), None)
        training.train()
        return training
    finally:
        run.end()


@pytest.mark.parametrize("kind", ["dqn", "ppo", pytest.param("average", marks=pytest.mark.conformance)])
def test_an_interrupted_run_goes_on_exactly(tmp_path, kind, monkeypatch):
    """Killed after the first of two epochs: weights, optimizer, replay, counters and environments are the same."""
    trained(tmp_path / "whole", kind)
    keep = deep.DeepRun.keep

    def killed(run):
        keep(run)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(deep.DeepRun, "keep", killed)
        trained(tmp_path / "cut", kind)
    resumed = trained(tmp_path / "cut", kind)
    found, expected = (last_checkpoint(tmp_path / name) for name in ("cut", "whole"))
    assert_same(found, expected)
    assert resumed.progress.updates > 0 and any(name.startswith("optimizer/") for name in found[0])


def test_a_compiled_program_goes_on_exactly(tmp_path):
    """One program, run to the end, and again from the checkpoint in between."""
    training = trained(tmp_path, "dqn", jit_compile=True)
    first, last = (checkpoint.read(path) for path in sorted((tmp_path / "checkpoints").glob("step_*.npz")))
    (tmp_path / "checkpoints" / f"step_{last[1]['step']:010d}.npz").unlink()
    training._restore()
    assert training.progress.epoch == 1 and int(training.learner.state.metrics.num_steps) == first[1]["step"]
    training.train()
    again = checkpoint.Directory(tmp_path / "checkpoints").latest()
    for name, array in last[0].items():
        np.testing.assert_array_equal(again[0][name], array, err_msg=name)


def test_a_run_leaves_its_files(tmp_path):
    metrics = train.train(config(tmp_path, "reinforce", export="saved_model,float32,int8", eval_episodes=5))
    assert metrics["steps"] >= 120 and metrics["epochs"] == 2 and metrics["test_return_low"] <= metrics["test_return"]
    rows = list(csv.DictReader(open(tmp_path / "history.csv")))
    assert [row["epoch"] for row in rows] == ["0", "1"] and float(rows[1]["greedy_return"]) > 0
    files = {row["format"]: row for row in csv.DictReader(open(tmp_path / "report.csv"))}
    assert set(files) == {"keras", "saved_model", "float32", "int8"}
    assert metrics["equal_actions_float32"] == 1 and metrics["equal_actions_int8"] > 0.5
    assert float(files["float32"]["value"]) == metrics["return_float32"] == metrics["return_keras"]
    for name in ("report.md", "config.json", "plots/curves.png", "model.keras", "checkpoints/best.npz"):
        assert (tmp_path / name).exists(), name
    assert list((tmp_path / "logs").glob("events*"))
    model = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert model.output_shape == (None, 2)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["learning_rate"] == 3e-3  # the tuned one


def test_continuous_actions(tmp_path):
    metrics = train.train(config(tmp_path, "a2c", env="pendulum", epochs=1, eval_episodes=1, eval_steps=20,
                                 export="float32"))
    assert -2000 < metrics["test_return"] < 0 and metrics["equal_actions_float32"] == 1


def test_a_table_is_learned_resumed_and_exported(tmp_path, capsys):
    options = {"env": "shortest_path", "steps_per_epoch": 60, "step_size": 0.5, "exploration_start": 1.0,
               "exploration_end": 1.0, "eval_episodes": 8, "export": "float32"}
    train.train(config(tmp_path / "cut", "q_learning", **{**options, "epochs": 1}).replace(epochs=1))
    whole = train.train(config(tmp_path / "whole", "q_learning", **options))
    path = tmp_path / "cut" / "config.json"
    content = json.loads(path.read_text())
    content["config"]["epochs"] = 2
    path.write_text(json.dumps(content))
    resumed = train.train(config(tmp_path / "cut", "q_learning", **options))
    arrays = [checkpoint.read_arrays(tmp_path / name / "checkpoints" / "table.npz") for name in ("cut", "whole")]
    for name in set(arrays[0]) - {"progress.json"}:
        np.testing.assert_array_equal(arrays[0][name], arrays[1][name])
    assert resumed["value_error"] == whole["value_error"] < 1e-3
    assert whole["test_return"] == 100 and whole["equal_actions_float32"] == 1
    assert "-> 7 -> 8" in capsys.readouterr().out


@pytest.mark.parametrize("algorithm", ["value_iteration", "policy_iteration", "policy_evaluation"])
def test_dynamic_programming(tmp_path, algorithm):
    metrics = train.train(config(tmp_path, algorithm, env="shortest_path", eval_episodes=8))
    assert metrics["test_return"] == 100 and metrics["sweeps"] >= 1 and (tmp_path / "report.md").exists()


def nan_reward(after):
    """CartPole whose reward is not a number from some step of an episode on."""
    plain = cart_pole()

    def dynamics(state, action, seed):
        (inner, time), reward = state, tf.ones_like(state[1])
        moved, _, ended = plain.dynamics(inner, action, seed)
        return (moved, time + 1), tf.where(time + 1 >= after, np.nan, reward), ended

    return plain._replace(name="broken", initial=lambda batch, seed: (plain.initial(batch, seed), tf.zeros([batch])),
                          dynamics=dynamics, observe=lambda state: plain.observe(state[0]))


def test_a_reward_that_is_no_number_stops_the_run_with_its_state_saved(tmp_path, monkeypatch):
    monkeypatch.setitem(catalogue.ENVIRONMENTS, "broken", lambda: nan_reward(20))
    settings = config(tmp_path, "dqn", env="broken", epochs=12)
    words = r"'broken' gave a reward that is not a finite number .* after (\d+) steps; .*state before it is saved"
    with pytest.raises(checking.EnvironmentFault, match=words) as first:
        train.train(settings)
    arrays, state = checkpoint.Directory(tmp_path / "checkpoints").latest()
    assert f"after {state['step']} steps" in str(first.value) and state["step"] > 0
    assert all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f")
    with pytest.raises(checking.EnvironmentFault):  # the same state meets the same fault
        train.train(settings)
    monkeypatch.setitem(catalogue.ENVIRONMENTS, "broken", lambda: nan_reward(10**6))
    assert train.train(settings)["epochs"] == 12  # the environment was mended


@pytest.mark.parametrize("change, words", [
    ({"observe": lambda state: tf.stack(state[:3], axis=1)}, r"observation must be float32 of shape \[4\].*received "
                                                             r"float32 of shape \[3\]"),
    ({"observe": lambda state: tf.fill([state.angle.shape[0], 4], 9.0)}, "gave an observation outside the minimum and"),
    ({"observe": lambda state: tf.fill([state.angle.shape[0], 4], np.nan)}, "gave an observation that is not finite"),
    ({"dynamics": lambda state, action, seed: (state, tf.zeros([2, 1]), tf.zeros([2], tf.bool))},
     r"reward must be float32 of shape \[B\]; received float32 of shape")])
def test_an_environment_that_breaks_its_specification(tmp_path, monkeypatch, change, words):
    monkeypatch.setitem(catalogue.ENVIRONMENTS, "broken", lambda: cart_pole()._replace(name="broken", **change))
    with pytest.raises(checking.EnvironmentFault, match=words):
        train.train(config(tmp_path, "a2c", env="broken"))


@pytest.mark.parametrize("changes, words", [
    ({"env": "cartpole"}, "Unknown environment 'cartpole'.*Did you mean 'cart_pole'"),
    ({"algorithm": "pp0"}, "--algorithm: 'pp0'.*Did you mean 'ppo'"),
    ({"algorithm": "dqn", "env": "pendulum"}, r"dqn values each of .* those of pendulum are continuous, float32 of "
                                              r"shape \[1\].*ppo"),
    ({"algorithm": "q_learning"}, "A table needs numbered observations; those of cart_pole are float32"),
    ({"algorithm": "value_iteration"}, "value_iteration computes with the probabilities .* cart_pole has no table"),
    ({"objective": "average"}, "--objective=average is for reinforce; received --algorithm=ppo"),
    ({"exact_discount": True}, "--exact_discount weighs the steps of whole episodes"),
    ({"units": "64,x"}, "--units must be whole numbers above 0"),
    ({"stop_return": "much"}, "--stop_return must be a number; received 'much'"),
    ({"distribution": "federated"}, "--distribution for an agent .*'federated'"),
    ({"distribution": "sync", "algorithm": "q_learning"}, "--distribution=sync spreads the training of a network"),
    ({"export": "int4"}, "Unknown export format 'int4'"),
    ({"workdir": ""}, "--workdir is missing")])
def test_what_is_refused_before_training(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        train.train(Config(**{"workdir": str(tmp_path / "run"), **SMALL, **changes}))
    assert not (tmp_path / "run").exists()


def test_a_foreign_workdir(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds files of something else \(notes.txt\)"):
        train.train(config(tmp_path))


def test_sigterm_saves_and_ends(tmp_path, monkeypatch):
    judge = deep.DeepRun._judge

    def asked(run, value):
        judge(run, value)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(deep.DeepRun, "_judge", asked)
    with pytest.raises(fitting.Terminated, match="asked to end .SIGTERM.; saved at step"):
        train.train(config(tmp_path, "a2c", epochs=5))
    assert last_checkpoint(tmp_path)[1]["progress"]["epoch"] == 1


def test_a_loss_that_is_not_finite(tmp_path):
    with pytest.raises(fitting.TrainingDiverged, match="loss is .* epoch 1; no checkpoint had been written. Lower"):
        train.train(config(tmp_path, "a2c", learning_rate=1e38, gradient_clip=0.0))


def test_a_flag_wins_over_the_table():
    tuned = defaults.resolve(Config(workdir="x"))
    assert tuned.discount == 0.98 and tuned.units == "64,64"
    given = defaults.resolve(Config(workdir="x", discount=0.5, entropy_weight=0.0, units="3"))
    assert (given.discount, given.entropy_weight, given.units) == (0.5, 0.0, "3")
    assert not any(value in (-1, "") for name, value in config_lib.to_dict(tuned).items()
                   if name in defaults.names())


def test_every_entry_of_the_table_is_a_field_that_can_be_left_open():
    for name in defaults.names():
        assert Config(workdir="x").__getattribute__(name) in (-1, ""), name
    for algorithm, environment in defaults.DEFAULTS:
        assert catalogue.make(environment) and Config(workdir="x", algorithm=algorithm)


def test_explain_trains_nothing(tmp_path, capsys):
    assert train.train(config(tmp_path / "run", explain=True)) == {} and not (tmp_path / "run").exists()
    assert "tuned: " in capsys.readouterr().out


def test_a_greedy_path_ends():
    environment = catalogue.make("shortest_path")
    network = tables.compute(defaults.resolve(Config(workdir="x", algorithm="value_iteration"),
                                              environment.model), environment)[0]
    assert tables.greedy_path(environment, network)[-1] == 8


def test_a_bandit_is_learned_and_resumed(tmp_path):
    options = {"env": "advertising", "steps_per_epoch": 20, "parallel_environments": 4, "eval_episodes": 50}
    metrics = train.train(config(tmp_path / "whole", "linucb", **options))
    assert metrics["steps"] == 40 and 0 < metrics["regret"] < 40 * 0.25 and 0 <= metrics["test_return"] <= 1
    run = workdir.Run(defaults.resolve(config(tmp_path / "cut", "linucb", **options)))
    run.begin()
    bandit_runs.BanditRun(run)._epoch()
    resumed = bandit_runs.BanditRun(run)
    assert resumed.progress.epoch == 1
    resumed.train()
    run.end()
    assert resumed.finish()[1]["regret"] == metrics["regret"]


def test_environments_of_gymnasium(tmp_path):
    metrics = train.train(config(tmp_path, "dqn", env="gym:CartPole-v1", export="float32"))
    assert metrics["steps"] >= 120 and metrics["equal_actions_float32"] == 1 and metrics["updates"] > 0
    assert metrics["return_float32"] == metrics["return_keras"] >= 8


@pytest.mark.parametrize("changes, words", [
    ({"algorithm": "ucb", "env": "cart_pole"}, "Unknown bandit for --algorithm=ucb: --env 'cart_pole'"),
    ({"algorithm": "thompson", "env": "k_armed"}, "thompson models rewards of 0 and 1; those of k_armed are gaussian"),
    ({"algorithm": "q_learning", "env": "gym:CartPole-v1"}, "learns in a compiled program, and gym:CartPole-v1 is"),
    ({"algorithm": "reinforce", "env": "gym:CartPole-v1"}, "plays whole episodes of the pure environments; gym:Cart"),
    ({"algorithm": "dqn", "env": "gym:Pendulum-v1"}, "dqn values each .* those of gym:Pendulum-v1 are continuous"),
    ({"env": "gym:Nothing-v1"}, "gymnasium cannot make an environment 'Nothing-v1'")])
def test_what_bandits_and_gymnasium_refuse(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        train.train(Config(**{"workdir": str(tmp_path / "run"), **SMALL, **changes}))
