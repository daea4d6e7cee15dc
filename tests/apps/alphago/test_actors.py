"""Processes that play while another learns: their games arrive, and who dies or hangs is replaced."""

import math
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from apps.alphago import actors, replay, selfplay, train_zero
from apps.alphago.config import ZeroConfig
from tests.apps.alphago.test_replay import random_games
from tests.apps.alphago.test_selfplay import KINDS
from tests.apps.alphago.test_train_zero import SMALL


def config(path, **changes):
    return ZeroConfig(workdir=str(path), **{**SMALL, **changes})


def test_statistics_of_searches():
    games = [selfplay.PlayedGame([3, 1], [True, False], [0.5, -1.0], [[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]),
             selfplay.PlayedGame([2], [True], [-0.25], [[0.0, 0.25, 0.75, 0.0]]),
             selfplay.PlayedGame([0], [False], [0.0], [[1.0, 0.0, 0.0, 0.0]])]
    found = actors.search_statistics(games)
    entropy = np.log(2) - 0.25 * np.log(0.25) - 0.75 * np.log(0.75)
    assert found == pytest.approx({"searched": 2, "certainty": 0.75, "entropy": entropy, "first_share": 1.25})


def test_a_run_goes_on_when_one_is_killed(tmp_path, capfd):
    learn, killed = train_zero.Learner._learn, []

    def kill_one(learner):
        if not killed:
            killed.append(learner._games.pids[0])
            os.kill(killed[0], signal.SIGKILL)
        return learn(learner)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_zero.Learner, "_learn", kill_one)
        metrics = train_zero.train(config(tmp_path / "run", actors=2, epochs=3, rate_every=0, reuse=0.1))
    printed = capfd.readouterr()
    assert "self-play 0 was killed by SIGKILL; it is started again" in printed.out + printed.err
    assert metrics["generations"] == 3 and metrics["steps"] == 15 and metrics["simulations"] > metrics["moves"] > 0
    store = replay.Replay(tmp_path / "run" / "replay", *KINDS["tic_tac_toe"], window=10**6)
    assert store.num_games == metrics["games"] and store.count_since(0) >= 3 * 5 * 32 / 0.1
    assert not multiprocessing.active_children()


def _end_at_once(config, folder, seed, parent, beat):
    os._exit(3)


def _move_once(config, folder, seed, parent, beat):
    beat.value = time.monotonic()
    time.sleep(600)


@pytest.fixture
def processes(tmp_path, monkeypatch):
    started = []

    def start(act, **changes):
        monkeypatch.setattr(actors, "_act", act)
        lines = []
        started.append(actors.Processes(config(tmp_path, actors=1, **changes), tmp_path, [np.zeros(2)], [7],
                                        report=lines.append))
        return started[-1], lines

    yield start
    for each in started:
        each.close()
    assert not multiprocessing.active_children()


def test_who_ends_before_it_has_played_is_not_started_for_ever(tmp_path, processes):
    store = replay.Replay(tmp_path / "replay", *KINDS["tic_tac_toe"], window=100)
    found, lines = processes(_end_at_once)
    with pytest.raises(actors.ActorsFailed, match="self-play 0 ended with code 3, 3 times in a row"):
        found.play(store, 1, math.inf)
    assert lines == ["self-play 0 ended with code 3; it is started again"] * 2


def test_who_makes_no_move_is_replaced(tmp_path, processes):
    store = replay.Replay(tmp_path / "replay", *KINDS["tic_tac_toe"], window=100)
    found, lines = processes(_move_once)
    until, before = time.monotonic() + 120, found.pids
    while not found._actors[0].beat.value and time.monotonic() < until:
        assert found.play(store, 1, 0.1)[0] == [] and found.pids == before
    found._config = config(tmp_path, actors=1, actor_timeout=0.01)
    time.sleep(0.1)  # its only move may have been within this time-out
    found.play(store, 1, 0.0)
    assert "made no move for" in lines[0] and "was killed by SIGKILL" in lines[1] and found.pids != before


def test_games_left_by_who_was_killed_are_taken_over(tmp_path, processes):
    games = random_games("tic_tac_toe", 3)
    first = replay.Replay(tmp_path / "other", *KINDS["tic_tac_toe"], window=100)
    first.add(games)
    (path,) = (tmp_path / "other").glob("*.npz")
    path.rename(tmp_path / "games_1_0.npz")
    (tmp_path / "games_2_0.npz").write_bytes(b"torn")
    lines = []
    store = replay.Replay(tmp_path / "replay", *KINDS["tic_tac_toe"], window=100, report=lines.append)
    found, _ = processes(_move_once)
    moves, _ = found.play(store, 1, 60)
    assert moves == [game.actions for game in games] and store.num_games == 3
    assert "games_2_0.npz" in lines[0] and not list(tmp_path.glob("games_*"))
