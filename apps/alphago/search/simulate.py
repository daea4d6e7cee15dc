"""Simulations: down the tree to a leaf, its evaluation, and its value back up."""

import typing

import numpy as np
import tensorflow as tf

from apps.alphago.search import tree as tree_lib
from apps.alphago.search.tree import at, put

_LOSS = -1.0


class Leaves(typing.NamedTuple):
    """Positions of K simulations of each tree that wait for their evaluation.

    Attributes:
        node, action: int32 [B, K], the edges that lead to them.
        wanted: bool [B], which trees take part.
        state: states of the game, each part [B K, ...].
    """

    node: tf.Tensor
    action: tf.Tensor
    wanted: tf.Tensor
    state: typing.Any


def search(game, network, policy, tree, num_simulations, leaves=1, wanted=None):
    """Trees after more simulations.

    Args:
        game: `Game`.
        network: observation -> (logits [B, A], value [B]).
        policy: `Puct` or `Gumbel`.
        tree: `Tree`. One that is full grows no more, and its leaf is evaluated again.
        num_simulations: for each tree, int or scalar tensor; a multiple of `leaves`.
        leaves: K, simulations of each tree whose positions go through the network together: faster where there are few
            trees, but a simulation does not know what the others of its round found.
        wanted: bool [B], which trees take part; None: all.
    """
    def one(tree):
        if leaves == 1:
            return simulate(game, network, policy, tree, wanted)
        return simulate_together(game, network, policy, tree, leaves, wanted)

    return tf.while_loop(lambda i, tree: i < num_simulations, lambda i, tree: (i + leaves, one(tree)), (0, tree))[1]


def simulate(game, network, policy, tree, wanted=None):
    """Trees after one more simulation.

    Args:
        wanted: bool [B], which trees take part; None: all. Those whose game is over never do.
    """
    node, action, wanted = descend(policy, tree, wanted)
    batch = tf.range(node.shape[0])
    known = tf.gather_nd(tree.child, tf.stack([batch, node, action], axis=1))
    state = game.step(tf.nest.map_structure(lambda part: at(part, node), tree.state), action)
    logits, prior, value, over = tree_lib.evaluate(game, network, state)
    fresh = wanted & (known < 0) & (tree.size < tree.capacity)
    place = tf.where(fresh, tree.size, tree.capacity)
    leaf = tf.stack([batch, tf.where(fresh, node, tree.capacity), action], axis=1)
    tree = tree._replace(
        size=tree.size + tf.cast(fresh, tf.int32), parent=put(tree.parent, place, node),
        action=put(tree.action, place, action), child=tf.tensor_scatter_nd_update(tree.child, leaf, place),
        prior=put(tree.prior, place, prior), logits=put(tree.logits, place, logits),
        value=put(tree.value, place, value), over=put(tree.over, place, over),
        state=tf.nest.map_structure(lambda part, row: put(part, place, row), tree.state, state))
    return back_up(tree, node, action, -value, wanted)


def simulate_together(game, network, policy, tree, leaves, wanted=None):
    """Trees after K more simulations, evaluated together."""
    tree, found = choose_leaves(game, policy, tree, leaves, wanted)
    return take_back(game, network, tree, found)


def choose_leaves(game, policy, tree, leaves, wanted=None):
    """The first half of K simulations: the ways down.

    Each way counts as lost until its value is known ("virtual loss", Chaslot et al. 2008), so that the next one looks
    elsewhere. Ways that meet all the same share one node.

    Returns:
        (trees that know of the losses, `Leaves`).
    """
    batch, columns = tree.size.shape[0], tf.zeros([tree.size.shape[0], leaves], tf.int32)
    wanted = ~tree.over[:, 0] if wanted is None else wanted & ~tree.over[:, 0]

    def way_down(k, nodes, actions, tree):
        node, action, _ = descend(policy, tree)
        tree = back_up(tree, node, action, tf.fill([batch], _LOSS), wanted, alternates=False)
        column = tf.range(leaves) == k
        return k + 1, tf.where(column, node[:, None], nodes), tf.where(column, action[:, None], actions), tree

    _, nodes, actions, tree = tf.while_loop(lambda k, *_: k < leaves, way_down, (0, columns, columns, tree))
    state = tf.nest.map_structure(lambda part: _merge(tf.gather(part, nodes, batch_dims=1)), tree.state)
    return tree, Leaves(nodes, actions, wanted, game.step(state, _merge(actions)))


