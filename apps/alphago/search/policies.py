"""Which action a search tries next, and what it has found in the end.

`Puct` is the search of AlphaGo Zero (Silver et al. 2017, Methods, "Select") with the exploration rate of AlphaZero
(Silver et al. 2018, pseudocode, where Q lies between 0 and 1; here it lies between -1 and 1, so that the same rate
explores half as much). `Gumbel` is Gumbel AlphaZero (Danihelka et al. 2022): sequential halving over sampled actions at
the root, and below it the action that brings visits nearest to the improved policy.
"""

import functools

import numpy as np
import tensorflow as tf

FIRST_PLAYS = ("parent", "zero")
_NEVER = np.float32(-np.inf)


class Puct:
    """argmax of Q + c(N) P √N / (1 + n), where N are the visits of the node and n those of the action.

    With no visits √N counts as 1, so that the first action is the most probable one.

    Args:
        exploration: c of few visits.
        growth: c(N) = exploration + log((N + growth + 1) / growth).
        first_play: Q of an action that was not tried: "zero", as in AlphaGo Zero, or "parent": the node's mean value
            less `reduction` √(probability of all that were tried).
        reduction: see there.
        noise: float32 [B, A] or None: Dirichlet noise, which takes the part `noise_share` of the root's prior.
        noise_share: ε.
    """

    def __init__(self, *, exploration=1.25, growth=19652.0, first_play="zero", reduction=0.2, noise=None,
                 noise_share=0.25):
        self._exploration, self._growth, self._first_play = exploration, growth, first_play
        self._reduction, self._noise, self._share = reduction, noise, noise_share

    def scores(self, rows, at_root):
        """float32 [B, A], the largest of which is to be tried; minus infinity for illegal actions."""
        prior = rows.prior
        if self._noise is not None:
            mixed = tf.where(prior < 0, prior, (1 - self._share) * prior + self._share * self._noise)
            prior = tf.where(at_root[:, None], mixed, prior)
        number = tf.reduce_sum(rows.visits, axis=1, keepdims=True)
        rate = self._exploration + tf.math.log((number + self._growth + 1) / self._growth)
        explore = rate * prior * tf.sqrt(tf.maximum(number, 1)) / (1 + rows.visits)
        value = tf.where(rows.visits > 0, rows.total / tf.maximum(rows.visits, 1), self._unknown(rows, number))
        return tf.where(prior < 0, _NEVER, value + explore)

    def _unknown(self, rows, number):
        if self._first_play == "zero":
            return tf.zeros_like(number)
        tried = tf.reduce_sum(tf.where(rows.visits > 0, rows.prior, 0), axis=1, keepdims=True)
        mean = (rows.value[:, None] + tf.reduce_sum(rows.total, axis=1, keepdims=True)) / (1 + number)
        return mean - self._reduction * tf.sqrt(tried)

    @staticmethod
    def target(rows):
        """float32 [B, A]: what the network is to learn, the shares of the root's visits."""
        return rows.visits / tf.maximum(tf.reduce_sum(rows.visits, axis=1, keepdims=True), 1)

    @staticmethod
    def choose(rows, temperature, noise):
        """int32 [B]: an action drawn in proportion to visits^(1 / temperature); 0: the most visited.

        Args:
            rows: `Rows` of the roots.
            temperature: float32 [B].
            noise: float32 [B, A], of the Gumbel distribution.
        """
        visited = rows.visits > 0
        logits = tf.where(visited, tf.math.log(tf.maximum(rows.visits, 1)), _NEVER)
        cold = temperature[:, None] == 0
        scaled = logits / tf.where(cold, 1.0, temperature[:, None]) + tf.where(cold, 0.0, noise)
        return tf.argmax(scaled, axis=1, output_type=tf.int32)


    @staticmethod
    def value(rows):
        """float32 [B]: the mean of what the visits found, for the side to move."""
        return tf.reduce_sum(rows.total, axis=1) / tf.maximum(tf.reduce_sum(rows.visits, axis=1), 1)


