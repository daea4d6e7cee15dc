"""What the networks see of a game, and the eight symmetries of the board."""

import functools

import numpy as np
import tensorflow as tf

from apps.alphago.go import rules as go

NUM_ZERO_PLANES = 2 * go.HISTORY + 1
_LIBERTIES = np.arange(1, 4)
NUM_LIBERTY_PLANES = NUM_ZERO_PLANES + len(_LIBERTIES) + 1
NUM_SYMMETRIES = 8


def zero_planes(rules, state):
    """bool [B, N, N, 17]: input of AlphaGo Zero's network (Silver et al. 2017, Methods, "Neural network architecture").

    Stones of the side to move and of the other now, the same one move before, and so on for eight positions; the last
    plane says whether black is to move.
    """
    is_black = state.turn == go.BLACK
    black, white = state.history[:, :, 0], state.history[:, :, 1]
    own = tf.where(is_black[:, None, None], black, white)
    other = tf.where(is_black[:, None, None], white, black)
    stones = go.unpack(rules, tf.reshape(tf.stack([own, other], axis=2), [-1, 2 * go.HISTORY, rules.num_words]))
    planes = tf.concat([stones, tf.tile(is_black[:, None, None], [1, 1, rules.num_points])], axis=1)
    return tf.reshape(tf.transpose(planes, [0, 2, 1]), [-1, rules.size, rules.size, NUM_ZERO_PLANES])


def liberty_planes(rules, state):
    """bool [B, N, N, 21]: `zero_planes`, then stones of chains with one, two and three liberties, then all points.

    After Wu 2019, arXiv 1902.10565, appendix A: what a network of few layers cannot count over a long chain, and where
    the board ends.
    """
    taken = state.history[:, 0, 0] | state.history[:, 0, 1]
    words = tf.raw_ops.PopulationCount(x=state.reach & ~taken[:, None])
    counts = tf.where(state.stones == 0, 0, tf.reduce_sum(tf.cast(words, tf.int32), axis=2))
    more = tf.concat([counts[..., None] == _LIBERTIES, tf.ones_like(counts[..., None], tf.bool)], axis=2)
    return tf.concat([zero_planes(rules, state), tf.reshape(more, [-1, rules.size, rules.size, more.shape[2]])], axis=3)


@functools.cache
def symmetries(size):
    """int32 [8, P + 1]: where each point, and the pass, comes from under rotations and reflections.

    The board `points[symmetries(size)[i]]` is the i-th image of `points`; 0 is the board itself. Images 0 to 3 are
    turns to the left by a quarter, 4 to 7 the same of the board mirrored left to right.
    """
    grid = np.arange(size * size, dtype=np.int32).reshape(size, size)
    images = [np.rot90(board, turns) for board in (grid, np.fliplr(grid)) for turns in range(4)]
    return np.stack([np.append(image.ravel(), size * size) for image in images]).astype(np.int32)


@functools.cache
def inverse_symmetries(size):
    """int32 [8, P + 1]: the symmetries that undo those of `symmetries`."""
    return np.argsort(symmetries(size), axis=1).astype(np.int32)


def transform_planes(size, planes, symmetry):
    """Images of planes [B, N, N, C] under one symmetry each, int32 [B]."""
    flat = tf.reshape(planes, [-1, size * size, planes.shape[-1]])
    source = tf.gather(symmetries(size)[:, :-1], symmetry)
    return tf.reshape(tf.gather(flat, source, batch_dims=1), [-1, size, size, planes.shape[-1]])


def transform_moves(size, values, symmetry):
    """Images of a number for each move, [B, P + 1]."""
    return tf.gather(values, tf.gather(symmetries(size), symmetry), batch_dims=1)
