"""Learning from self-play on a game that is solved, and going on where a run was cut."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from apps.alphago import actors, replay, settings, train_zero
from apps.alphago.config import ZeroConfig
from apps.alphago.go import rules as go
from apps.alphago.go import sgf
from apps.alphago.go.board import Board
from apps.alphago.loading import load
from apps.common.fitting import read_history
from strategies import checkpoint

SMALL = {"game": "tic_tac_toe", "model": "zero_1x8", "pooling_every": 0, "hidden": 8, "policy": "puct",
         "simulations": 16, "fast_simulations": 8, "parallel_games": 16, "steps_per_generation": 5, "batch_size": 32,
         "rate_every": 1, "rate_games": 4, "rate_simulations": 4}


def config(path, **changes):
    return ZeroConfig(workdir=str(path), **{**SMALL, **changes})


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A run of two generations that was cut within the second, after its games and before it had learned, and then was
    given a third.

    And the number of games then, its metrics, and how many positions it asked for when it went on.
    """
    path, learn, calls = tmp_path_factory.mktemp("runs") / "run", train_zero.Learner._learn, []
    play, asked = actors.SelfPlay.play, []

    def cut(learner):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return learn(learner)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_zero.Learner, "_learn", cut)
        with pytest.raises(KeyboardInterrupt):
            train_zero.train(config(path, epochs=2))
    assert not (path / "metrics.json").exists()
    games = replay.Replay(path / "replay", *of_game(), window=10**6).num_games
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actors.SelfPlay, "play", lambda self, store, wanted, seconds: (
            asked.append(wanted), play(self, store, wanted, seconds))[1])
        return path, games, train_zero.train(config(path, epochs=3)), asked


def of_game():
    setting = settings.setting_of(ZeroConfig(workdir="x", **SMALL))
    return setting.game, setting.new_state


def test_a_cut_run_goes_on(resumed, capsys):
    path, games, metrics, asked = resumed
    assert asked[0] <= 0 < asked[-1]  # the games of the cut generation count
    assert metrics == json.loads((path / "metrics.json").read_text())
    assert (metrics["generations"], metrics["steps"]) == (3, 15)
    assert metrics["games"] > games > 0
    arrays, state = checkpoint.Directory(path / "checkpoints").latest()
    assert state["generation"] == 3
    rungs = read_history(path / "ladder.csv")
    assert [(row["generation"], row["elo"]) for row in rungs] == [
        (row["generation"], row["elo"]) for row in state["ladder"]]
    assert [row["generation"] for row in rungs] == [1, 2, 3] and rungs[0]["elo"] == 0
    assert rungs[0]["games"] < rungs[1]["games"] and rungs[1]["minutes"] < rungs[2]["minutes"]
    again = train_zero.train(config(path, epochs=3))
    assert again == metrics and "Resuming" in capsys.readouterr().out


def test_what_a_run_leaves(resumed):
    path, _, metrics, _ = resumed
    model = keras.models.load_model(path / "model.keras", compile=False)
    assert model.count_params() == metrics["num_parameters"]
    assert [tuple(model.output_shape[name]) for name in ("policy", "value")] == [(None, 9), (None, 1)]
    arrays, _ = checkpoint.Directory(path / "checkpoints").latest()
    player = [arrays[name] for name in sorted(arrays) if name.startswith("player/")]
    rungs = [keras.models.load_model(file, compile=False) for file in sorted((path / "rungs").iterdir())]
    assert len(rungs) == 3
    for a, b, c in zip(model.get_weights(), player, rungs[-1].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert list((path / "logs").glob("events*"))


def test_the_network_learns(tmp_path):
    """After one generation the losses are far below those of a network that knows nothing."""
    rows = []
    report = train_zero.Learner._report
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_zero.Learner, "_report",
                      lambda self, played, found: rows.append(found) or report(self, played, found))
        train_zero.train(config(tmp_path / "run", epochs=6, steps_per_generation=40, rate_every=0,
                                gate=0.01, gate_games=4))
    assert rows[-1]["policy_loss"] < rows[0]["policy_loss"] - 0.2 < np.log(9)
    assert rows[-1]["value_loss"] < 0.92 * rows[0]["value_loss"]


@pytest.mark.parametrize("changes, words", [
    ({"model": "zero_0x8"}, "Unknown model 'zero_0x8'"), ({"model": "resnet20"}, "zero_<blocks>x<filters>"),
    ({"game": "chess"}, "Unknown value of --game: 'chess'"), ({"gate": 0.5}, "--gate and --gate_games go together"),
    ({"rate_games": 5}, "must be even; received 5"), ({"fast_simulations": 20}, "at most --simulations; received 20"),
    ({"distribution": "async"}, "self-play and learning in one program: 'async'"),
    ({"game": "go", "komi": 6.3}, "Komi must be a multiple of one half"), ({"workdir": ""}, "--workdir is missing")])
def test_bad_input(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        train_zero.train(config(**{"path": tmp_path / "run", **changes}) if "workdir" not in changes
                         else ZeroConfig(**{**SMALL, **changes}))
    assert not (tmp_path / "run").exists()


def test_the_window_grows():
    """Wu 2019: 250,000 samples in the beginning, about 22 million after 241 million."""
    wu = config("x", window=10**9, first_window=250_000)
    assert [train_zero.window_of(wu, number) for number in (0, 1, 250_000)] == [250_000] * 3
    assert train_zero.window_of(wu, 241_000_000) == pytest.approx(22e6, rel=0.06)
    assert train_zero.window_of(config("x", window=300_000, first_window=250_000), 10**7) == 300_000
    assert train_zero.window_of(config("x", window=50, first_window=60), 10) == 50
    assert train_zero.window_of(config("x", window=60, first_window=0), 0) == 60


def test_explain(tmp_path, capsys):
    assert train_zero.train(config(tmp_path / "run", game="go", explain=True)) == {}
    text = capsys.readouterr().out
    assert "komi=7.0" in text and "parameters" in text and not (tmp_path / "run").exists()


def test_go(tmp_path):
    """A generation of Go: its games are legal, and TensorBoard has their last positions."""
    metrics = train_zero.train(config(tmp_path / "run", game="go", policy="gumbel", size=5, komi=0.5, epochs=1,
                                      parallel_games=8, simulations=8, steps_per_generation=2, rate_every=0))
    rules = go.Rules(size=5, komi=0.5)
    paths = sorted((tmp_path / "run" / "games").glob("*.sgf"))
    assert [path.name for path in paths] == ["00001_1.sgf", "00001_2.sgf"] and metrics["generations"] == 1
    for path in paths:
        record = sgf.read(path)
        assert Board.from_record(rules, record).score() == record.margin
    assert load(tmp_path / "run").size == 5
    (events,) = (tmp_path / "run" / "logs").glob("events*")
    tags = {value.tag for event in tf.compat.v1.train.summary_iterator(str(events)) for value in event.summary.value}
    assert {"last_positions", "policy_loss", "ownership_loss", "simulations_per_second", "search_entropy"} <= tags
