"""The games that a search can play: Go, and tic-tac-toe to learn and test with."""

import typing

import numpy as np
import tensorflow as tf

from apps.alphago.go import features
from apps.alphago.go import rules as go
from apps.alphago.search.tree import Game

PLANES = {features.NUM_ZERO_PLANES: features.zero_planes, features.NUM_LIBERTY_PLANES: features.liberty_planes}
_LINES = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]])


def go_game(rules, margin_share=0.0, *, planes=features.NUM_ZERO_PLANES, first_pass=0, losing_pass=1.0):
    """Go under `apps.alphago.go.rules.Rules`, seen as planes [B, N, N, C], float32.

    Args:
        rules: see there.
        margin_share: part m of a game's value that the margin makes: (1 - m) sign(margin) + m margin / points, at most
            1. With some, who has won or lost goes on playing well. Below a half, so that a win is always above 0.
        planes: C, 17 for AlphaGo Zero's or 21 for `features.liberty_planes`.
        first_pass: a search considers no pass before so many moves, where a stone can be played.
        losing_pass: nor one that would end the game and lose it, unless the network's value is less than this. A search
            that has to try that answer to a pass finds the pass better than it is.

    Its outcomes are "ownership" [B, N, N, 1], -1, 0 or 1, and "score" [B, 1], points.
    """
    seen = PLANES[planes]

    def result(state):
        over = go.over(rules, state)
        margin = go.score(rules, state, over)
        part = tf.clip_by_value(margin / rules.num_points, -1.0, 1.0)
        black = (1 - margin_share) * tf.sign(margin) + margin_share * part
        return over, tf.where(over, black * tf.cast(state.turn, tf.float32), 0)

    def outcome(state):
        turn = tf.cast(state.turn, tf.float32)
        owner = tf.cast(tf.reshape(go.ownership(rules, state), [-1, rules.size, rules.size, 1]), tf.float32)
        return {"ownership": owner * turn[:, None, None, None], "score": (go.score(rules, state) * turn)[:, None]}

    def sensible(state, legal, value):
        early, asked = state.moves < first_pass, state.passes == 1
        margin = go.score(rules, state, asked) * tf.cast(state.turn, tf.float32)
        gives_up = asked & (margin < 0) & (value >= losing_pass)
        passes = ~(early | gives_up) | ~tf.reduce_any(legal[:, :-1], axis=1)
        return tf.concat([legal[:, :-1], passes[:, None]], axis=1)

    considered = {"sensible": sensible} if first_pass or losing_pass < 1 else {}
    return Game(num_actions=rules.num_points + 1, step=lambda state, action: go.play(rules, state, action),
                legal=lambda state: go.legal(rules, state), result=result,
                observe=lambda state: tf.cast(seen(rules, state), tf.float32), outcome=outcome,
                **considered)


class Marks(typing.NamedTuple):
    """Games of tic-tac-toe: `own` and `other` are the marks of the side to move and of the other, bool [B, 9]."""

    own: tf.Tensor
    other: tf.Tensor


def tic_tac_toe():
    """Tic-tac-toe, seen as planes [B, 3, 3, 2] of own and other marks, float32."""
    def step(marks, action):
        return Marks(marks.other, marks.own | tf.one_hot(action, 9, True, False))

    def result(marks):
        lost = tf.reduce_any(tf.reduce_all(tf.gather(marks.other, _LINES, axis=1), axis=2), axis=1)
        full = tf.reduce_all(marks.own | marks.other, axis=1)
        return lost | full, tf.where(lost, -1.0, 0.0)

    def observe(marks):
        return tf.cast(tf.reshape(tf.stack([marks.own, marks.other], axis=2), [-1, 3, 3, 2]), tf.float32)

    return Game(num_actions=9, step=step, legal=lambda marks: ~(marks.own | marks.other), result=result,
                observe=observe)


def empty_marks(batch):
    """`batch` games of tic-tac-toe before the first move."""
    return Marks(tf.zeros([batch, 9], tf.bool), tf.zeros([batch, 9], tf.bool))
