"""What holds for every game of Go, whatever is played: games that hypothesis makes up, and shortens where one fails.

A game is played sixteen times in one batch: under each symmetry of the board, and with black and white exchanged.
"""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.alphago.go import features
from apps.alphago.go import rules as go

SIZE, PASS = 5, 25
RULES = {"simple ko": go.Rules(size=SIZE, komi=0), "superko, suicide": go.Rules(
    size=SIZE, komi=0, superko=True, suicide=True)}
# Numbers from which moves are chosen: any of the legal points, or a pass.
GAMES = st.lists(st.integers(0, 2**16), min_size=1, max_size=60)


def images():
    """int [16, P + 1]: where each point goes, under each symmetry, twice."""
    return np.tile(features.inverse_symmetries(SIZE), (2, 1))


def play_all(rules, numbers):
    """Plays a game; yields (state, legal mask of the game itself) before each move and after the last one."""
    play, legal = go.program(rules, "play"), go.program(rules, "legal")
    turn = np.repeat([go.BLACK, go.WHITE], 8).astype(np.int8)
    state, to = go.new(rules, 16)._replace(turn=tf.constant(turn)), images()
    for number in [*numbers, None]:
        masks = legal(state).numpy()
        yield state, masks
        if number is None or state.passes.numpy().max() >= 2:
            return
        points = np.flatnonzero(masks[0])
        state = play(state, to[:, points[number % len(points)]].astype(np.int32))


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=15, deadline=None)
@given(numbers=GAMES)
def test_symmetries_and_colours(name, numbers):
    rules, to, colours = RULES[name], images(), np.repeat([1, -1], 8)
    score = go.program(rules, "score")
    for state, masks in play_all(rules, numbers):
        stones = state.stones.numpy()
        assert (np.take_along_axis(masks, to, axis=1) == masks[0]).all()
        assert (np.take_along_axis(stones, to[:, :-1], axis=1) == colours[:, None] * stones[0]).all()
        np.testing.assert_array_equal(score(state), colours * score(state)[0].numpy())
        prisoners = state.prisoners.numpy()
        np.testing.assert_array_equal(prisoners[:8], np.tile(prisoners[0], (8, 1)))
        np.testing.assert_array_equal(prisoners[8:], np.tile(prisoners[0][::-1], (8, 1)))


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=15, deadline=None)
@given(numbers=GAMES)
def test_every_stone_is_somewhere_and_every_chain_breathes(name, numbers):
    rules, played, before = RULES[name], 0, None
    near = [[p for p in row if p < PASS] for row in go.neighbours(SIZE)]
    for state, masks in play_all(rules, numbers):
        stones, chain = state.stones.numpy()[0], state.chain.numpy()[0]
        if before is not None and state.passes.numpy()[0] == 0:
            played += 1
        before = state
        assert played == (stones != 0).sum() + state.prisoners.numpy()[0].sum()
        assert not masks[0][:-1][stones != 0].any()
        for point in np.flatnonzero(stones):
            friends = [p for p in near[point] if stones[p] == stones[point]]
            assert all(chain[p] == chain[point] for p in friends)
            group = np.flatnonzero((chain == chain[point]) & (stones != 0))
            assert any(stones[p] == 0 for member in group for p in near[member])


@settings(max_examples=15, deadline=None)
@given(numbers=GAMES)
def test_under_superko_no_position_comes_again(numbers):
    seen = set()
    for state, _ in play_all(RULES["superko, suicide"], numbers):
        if state.passes.numpy()[0] == 0:
            position = state.stones.numpy()[0].tobytes()
            assert position not in seen
            seen.add(position)
