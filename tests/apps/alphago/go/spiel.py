"""Random games in step with open_spiel's Go, compared after every move."""

import typing

import numpy as np

from apps.alphago.go import rules as go


class Compared(typing.NamedTuple):
    """How much was compared: positions, with their legal moves and stones, and scores of games that ended."""

    positions: int
    judged: int


def compare(size, number, seed=None):
    """Plays `number` random games on a board of `size`.

    Args:
        size: of the board.
        number: of games.
        seed: of the moves; None: the size.

    Returns:
        `Compared`.

    Raises:
        AssertionError: the two differ.
    """
    import pyspiel

    rules = go.Rules(size=size, komi=7.5, max_moves=2 * size**2)
    play, legal, score, is_over = (go.program(rules, name) for name in ("play", "legal", "score", "over"))
    game = pyspiel.load_game(f"go(board_size={size},komi=7.5,max_game_length={rules.last_move})")
    theirs, state = [game.new_initial_state() for _ in range(number)], go.new(rules, number)
    flip = np.append(np.arange(size * size).reshape(size, size)[::-1].ravel(), size * size)  # their rows begin below
    noise, compared, judged = np.random.default_rng(size if seed is None else seed), 0, 0
    live = np.ones(number, bool)
    while live.any():
        masks, stones = legal(state).numpy(), state.stones.numpy()
        moves = np.full(number, size * size, np.int32)
        for index in np.flatnonzero(live):
            expected = np.zeros(size * size + 1, bool)
            expected[flip[theirs[index].legal_actions()]] = True
            np.testing.assert_array_equal(masks[index], expected)
            planes = np.array(theirs[index].observation_tensor()).reshape(4, -1)[:, flip[:-1]]
            np.testing.assert_array_equal(stones[index], planes[0] - planes[1])
            moves[index] = noise.choice(np.flatnonzero(expected)) if noise.random() > 0.01 else size * size
            theirs[index].apply_action(int(flip[moves[index]]))
            compared += 1
        state = play(state, moves)
        over, scores = is_over(state).numpy(), score(state).numpy()
        for index in np.flatnonzero(live):
            if theirs[index].is_terminal():
                live[index] = False  # also where a position came again, which is legal under simple ko
                if over[index]:
                    assert theirs[index].returns()[0] == np.sign(scores[index])
                    judged += 1
            assert not over[index] or not live[index]
    return Compared(compared, judged)
