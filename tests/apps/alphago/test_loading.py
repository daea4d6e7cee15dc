"""Players from files."""

import shutil

import pytest
import tf_keras as keras

from apps.alphago import networks
from apps.alphago.config import ZeroConfig
from apps.alphago.go import rules as go
from apps.alphago.loading import load, rules_of
from apps.alphago.match import play_games
from apps.alphago.opponents import player_of
from apps.common import config as config_lib
from strategies.export import tflite


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run's folder, as far as players need it."""
    path = tmp_path_factory.mktemp("runs") / "mine"
    path.mkdir()
    config_lib.save(ZeroConfig(workdir=str(path), size=5, komi=0.5, superko=True, margin_share=0.2),
                    path)
    networks.build(networks.Structure(size=5, num_actions=26, blocks=1, filters=4, hidden=4)).save(path / "model.keras")
    return path


def test_a_run_a_model_and_a_file_for_phones(run):
    tflite.convert(keras.models.load_model(run / "model.keras", compile=False), run / "small.tflite", "float16")
    for path, name, rules in ((run, "mine", go.Rules(size=5, komi=0.5, superko=True)),
                              (run / "model.keras", "model", go.Rules(size=5)),
                              (run / "small.tflite", "small", go.Rules(size=5))):
        player = player_of(f"network:{path}")(0)
        assert player.name.split()[0] == name and player.sizes == (5,) and rules_of(path) == rules


def test_specifications(run):
    make = player_of(f"network:{run}, simulations=30,leaves=3,first_play=parent")
    player = make(7)
    assert player.name == "mine (30)" and player._settings.seed == 7
    assert (player._settings.simulations, player._settings.leaves, player._settings.first_play) == (30, 3, "parent")
    assert player._settings.margin_share == 0.2
    with pytest.raises(ValueError, match="Unknown setting of a search 'visits'"):
        player_of(f"network:{run},visits=3")
    with pytest.raises(ValueError, match="simulations of a search must be a number; received 'many'"):
        player_of(f"network:{run},simulations=many")


def test_the_network_that_comes_with_the_suite(run, tmp_path, monkeypatch):
    found = load("go9")
    assert found.size == 9 and found.rules == rules_of("go9") == go.Rules(size=9, komi=7.0)
    learned = found.game
    assert (learned["first_pass"], learned["losing_pass"]) == (40, -0.75)
    makes = player_of("network:go9,simulations=16,leaves=8,capacity=200"), player_of("random")
    (game, _), = play_games(makes, rules=found.rules, numbers=[2])
    assert game.score == 1
    monkeypatch.chdir(tmp_path)
    for own in (False, True):
        if own:  # a run of that name comes first; another folder does not
            shutil.rmtree("go9")
            shutil.copytree(run, "go9")
        else:
            (tmp_path / "go9").mkdir()
        load.cache_clear()
        assert load("go9").size == (5 if own else 9)
    load.cache_clear()


def test_what_is_no_network(run, tmp_path):
    with pytest.raises(ValueError, match="has no network: expected the workdir of a finished run"):
        load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="is not the workdir of a run of train_zero"):
        load(tmp_path)
    (tmp_path / "broken.keras").write_bytes(b"PK no")
    with pytest.raises(ValueError, match="cannot be read as a Keras model"):
        load(tmp_path / "broken.keras")
    keras.Sequential([keras.layers.Dense(1, input_shape=(1,))]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="is no network of AlphaGo Zero"):
        load(tmp_path / "other.keras")
    (tmp_path / "run").mkdir()
    config_lib.save(ZeroConfig(workdir=str(tmp_path), game="tic_tac_toe"), tmp_path / "run")
    with pytest.raises(ValueError, match="has learned tic_tac_toe"):
        load(tmp_path / "run")
    networks.build(networks.Structure(size=3, num_actions=9, planes=2, blocks=1, filters=4)).save(tmp_path / "t.keras")
    with pytest.raises(ValueError, match="is a network for a board of 3"):
        load(tmp_path / "t.keras")
    networks.build(networks.Structure(size=5, num_actions=26, planes=4, blocks=1, filters=4)).save(tmp_path / "p.keras")
    with pytest.raises(ValueError, match="sees 4 planes; Go is shown as 17 or 21"):
        load(tmp_path / "p.keras")
