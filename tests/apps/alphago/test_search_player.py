"""The player that searches: its tree against a plain search, its budgets, and files for phones as its network."""

import dataclasses

import numpy as np
import pytest
import tf_keras as keras

from apps.alphago import games, networks, search_player
from apps.alphago.go import rules as go
from apps.alphago.go import text
from apps.alphago.go.board import Board
from apps.alphago.players import RESIGN
from apps.alphago.search import policies, simulate
from apps.alphago.search import tree as trees
from apps.alphago.search_player import SearchPlayer, SearchSettings
from strategies.export import tflite

RULES = go.Rules(size=5, komi=0.5, max_moves=60)
# An untrained network's favourites mean nothing: all moves are looked at.
SETTINGS = SearchSettings(simulations=64, leaves=4, capacity=200, margin_share=0, first_play="zero", symmetries=0)


def a_model(planes):
    keras.utils.set_random_seed(1)
    made = networks.build(networks.Structure(size=5, num_actions=26, planes=planes, blocks=1, filters=8, hidden=8))
    for layer in made.layers:  # an untrained head says nothing
        if isinstance(layer, keras.layers.Dense):
            layer.kernel.assign(5 * keras.initializers.GlorotUniform(seed=1)(layer.kernel.shape))
    return made


@pytest.fixture(scope="module")
def evaluator():
    return networks.Evaluator(a_model(17))


def lead():
    """Black is far ahead and has the board but two eyes; white has just passed."""
    stones = text.read("""
        . X . X .
        X X X X X
        X X X X X
        . . . . .
        O O . . .""")
    board = Board(RULES, stones, go.WHITE)
    board.play(25)
    return board


def test_a_search_is_the_plain_one(evaluator):
    board, player = Board(RULES), SearchPlayer(evaluator, 5, SETTINGS)
    board.play(12)
    game = games.go_game(RULES)
    tree = simulate.search(game, evaluator, policies.Puct(), trees.plant(game, evaluator, board.state, 100), 64, 4)
    choice = player.choose(board)
    visits = {c.move: c.visits for c in choice.analysis.candidates}
    expected = tree.visits[0, 0].numpy()
    if choice.analysis.visits == 64:  # else a part of it was enough
        assert all(expected[move] == number for move, number in visits.items())
    assert choice.move == int(np.argmax(expected)) == choice.analysis.candidates[0].move
    for candidate in choice.analysis.candidates:
        trial = Board.from_record(RULES, board.record())
        for move in candidate.line:
            trial.play(move)


def test_what_was_known_before_comes_on_top(evaluator):
    settings = dataclasses.replace(SETTINGS, capacity=1000, sampled_moves=100)  # which looks at all simulations
    board, player = Board(RULES), SearchPlayer(evaluator, 5, settings)
    first = player.choose(board)
    assert first.analysis.visits == 64
    line = next(c.line for c in first.analysis.candidates if len(c.line) > 2)
    for move in line[:2]:
        board.play(move)
    known = int(player._known_tree(board).visits[0, 0].numpy().sum())
    assert 0 < known < 64 and player.choose(board).analysis.visits == known + 64


def test_the_tree_goes_on(evaluator):
    board, player = Board(RULES), SearchPlayer(evaluator, 5, SETTINGS)
    first = player.choose(board)
    line = next(c.line for c in first.analysis.candidates if len(c.line) > 2)
    board.play(line[0])
    board.play(line[1])
    assert player._known_tree(board).size[0] > 1
    board.play(0 if line[1] else 1, board.turn)
    board.undo()
    assert player._known_tree(board).size[0] > 1
    board.undo()
    board.undo()
    assert player._known_tree(board).size[0] > 1  # the place of the last search
    board.play(line[0])
    board.play(line[1], go.BLACK)  # out of turn: the tree knows nothing of that
    assert player._known_tree(board) is None
    assert player.choose(board).analysis.visits >= 1
    other = Board(RULES, text.read(". . . . .\n" * 4 + ". . X . ."))
    assert player._known_tree(other) is None


def test_thinking_together(evaluator):
    """Three players, with trees of different size and one whose game is over, choose as each would alone."""
    settings = dataclasses.replace(SETTINGS, capacity=1000, sampled_moves=100)  # which looks at all simulations
    alone, together = ([SearchPlayer(evaluator, 5, dataclasses.replace(settings, seed=seed)) for seed in range(4)]
                       for _ in range(2))
    boards = [Board(RULES), Board(RULES), Board(RULES), lead()]
    boards[1].play(12)
    boards[3].play(25)
    for player in (*alone, *together):
        assert player.kind is None
        player.begin(RULES)
    assert len({player.kind for player in (*alone, *together)}) == 1
    assert SearchPlayer(lambda planes: planes, 5).kind is None
    for _ in range(3):
        expected = [player.choose(board) for player, board in zip(alone, boards)]
        chosen = SearchPlayer.choose_together(together, boards)
        assert [choice.move for choice in chosen] == [choice.move for choice in expected]
        for one, other in zip(chosen[:3], expected):
            assert [(c.move, c.visits) for c in one.analysis.candidates] == [
                (c.move, c.visits) for c in other.analysis.candidates]
        assert chosen[3].move == 25
        for board, choice in zip(boards[:3], chosen):
            board.play(choice.move)