class Gumbel:
    """Sequential halving at the root.

    Args:
        noise: float32 [B, A], of the Gumbel distribution; zeros for play without chance.
        num_simulations: visits that the root gets in all.
        num_considered: actions that the root begins with.
        visit_offset, scale: σ(q) = (visit_offset + most visits of an action) · scale · q, q in [0, 1] (section 3.4).
    """

    def __init__(self, *, noise, num_simulations, num_considered=16, visit_offset=50.0, scale=1.0):
        self._noise, self._considered = noise, num_considered
        self._offset, self._scale = visit_offset, scale
        self._schedule = schedule(num_considered, num_simulations)

    def scores(self, rows, at_root):
        """As of `Puct`."""
        legal, improved = rows.prior >= 0, self._improved_logits(rows)
        number = tf.reduce_sum(rows.visits, axis=1, keepdims=True)
        policy = tf.nn.softmax(tf.where(legal, improved, improved.dtype.min))
        below = policy - rows.visits / (1 + number)
        actions = tf.minimum(tf.reduce_sum(tf.cast(legal, tf.int32), axis=1), self._considered)
        turn = tf.minimum(tf.cast(number[:, 0], tf.int32), self._schedule.shape[1] - 1)
        wanted = tf.gather_nd(self._schedule, tf.stack([actions, turn], axis=1))
        root = self._among(rows, wanted, improved)
        return tf.where(legal, tf.where(at_root[:, None], root, below), _NEVER)

    def target(self, rows):
        """float32 [B, A]: the improved policy, softmax(logits + σ(completed q)) (equation 11)."""
        legal, improved = rows.prior >= 0, self._improved_logits(rows)
        return tf.where(legal, tf.nn.softmax(tf.where(legal, improved, improved.dtype.min)), 0)

    def value(self, rows):
        """float32 [B]: the improved policy's, sum of target · completed q, for the side to move. The mean over visits
        is lower: sequential halving visits moves that it is to find bad."""
        return tf.reduce_sum(self.target(rows) * (2 * self._completed(rows) - 1), axis=1)

    def choose(self, rows, temperature=None, noise=None):
        """int32 [B]: of the most visited actions the one with the largest noise + logit + σ(q)."""
        most = tf.reduce_max(rows.visits, axis=1)
        scores = self._among(rows, most, self._improved_logits(rows))
        return tf.argmax(tf.where(rows.prior >= 0, scores, _NEVER), axis=1, output_type=tf.int32)

    def _among(self, rows, wanted, improved):
        return tf.where(rows.visits == tf.cast(wanted, tf.float32)[:, None], self._noise + improved, _NEVER)

    def _improved_logits(self, rows):
        most = tf.reduce_max(rows.visits, axis=1, keepdims=True)
        improved = rows.logits + (self._offset + most) * self._scale * self._completed(rows)
        return tf.where(rows.prior >= 0, improved, _NEVER)

    @staticmethod
    def _completed(rows):
        """q [B, A] in [0, 1], of moves that were not tried the mixed value (appendix D)."""
        tried = rows.visits > 0
        value = rows.total / tf.maximum(rows.visits, 1)
        number = tf.reduce_sum(rows.visits, axis=1)
        weight = tf.where(tried, tf.maximum(rows.prior, 1e-30), 0)
        mean = tf.reduce_sum(weight * value, axis=1) / tf.maximum(tf.reduce_sum(weight, axis=1), 1e-30)
        mixed = (rows.value + number * tf.where(number > 0, mean, 0)) / (1 + number)
        return (tf.where(tried, value, mixed[:, None]) + 1) / 2


@functools.cache
def schedule(num_considered, num_simulations):
    """int32 [num_considered + 1, num_simulations]: how often the action that the root tries next was tried before.

    Row m is for m actions: sequential halving (Karnin et al. 2013) in which each phase goes round all that are left.
    """
    table = np.zeros([num_considered + 1, num_simulations], np.int32)
    for actions in range(num_considered + 1):
        if actions <= 1:
            table[actions] = np.arange(num_simulations)
            continue
        phases, left, turns, tried = int(np.ceil(np.log2(actions))), actions, [], [0] * actions
        while len(turns) < num_simulations:
            for _ in range(max(1, num_simulations // (phases * left))):
                turns += tried[:left]
                tried[:left] = [number + 1 for number in tried[:left]]
            left = max(2, left // 2)
        table[actions] = turns[:num_simulations]
    return table
