"""A game in Python against the batched rules, and what it refuses."""

import numpy as np
import pytest

from apps.alphago.go import rules as go
from apps.alphago.go import sgf, text
from apps.alphago.go.board import Board

RULES = go.Rules(size=5, komi=0.5)


def played(*names):
    board = Board(RULES)
    for name in names:
        board.play(text.move_of(name, RULES.size))
    return board


def test_moves_and_the_way_back():
    board = played("B3", "A3", "B2", "A2", "B4", "pass", "A4", "pass")
    before = [part.numpy() for part in board.state]
    board.play(text.move_of("A1", 5))
    assert board.prisoners == (2, 0) and board.stones[2, 0] == 0 and board.turn == go.WHITE
    board.undo()
    for part, expected in zip(board.state, before):
        np.testing.assert_array_equal(part, expected)
    assert board.moves[-1] == (go.WHITE, 25) and len(board.moves) == 8 and board.prisoners == (0, 0)
    assert str(board).splitlines()[2] == " 4 X X . . . 4"


def test_copies_go_their_own_ways():
    board = played("B3", "A3", "B2")
    early, late = board.copy(1), board.copy()
    board.undo()
    early.play(0)
    assert late.moves[-1][1] == text.move_of("B2", 5) and len(late.moves) == 3 and len(board.moves) == 2
    assert early.moves == [board.moves[0], (go.WHITE, 0)] and early.turn == go.BLACK
    early.undo()
    early.undo()
    assert not early.stones.any() and board.stones.any() and late.stones.any()
    set_up = Board(RULES, np.eye(5, dtype=int), go.WHITE).copy()
    assert (set_up.setup == np.eye(5)).all() and set_up.turn == go.WHITE
    with pytest.raises(ValueError, match="has 2 moves; received 3"):
        board.copy(3)


def test_score_and_end():
    board = played("C3")
    assert board.score() == 24.5 and (board.ownership() == 1).all() and not board.is_over
    board.play(25)
    board.play(25)
    assert board.is_over
    board.play(0)  # as after a quarrel about dead stones
    assert not board.is_over and board.turn == go.BLACK


def test_the_other_side_may_move():
    board = played("C3")
    board.play(0, go.BLACK)
    assert board.moves == [(go.BLACK, 12), (go.BLACK, 0)] and board.turn == go.WHITE
    assert not board.legal(go.BLACK)[0] and board.legal()[25]


def test_ko_binds_the_side_to_move_only():
    board = played("C4", "B4", "D3", "A3", "C2", "B2", "A5", "C3", "B3")
    assert not board.legal()[text.move_of("C3", 5)] and board.legal(go.BLACK)[text.move_of("C3", 5)]


@pytest.mark.parametrize("move, words", [(12, "Move 2, white C3, is illegal here:\n   A B C D E"), (26, "white 26"),
                                         (-1, "white -1")])
def test_illegal_moves_change_nothing(move, words):
    board = played("C3")
    with pytest.raises(ValueError, match=words):
        board.play(move)
    assert len(board.moves) == 1 and board.turn == go.WHITE


def test_too_many_moves_and_too_few():
    board = Board(go.Rules(size=5, max_moves=1))
    with pytest.raises(ValueError, match="No move has been made"):
        board.undo()
    board.play(0)
    assert board.is_over
    with pytest.raises(ValueError, match="has 1 moves, as many as"):
        board.play(1)


def test_komi_changes_in_the_middle():
    board = played("C3", "C4")
    before = [part.numpy() for part in board.state]
    program = go.program(board.rules, "play")
    board.set_komi(-3.5)
    assert board.rules == go.Rules(size=5, komi=-3.5) and board.score() == 3.5 and len(board.moves) == 2
    for part, expected in zip(board.state, before):
        np.testing.assert_array_equal(part, expected)
    assert go.program(board.rules, "play") is program, "nothing is compiled again"
    assert go.program(board.rules, "score")(board.state).numpy()[0] == 3.5
    for komi in (0.3, float("nan"), float("inf"), -float("inf")):
        with pytest.raises(ValueError, match=f"Komi must be a multiple of one half; received {komi}"):
            board.set_komi(komi)
    assert board.rules.komi == -3.5


def test_dead_stones_do_not_count():
    board = played("B1", "C1", "B2", "C2", "B3", "C3", "B4", "C4", "B5", "C5", "E5")
    dead = np.zeros([5, 5], bool)
    dead[0, 4] = True
    assert board.score() == 5 + 5 + 1 - 5 - 0.5 and board.score(dead) == 10 - 15 - 0.5
    assert board.ownership(dead)[0].tolist() == [1, 1, -1, -1, -1] and board.ownership()[0, 3] == 0
    assert board.stones[0, 4] == 1


def test_for_a_player():
    board = played("C4", "B4", "D3", "A3", "C2", "B2", "A5", "C3", "B3")
    ko = text.move_of("C3", 5)
    same, other = board.for_player(), board.for_player(go.BLACK)
    assert same.turn == go.WHITE and not same.legal()[ko] and other.turn == go.BLACK and other.legal()[ko]
    for part, expected in zip(same.state, board.state):
        np.testing.assert_array_equal(part, expected)
    same.play(25)
    other.undo()
    assert len(board.moves) == 9 and len(same.moves) == 10 and len(other.moves) == 8 and other.turn == go.BLACK
    board.play(25)
    board.play(25)
    assert board.is_over and not board.for_player().is_over and board.for_player().turn == go.WHITE


def test_who_moves_first_is_kept():
    for setup, moves in ((None, []), (None, [(-1, 3)]), (None, [(1, 3)]), (np.eye(5), []), (np.eye(5), [(1, 3)])):
        for turn in (go.BLACK, go.WHITE):
            board = Board(RULES, setup, turn)
            for colour, move in moves:
                board.play(move, colour)
            content = sgf.write(board.record())
            again = Board.from_record(RULES, sgf.record_of(sgf.tree_of(content, "x"), "x"))
            assert again.moves == board.moves and again.turn == board.turn and again.record().first == turn
            assert (b"HA[5]" in content) == (setup is not None and turn == go.WHITE)
            for _ in moves:
                again.undo()
            assert again.turn == turn


def test_records_with_too_many_moves():
    record = sgf.Record(5, moves=((1, 25), (-1, 25), (1, 25)))
    assert len(Board.from_record(go.Rules(size=5, max_moves=3), record).moves) == 3
    with pytest.raises(ValueError, match="the game: 3 moves; expected at most 2"):
        Board.from_record(go.Rules(size=5, max_moves=2), record)


def test_records():
    setup = np.zeros([5, 5], np.int8)
    setup[2, 2] = go.BLACK
    board = Board(RULES, setup, go.WHITE)
    board.play(0)
    record = board.record(names=("a", "b"), margin=3.5)
    assert record.first == go.WHITE and record.margin == 3.5
    again = Board.from_record(RULES, sgf.record_of(sgf.tree_of(sgf.write(record), "x"), "x"))
    np.testing.assert_array_equal(again.stones, board.stones)
    assert again.moves == board.moves and again.turn == go.BLACK
    again.undo()
    assert again.turn == go.WHITE and again.stones.sum() == 1