def test_together_until_all_are_decided(evaluator, monkeypatch):
    settings = dataclasses.replace(SETTINGS, capacity=1000, simulations=256)
    players, boards = [SearchPlayer(evaluator, 5, settings) for _ in range(2)], [lead(), lead()]
    for player in players:
        player.begin(RULES)
    grown, grow = [], search_player.Programs.grow
    monkeypatch.setattr(search_player.Programs, "grow", lambda *given: grown.append(given[2]) or grow(*given))
    choices = SearchPlayer.choose_together(players, boards)
    assert choices[0].move == choices[1].move == int(np.argmax(players[0]._root_visits()))
    assert 4 * sum(grown) == choices[0].analysis.visits < 256


def test_who_is_ahead_passes_and_knows_it(evaluator):
    player, board = SearchPlayer(evaluator, 5, SETTINGS), lead()
    choice = player.choose(board)
    assert choice.analysis.win_rate > 0.9 and choice.analysis.candidates[0].visits > 20
    passing = next(c for c in choice.analysis.candidates if c.move == 25)
    assert passing.win_rate == 1 and passing.line == (25,)
    board.play(25)
    assert player.choose(board).move == 25  # the game is over


def test_who_is_behind_gives_up(evaluator):
    board = lead()
    board.undo()
    board.play(20 - 2)  # white fills; black passes
    board.play(25)
    settings = dataclasses.replace(SETTINGS, resign_below=1.0)
    assert SearchPlayer(evaluator, 5, settings).choose(board).move == RESIGN


def test_drawn_moves_differ_and_repeat(evaluator):
    def moves(seed):
        player = SearchPlayer(evaluator, 5, SearchSettings(simulations=16, leaves=4, capacity=200, sampled_moves=100,
                                                           seed=seed))
        return [player.choose(Board(RULES)).move for _ in range(6)]

    assert moves(0) == moves(0) != moves(1) and len(set(moves(0))) > 1


class Clock:
    """Time that passes only while a tree grows: a second a round."""

    def __init__(self, monkeypatch):
        self.now, self.slept = 0.0, 0.0
        grow = search_player.Programs.grow

        def timed(programs, tree, rounds):
            self.now += rounds
            return grow(programs, tree, rounds)

        monkeypatch.setattr(search_player.Programs, "grow", timed)
        monkeypatch.setattr(search_player, "time", self)

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.slept += seconds


def test_time(evaluator, monkeypatch):
    player = SearchPlayer(evaluator, 5, SETTINGS)
    player.begin(RULES)
    clock = Clock(monkeypatch)
    assert 20 <= player.choose(Board(RULES), seconds=21).analysis.visits / 4 <= 21 and clock.now <= 21
    player.begin(RULES)
    clock.now = 0.0
    full = player.choose(Board(RULES), seconds=1000).analysis
    assert clock.now < 60 and full.visits >= 190  # the tree is full
    player.begin(RULES)
    stream = player.analyse(Board(RULES), 10)
    found = [next(stream).visits for _ in range(8)]
    assert found == sorted(found) and found[0] <= 40 < found[-1] and clock.slept > 0


@pytest.mark.parametrize("planes", [17, 21])
def test_files_for_phones(tmp_path, planes):
    model, path = a_model(planes), tmp_path / "network.tflite"
    evaluator, board = networks.Evaluator(model), Board(RULES)
    tflite.convert(model, path, "float32")
    settings = dataclasses.replace(SETTINGS, symmetries=2)
    expected = SearchPlayer(evaluator, 5, settings).choose(board)
    network, size = networks.lite_network(path)
    assert size == 5
    found = SearchPlayer(network, 5, settings).choose(board)
    assert found.move == expected.move
    for a, b in zip(found.analysis.candidates, expected.analysis.candidates):
        assert (a.move, a.visits) == (b.move, b.visits) and a.win_rate == pytest.approx(b.win_rate, abs=1e-3)


def test_exploration(evaluator):
    """More of it spreads the visits."""
    most = [max(c.visits for c in SearchPlayer(evaluator, 5, dataclasses.replace(SETTINGS, exploration=rate)).choose(
        Board(RULES)).analysis.candidates) for rate in (0.1, 10.0)]
    assert most[0] > 2 * most[1]


@pytest.mark.parametrize("setting, message", [
    ({"simulations": 0}, "simulations of a search must be at least 1; received 0"), ({"capacity": -1}, "capacity of"),
    ({"margin_share": 0.5}, "margin_share of a search must be from 0 to below 0.5"),
    ({"symmetries": 3}, r"symmetries of a search must be one of \(0, 1, 2, 4, 8\); received 3"),
    ({"losing_pass": 2}, "received 0.1 and 2"), ({"first_play": "zeros"}, "Unknown first_play of a search 'zeros'"),
    ({"resign_below": float("nan")}, "resign_below of a search must be at least 0; received nan")])
def test_settings_that_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        SearchSettings(**setting)


def test_what_is_refused(evaluator, tmp_path):
    with pytest.raises(ValueError, match="usagi plays on boards of 5; received a board of 9"):
        SearchPlayer(evaluator, 5, SETTINGS).begin(go.Rules(size=9))
    other = tmp_path / "other.tflite"
    tflite.convert(keras.Sequential([keras.layers.Dense(2, input_shape=(3,))]), other, "float32")
    with pytest.raises(ValueError, match="is no network for Go: expected planes and the outputs policy and value"):
        networks.lite_network(other)
