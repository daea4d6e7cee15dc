import numpy as np
import pytest
import tensorflow as tf

from apps.alphago import replay, selfplay
from apps.alphago.go import rules as go
from tests.apps.alphago.test_selfplay import KINDS, RULES, programs


def random_games(kind, number, seed=0):
    game, new_state, *_ = programs(kind)
    noise, played = np.random.default_rng(seed), []
    for _ in range(number):
        state, record = new_state(1), selfplay.PlayedGame()
        while not game.result(state)[0].numpy()[0]:
            legal = np.flatnonzero(game.legal(state).numpy()[0])
            record.actions.append(int(noise.choice(legal)))
            record.full.append(bool(noise.random() < 0.5))
            record.values.append(float(noise.uniform(-1, 1)))
            target = np.zeros(game.num_actions, np.float16)
            target[record.actions[-1]] = 1
            record.targets.append(target)
            state = game.step(state, tf.constant([record.actions[-1]]))
        record.result = float(game.result(state)[1].numpy()[0]) * (1 if len(record.actions) % 2 == 0 else -1)
        played.append(record)
    return played


def expected_positions(kind, games):
    """{(planes, action, value), ...} of all moves to learn from."""
    game, new_state, *_ = programs(kind)
    found = []
    for record in games:
        states = [new_state(1)]
        for action in record.actions:
            states.append(game.step(states[-1], tf.constant([action])))
        for number, (action, full) in enumerate(zip(record.actions, record.full)):
            if full:
                side = 1 if number % 2 == 0 else -1
                planes = game.observe(states[number]).numpy()[0].astype(bool).tobytes()
                found.append((planes, action, record.result * side, *expected_outcome(kind, states[-1], side)))
    return found


def expected_outcome(kind, state, side):
    """(ownership as bytes, score) for the side that black is, +1, or white, -1; nothing in other games than Go."""
    if kind != "go":
        return ()
    owner = go.ownership(RULES, state).numpy()[0]
    return (owner * side).astype(np.float32).tobytes(), float(owner.sum() - RULES.komi) * side


def sampled(store, number=3000):
    planes, targets = store.sample(number, np.random.default_rng(0))
    assert {part.dtype for part in (planes, *targets.values())} == {np.dtype(np.float32)}
    rows = [planes.astype(bool), targets["policy"].argmax(1), targets["value"][:, 0]]
    if "score" in targets:
        rows += [targets["ownership"] + 0.0, targets["score"][:, 0]]  # -0.0 has other bits than 0.0
    return {(p.tobytes(), int(a), float(v), *((o[0].tobytes(), float(o[1])) if o else ()))
            for p, a, v, *o in zip(*rows)}


@pytest.mark.parametrize("kind, number", [("tic_tac_toe", 30), ("go", 4)])
def test_what_comes_out_is_what_was_played(tmp_path, kind, number):
    games = random_games(kind, number)
    store = replay.Replay(tmp_path / "games", *KINDS[kind], window=10**6)
    store.add(games[:2])
    store.add(games[2:])
    expected = expected_positions(kind, games)
    assert len(store) == len(expected) and store.num_games == number
    assert sampled(store) == set(expected)
    again = replay.Replay(tmp_path / "games", *KINDS[kind], window=10**6)
    assert sampled(again) == set(expected) and again.num_games == number
    np.testing.assert_array_equal(again.sample(5, np.random.default_rng(1))[0],
                                  store.sample(5, np.random.default_rng(1))[0])


def test_lambda_returns(tmp_path):
    games, share = random_games("tic_tac_toe", 10), 0.75
    store = replay.Replay(tmp_path, *KINDS["tic_tac_toe"], window=10**6, value_lambda=share)
    store.add(games)
    expected = set()
    for game in games:
        # Of the n-step returns with the weights (1 - lambda) lambda^n (Sutton & Barto, equation 12.2).
        own = [value * (-1) ** number for number, value in enumerate(game.values)]  # for the side that moved first
        for number, full in enumerate(game.full):
            left = own[number:]
            value = sum((1 - share) * share**n * each for n, each in enumerate(left)) + share ** len(left) * game.result
            if full:
                expected.add(round(value * (-1) ** number, 2))
    found = {round(row[2], 2) for row in sampled(store)}
    assert all(min(abs(a - b) for b in expected) < 0.011 for a in found)
    assert all(min(abs(a - b) for b in found) < 0.011 for a in expected)


def test_the_window(tmp_path):
    games = random_games("tic_tac_toe", 40)
    store = replay.Replay(tmp_path, *KINDS["tic_tac_toe"], window=30)
    for start in range(0, 40, 5):
        store.add(games[start:start + 5])
    newest = replay.Replay(tmp_path, *KINDS["tic_tac_toe"], window=30)
    assert sampled(newest) == sampled(store) and len(store) == len(newest) == 30
    assert sampled(store) <= set(expected_positions("tic_tac_toe", games[20:]))
    assert len(list(tmp_path.glob("*.npz"))) == 8


def test_a_window_that_grows(tmp_path):
    games = random_games("tic_tac_toe", 20)
    store = replay.Replay(tmp_path, *KINDS["tic_tac_toe"], window=10)
    store.add(games[:10])
    assert len(store) == 10
    store.window = 40
    assert len(store) == 10
    store.add(games[10:12])
    assert len(store) == 10 + sum(games[10].full + games[11].full) < 40
    store.window = 20
    store.add(games[12:])
    assert len(store) == 20 and sampled(store) <= set(expected_positions("tic_tac_toe", games[12:]))


def test_a_flipped_bit_is_found(tmp_path):
    games, lines = random_games("tic_tac_toe", 12), []
    store = replay.Replay(tmp_path, *KINDS["tic_tac_toe"], window=10**6)
    for start in range(0, 12, 4):
        store.add(games[start:start + 4])
    path = sorted(tmp_path.glob("*.npz"))[1]
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1:])
        lines.clear()
        found = replay.Replay(tmp_path, *KINDS["tic_tac_toe"], window=10**6, report=lines.append)
        # A bit of what zip files say twice, or not at all, changes nothing that is read.
        assert lines and path.name in lines[0] or sampled(found) == set(expected_positions("tic_tac_toe", games))
        if lines:
            assert sampled(found) == set(expected_positions("tic_tac_toe", games[:4] + games[8:]))
        assert found.num_games == 12
    path.write_bytes(whole[:len(whole) // 2])
    replay.Replay(tmp_path, *KINDS["tic_tac_toe"], window=10**6, report=lines.append)
    assert path.name in lines[-1] and "passed over" in lines[-1]