def take_back(game, network, tree, found):
    """The second half: the leaves' evaluation, and their values on the way up in place of the losses."""
    leaves = found.node.shape[1]
    rows, state = tf.nest.map_structure(lambda part: _part(part, leaves),
                                        (tree_lib.evaluate(game, network, found.state), found.state))
    tree = _attach(tree, found.node, found.action, found.wanted, *rows, state)
    value = rows[2]

    def way_up(k, tree):
        return k + 1, back_up(tree, found.node[:, k], found.action[:, k], -value[:, k], found.wanted, visits=0.0,
                              offset=-_LOSS)

    return tf.while_loop(lambda k, tree: k < leaves, way_up, (0, tree))[1]


def _attach(tree, nodes, actions, wanted, logits, prior, value, over, state):
    """Trees with children [B, K, ...] below nodes int32 [B, K], each once and where there is room."""
    batch, leaves = nodes.shape
    games = tf.repeat(tf.range(batch)[:, None], leaves, axis=1)
    known = tf.gather_nd(tree.child, tf.stack([games, nodes, actions], axis=-1))
    same = (nodes[:, :, None] == nodes[:, None]) & (actions[:, :, None] == actions[:, None])
    first = ~tf.reduce_any(same & np.tri(leaves, k=-1, dtype=bool), axis=2)
    fresh = wanted[:, None] & first & (known < 0)
    place = tree.size[:, None] + tf.cumsum(tf.cast(fresh, tf.int32), axis=1) - 1
    fresh &= place < tree.capacity
    place = tf.where(fresh, place, tree.capacity)

    def put_all(part, rows):
        if rows.shape[2:].num_elements() == 0:
            return part
        return tf.tensor_scatter_nd_update(part, tf.stack([games, place], axis=-1), rows)

    edge = tf.stack([games, tf.where(fresh, nodes, tree.capacity), actions], axis=-1)
    return tree._replace(
        size=tree.size + tf.reduce_sum(tf.cast(fresh, tf.int32), axis=1), parent=put_all(tree.parent, nodes),
        action=put_all(tree.action, actions), child=tf.tensor_scatter_nd_update(tree.child, edge, place),
        prior=put_all(tree.prior, prior), logits=put_all(tree.logits, logits), value=put_all(tree.value, value),
        over=put_all(tree.over, over), state=tf.nest.map_structure(put_all, tree.state, state))


def _merge(part):
    """[B, K, ...] -> [B K, ...]."""
    return tf.reshape(part, [-1, *part.shape[2:]])


def _part(part, leaves):
    """[B K, ...] -> [B, K, ...]."""
    return tf.reshape(part, [-1, leaves, *part.shape[1:]])


def descend(policy, tree, wanted=None):
    """The edge that each tree is searched at next.

    Returns:
        (node int32 [B], action int32 [B], bool [B]: which trees take part): the action leads to no node yet, or to one
        where the game is over, or to one that there was no room for.
    """
    begin = tf.zeros([tree.size.shape[0]], tf.int32)
    wanted = ~tree.over[:, 0] if wanted is None else wanted & ~tree.over[:, 0]

    def choose(node):
        scores = policy.scores(tree_lib.rows(tree, node), node == 0)
        action = tf.argmax(scores, axis=1, output_type=tf.int32)
        child = tf.gather(at(tree.child, node), action, batch_dims=1)
        goes_on = wanted & (child >= 0) & ~at(tree.over, tf.maximum(child, 0))
        return action, child, goes_on

    def step(node, action, child, goes_on):
        node = tf.where(goes_on, child, node)
        new_action, new_child, new_goes_on = choose(node)
        return (node, tf.where(goes_on, new_action, action), tf.where(goes_on, new_child, child),
                goes_on & new_goes_on)

    node, action, _, _ = tf.while_loop(lambda node, action, child, goes_on: tf.reduce_any(goes_on), step,
                                       (begin, *choose(begin)))
    return node, action, wanted


def back_up(tree, node, action, value, wanted, *, visits=1.0, offset=0.0, alternates=True):
    """Trees with a value added along the way from an edge to the root.

    Args:
        tree: `Tree`.
        node, action: int32 [B], the edge.
        value: float32 [B], for the side that chose the edge.
        wanted: bool [B], which trees take part.
        visits: added to every edge on the way.
        offset: added to the value on every edge.
        alternates: whether the value changes sign from edge to edge.
    """
    sign = -1.0 if alternates else 1.0

    def step(node, action, value, live, counts, total):
        node_or_none = tf.where(live, node, tree.capacity)
        if visits:
            counts = tree_lib.add(counts, node_or_none, action, tf.fill(value.shape, visits))
        total = tree_lib.add(total, node_or_none, action, value + offset)
        above = at(tree.parent, node)
        return (tf.maximum(above, 0), tf.maximum(at(tree.action, node), 0), sign * value, live & (above >= 0), counts,
                total)

    *_, counts, total = tf.while_loop(lambda node, action, value, live, counts, total: tf.reduce_any(live), step,
                                      (node, action, value, wanted, tree.visits, tree.total))
    return tree._replace(visits=counts, total=total)
