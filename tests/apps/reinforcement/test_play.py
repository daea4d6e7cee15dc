"""Saved policies in their environments: files of every kind, pictures, texts, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from apps.reinforcement import networks, play, tables
from apps.reinforcement.environments import catalogue
from apps.reinforcement.environments.cart_pole import cart_pole
from strategies import export


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A workdir as `train` leaves it, of an untrained policy."""
    path, environment = tmp_path_factory.mktemp("run"), cart_pole()
    network = networks.policy_network(environment.observation_spec, environment.action_spec, units=(4,), seed=1)
    model = networks.acting_network(network)
    model.save(path / "model.keras")
    (path / "export").mkdir()
    export.convert(model, path / "export" / "float32.tflite", "float32")
    (path / "config.json").write_text(json.dumps({"config": {"env": "cart_pole"}}))
    return path


def test_a_workdir_and_its_file_play_the_same(folder):
    lines = []
    returns = [play.play(play.PlayConfig(policy=str(path), episodes=3, show="none"), lines.append)
               for path in (folder, folder / "export" / "float32.tflite")]
    assert returns[0] == returns[1] and len(returns[0]) == 3 and min(returns[0]) >= 5
    assert lines[0] == f"episode 1: return {returns[0][0]:g}, {returns[0][0]:g} steps"
    assert lines[3].startswith("mean return ")


def test_it_draws_and_records(folder, tmp_path):
    lines, gif, text = [], tmp_path / "new" / "a.gif", tmp_path / "a.txt"
    environment = catalogue.make("cart_pole")
    total, = play.play(play.PlayConfig(policy=str(folder), record=str(gif), max_steps=7), lines.append)
    assert total == 7 and sum(line.startswith("step ") for line in lines) == 7
    if environment.picture is not None:
        with Image.open(gif) as image:
            assert image.n_frames >= 2 and len(np.unique(np.array(image.convert("RGB")))) > 1
    play.play(play.PlayConfig(policy=str(folder), record=str(text), max_steps=7, show="none"), lines.append)
    assert len(text.read_text().split("\n\n")) >= 8


def test_a_table_plays(tmp_path):
    environment = catalogue.make("shortest_path")
    values = np.where(np.eye(9)[[1, 4, 1, 6, 7, 2, 7, 8, 7]] > 0, 1.0, 0.0)  # the way to room 8
    networks.acting_network(tables.network_of(values)).save(tmp_path / "model.keras")
    lines = []
    returns = play.play(play.PlayConfig(policy=str(tmp_path), env="shortest_path", episodes=4), lines.append)
    assert returns == [100.0] * 4 and any("[8]" in line for line in lines) and environment.draw is not None


def test_gymnasium_plays(folder, tmp_path):
    path = str(tmp_path / "g.txt")
    total, = play.play(play.PlayConfig(policy=str(folder), env="gym:CartPole-v1", record=path, max_steps=5,
                                       show="none"), lambda line: None)
    assert total == 5 and len((tmp_path / "g.txt").read_text().split("\n\n")) == 6


@pytest.mark.parametrize("options, words", [
    ({}, "--policy is missing: expected the workdir of a run"),
    ({"policy": "nowhere"}, "--policy=nowhere is no policy: expected the workdir"),
    ({"policy": "{}", "record": "a.avi"}, "--record must end with .gif or .txt; received 'a.avi'"),
    ({"policy": "{}", "env": "acrobot"}, "does not take the observations of acrobot, float32 of shape .6."),
    ({"policy": "{}", "env": "cartpole"}, "Unknown environment 'cartpole'"),
    ({"policy": "{}", "env": "traffic_light"}, "does not take the observations"),
    ({"policy": "{}", "show": "all"}, "--show: 'all'")])
def test_what_is_refused(folder, options, words):
    options = {name: value.format(folder) for name, value in options.items()}
    with pytest.raises(ValueError, match=words):
        play.play(play.PlayConfig(**options), lambda line: None)


def test_another_number_of_actions(tmp_path):
    environment = cart_pole()
    wrong = environment.action_spec._replace(maximum=4)
    network = networks.policy_network(environment.observation_spec, wrong, units=(4,))
    networks.acting_network(network).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"answers with shape \[5\], and cart_pole has 2 actions"):
        play.play(play.PlayConfig(policy=str(tmp_path), env="cart_pole"), lambda line: None)
    with pytest.raises(ValueError, match="there is no config.json near it. Give --env"):
        play.play(play.PlayConfig(policy=str(tmp_path)), lambda line: None)
