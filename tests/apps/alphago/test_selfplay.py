import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from apps.alphago import games, selfplay
from apps.alphago.go import rules as go

RULES = go.Rules(size=5, komi=0.5, max_moves=40)
KINDS = {"tic_tac_toe": (games.tic_tac_toe(), games.empty_marks),
         "go": (games.go_game(RULES), functools.partial(go.new, RULES))}
SETTINGS = selfplay.Settings(games=6, simulations=32, fast_simulations=8, full_share=0.5, alpha=1.0, sampled_moves=4,
                             opening_moves=3, interval=4)
GUMBEL = dataclasses.replace(SETTINGS, policy="gumbel", simulations=12)


def network(observation):
    batch = observation.shape[0]
    mixed = tf.sin(tf.reshape(observation, [batch, -1]) @ tf.constant(
        np.random.default_rng(0).normal(size=[np.prod(observation.shape[1:]), 27]) * 5, tf.float32))
    return mixed[:, :9 if observation.shape[1] == 3 else 26], mixed[:, 26]


@functools.cache
def programs(kind, settings=SETTINGS):
    """(game, new_state, begin, advance), the last two compiled."""
    game, new_state = KINDS[kind]
    begin, advance = (tf.function(functools.partial(function, game, network, settings, new_state), jit_compile=True)
                      for function in (selfplay.begin, selfplay.advance))
    single = game._replace(**{name: tf.function(getattr(game, name), jit_compile=True)
                              for name in ("step", "legal", "result", "observe")})
    return single, new_state, begin, advance


def played(kind, chunks, seed=3, moments=8, settings=SETTINGS):
    """(games that ended, all `Moves`)."""
    game, _, begin, advance = programs(kind, settings)
    seed_tensor = tf.constant(seed, tf.int64)
    play, noise = begin(seed_tensor), np.random.default_rng(seed)
    collector, ended, everything = selfplay.Collector(SETTINGS.games), [], []
    for _ in range(chunks):
        gammas = noise.gamma(SETTINGS.alpha, size=[moments, SETTINGS.games, game.num_actions]).astype("float32")
        play, moves = advance(play, gammas, seed_tensor)
        everything.append(moves)
        ended += collector.add(moves)
    assert advance.experimental_get_tracing_count() == 1
    return ended, everything


@pytest.mark.parametrize("kind, chunks, settings", [("tic_tac_toe", 12, SETTINGS), ("go", 30, SETTINGS),
                                                    ("tic_tac_toe", 6, GUMBEL),
                                                    pytest.param("go", 10, GUMBEL, marks=pytest.mark.conformance)])
def test_games(kind, chunks, settings):
    game, new_state, *_ = programs(kind)
    ended, everything = played(kind, chunks, settings=settings)
    assert len(ended) >= 10
    for record in ended:  # each is a legal game, and its result is that of its last position
        state = new_state(1)
        for number, (action, target) in enumerate(zip(record.actions, record.targets)):
            legal = game.legal(state).numpy()[0]
            assert legal[action] and not game.result(state)[0].numpy()[0]
            assert (target[~legal] == 0).all() and abs(target.sum() - 1) < 1e-2
            if not settings.is_gumbel:
                assert target[action] > 0
                if number >= SETTINGS.sampled_moves:
                    assert target[action] == target.max()
            state = game.step(state, tf.constant([action]))
        over, value = (part.numpy()[0] for part in game.result(state))
        assert over and record.result == value * (1 if len(record.actions) % 2 == 0 else -1)
    full = [flag for record in ended for flag in record.full]
    assert 0.25 < np.mean(full) < (0.95 if settings.is_gumbel else 0.75)
    first = [[record.full[number] for record in ended] for number in range(4)]
    assert np.mean(first[0]) < 0.45 and np.mean(first[0]) < np.mean(first[3])  # a quarter has no opening
    assert len({record.actions[0] for record in ended}) > 0.25 * game.num_actions
    assert len({tuple(record.actions) for record in ended}) > (0.6 if settings.is_gumbel else 0.8) * len(ended)
    for first, again in zip(everything, played(kind, 4, settings=settings)[1]):
        for a, b in zip(first, again):
            np.testing.assert_array_equal(a, b)
    other = played(kind, 2, seed=4, settings=settings)[1]
    assert any((a.action.numpy() != b.action.numpy()).any() for a, b in zip(everything, other))
