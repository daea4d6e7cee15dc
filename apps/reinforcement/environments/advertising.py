"""Which advert to show to whom: a contextual bandit in which the best choice is known.

A visitor has shares of five interests, e_i^2 / sum e^2 with e exponentially distributed. He clicks on an advert with
the probability sum_i share_i x rate_i, of the advert's row of `RATES`: linear in the context, as LinUCB assumes (Li et
al. 2010, equation 2). The reward is 1 for a click.
"""

import numpy as np
import tensorflow as tf

from apps.reinforcement.environments import bandit as bandits
from apps.reinforcement.environments.environment import uniform
from apps.reinforcement.trajectories import Spec

INTERESTS = ("sport", "travel", "music", "cooking", "games")
ADVERTS = ("running shoes", "flights", "concerts", "knives", "consoles", "vouchers")
RATES = np.array([  # by interest; vouchers please everybody a little
    [0.22, 0.06, 0.02, 0.03, 0.05],
    [0.05, 0.24, 0.06, 0.05, 0.02],
    [0.02, 0.05, 0.20, 0.02, 0.06],
    [0.03, 0.04, 0.02, 0.18, 0.01],
    [0.04, 0.01, 0.05, 0.01, 0.26],
    [0.09, 0.09, 0.09, 0.09, 0.09]], np.float32)


def bandit():
    """The `Bandit`; nothing differs from run to run but the visitors."""
    def context(parameters, seed):
        interest = -tf.math.log(1 - uniform([parameters.shape[0], len(INTERESTS)], seed))
        # All numbers 0, once in 10^36 visitors, would be a visitor without interests.
        weights = interest**2 + np.float32(1e-12)
        return weights / tf.reduce_sum(weights, axis=1, keepdims=True)

    return bandits.Bandit("advertising", len(ADVERTS), len(INTERESTS), lambda batch, seed: tf.zeros([batch]), context,
                          lambda parameters, context: tf.matmul(context, RATES, transpose_b=True), "bernoulli")


def advertising():
    """The environment: an episode is a visitor. Observations are the shares, float32 [B, 5]; actions int32 [B]."""
    made = bandits.environment(bandit(), draw=_draw)
    return made._replace(observation_spec=Spec((len(INTERESTS),), tf.float32, 0.0, 1.0))


def _draw(state):
    """A visitor as text."""
    return "\n".join(f"{name:8s} {'#' * round(40 * float(share))}" for name, share in zip(INTERESTS, state[1]))
