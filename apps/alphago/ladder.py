"""Matches between two networks, all games at once: how much stronger the newer one is."""

import dataclasses

import numpy as np
import tensorflow as tf

from apps.alphago.search import policies, simulate
from apps.alphago.search import tree as trees


@dataclasses.dataclass(frozen=True)
class Score:
    """Games of a against b, from the view of a."""

    wins: int
    draws: int
    losses: int

    @property
    def share(self):
        """Points of a, a draw as half a point, over games."""
        return (self.wins + self.draws / 2) / (self.wins + self.draws + self.losses)


class Match:
    """A program that plays games between networks of one structure.

    Each opening, drawn from the search's visits, is played twice, with sides changed; after it both sides play their
    most visited move, each from a new tree.

    Args:
        game: `Game`.
        new_state: number -> states of so many new games.
        bind: weights -> network, `networks.Evaluator.bound` of any of the networks that are to play.
        games: B, even.
        simulations: for each move.
        opening_moves: that are drawn, at most; openings have different lengths.
    """

    def __init__(self, game, new_state, bind, *, games, simulations, opening_moves=6):
        if games < 2 or games % 2:
            raise ValueError(f"A match has an even number of games, each opening twice; received {games}.")
        self._game, self._new_state, self._bind, self._half = game, new_state, bind, games // 2
        self._simulations, self._opening_moves = simulations, opening_moves
        self._choose = tf.function(self._choice, jit_compile=True)
        self._step = tf.function(self._stepped, jit_compile=True)

    def play(self, a, b, seed=0):
        """`Score` of evaluator a against evaluator b, `networks.Evaluator`s of one structure."""
        noise = np.random.default_rng(seed)
        weights = [a.values, b.values]
        opening, length = self._new_state(self._half), noise.integers(0, self._opening_moves + 1, self._half)
        over = np.zeros(self._half, bool)  # an opening in which both pass is a draw: nobody has played it alone
        for number in range(self._opening_moves):
            action = self._choose(weights[number % 2], opening, *self._drawn(noise, 1.0))
            opening, ended, _ = self._step(opening, action, tf.constant((number < length) & ~over))
            over |= ended.numpy()
        sides = [opening, opening]  # in the first half a moves next, in the second b
        results = [np.zeros(self._half), np.zeros(self._half)]
        running = [~over, ~over]
        ply = 0
        while np.any(running):
            for half in range(2):
                mover = (half + ply) % 2
                action = self._choose(weights[mover], sides[half], *self._drawn(noise, 0.0))
                sides[half], over, value = self._step(sides[half], action, tf.constant(running[half]))
                ended = running[half] & over.numpy()
                sign = 1 if mover == 1 else -1  # the value is for who moves next
                results[half][ended] = sign * value.numpy()[ended]
                running[half] &= ~ended
            ply += 1
        result = np.concatenate(results)
        return Score(int((result > 0).sum()), int((result == 0).sum()), int((result < 0).sum()))

    def _drawn(self, noise, temperature):
        gumbel = noise.gumbel(size=[self._half, self._game.num_actions]).astype(np.float32)
        return tf.constant(gumbel), tf.fill([self._half], temperature)

    def _choice(self, weights, state, gumbel, temperature):
        network = self._bind(weights)
        tree = trees.plant(self._game, network, state, self._simulations + 1)
        tree = simulate.search(self._game, network, policies.Puct(first_play="parent"), tree,
                               self._simulations)
        roots = trees.rows(tree, tf.zeros([self._half], tf.int32))
        return policies.Puct.choose(roots, temperature, gumbel)

    def _stepped(self, state, action, moves):
        """(state after the action where the game moves, over, value for who is to move then)."""
        state = trees.select(moves, self._game.step(state, action), state)
        return state, *self._game.result(state)
