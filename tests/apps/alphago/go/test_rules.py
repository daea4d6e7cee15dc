"""Every legal mask, capture and score of random games against a board programmed as a beginner would."""

import numpy as np
import pytest

from apps.alphago.go import rules as go
from tests.apps.alphago.go import spiel
from tests.apps.alphago.go.reference import Board


def random_games(rules, number, *, passes=0.02):
    """Plays games in step with references and compares everything after every move; returns how many moves."""
    play, legal, score, is_over = (go.program(rules, name) for name in ("play", "legal", "score", "over"))
    noise, size, points = np.random.default_rng(0), rules.size, rules.num_points
    state = go.new(rules, number)
    boards = [Board(size, superko=rules.superko, suicide=rules.suicide) for _ in range(number)]
    ended, compared = np.zeros(number, bool), 0
    while not ended.all():
        masks = legal(state).numpy()
        moves = np.full(number, points, np.int32)
        for index, board in enumerate(boards):
            if ended[index]:
                continue
            expected = np.zeros(points + 1, bool)
            expected[[r * size + c for r, c in board.legal()] + [points]] = True
            np.testing.assert_array_equal(masks[index], expected)
            choices = np.flatnonzero(masks[index][:-1])
            if len(choices) and noise.random() > passes:
                moves[index] = noise.choice(choices)
            board.play(None if moves[index] == points else divmod(int(moves[index]), size))
            compared += 1
        state = play(state, moves)
        stones, scores, over = state.stones.numpy(), score(state).numpy(), is_over(state).numpy()
        for index, board in enumerate(boards):
            if ended[index]:
                continue
            expected = np.zeros([size, size], int)
            for point, colour in board.stones.items():
                expected[point] = colour
            np.testing.assert_array_equal(stones[index].reshape(size, size), expected)
            assert state.prisoners[index].numpy().tolist() == [board.prisoners[1], board.prisoners[-1]]
            assert scores[index] == board.area() - rules.komi
            assert over[index] == (board.passes >= 2 or len(board.positions) > rules.last_move)
        ended |= over
    return compared


@pytest.mark.parametrize("size, number, superko, suicide", [
    *((5, 20, superko, suicide) for superko in (False, True) for suicide in (False, True)), (9, 4, False, True),
    (9, 4, True, False), (19, 1, True, False),
    *(pytest.param(*each, marks=pytest.mark.conformance) for each in (
        (9, 4, False, False), (9, 4, True, True), (13, 2, False, True), (13, 2, True, False), (19, 1, False, True)))])
def test_against_a_beginners_board(size, number, superko, suicide):
    rules = go.Rules(size=size, superko=superko, suicide=suicide, max_moves=int(1.2 * size**2))
    assert random_games(rules, number) > 10 * number


@pytest.mark.parametrize("size", [5, 9, 13, 19])
def test_against_open_spiel(size, number=50):
    pytest.importorskip("pyspiel", reason="open_spiel of the extra test is not there")
    found = spiel.compare(size, number)
    assert found.positions > 20 * number and found.judged > 0
