"""Simulations: down the tree to a leaf, its evaluation, and its value back up."""

import tensorflow as tf

from apps.alphago.search import tree as tree_lib
from apps.alphago.search.tree import at, put


def search(game, network, policy, tree, num_simulations):
    """Trees after more simulations.

    Args:
        game: `Game`.
        network: observation -> (logits [B, A], value [B]).
        policy: `Puct` or `Gumbel`.
        tree: `Tree`. One that is full grows no more, and its leaf is evaluated again.
        num_simulations: for each tree, int or scalar tensor.
    """
    return tf.while_loop(lambda i, tree: i < num_simulations,
                         lambda i, tree: (i + 1, simulate(game, network, policy, tree)), (0, tree))[1]


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


def back_up(tree, node, action, value, wanted):
    """Trees with a value [B] added along the way from an edge to the root; it is for the side that chose the edge."""
    def step(node, action, value, live, visits, total):
        node_or_none = tf.where(live, node, tree.capacity)
        visits = tree_lib.add(visits, node_or_none, action, tf.ones_like(value))
        total = tree_lib.add(total, node_or_none, action, value)
        above = at(tree.parent, node)
        return (tf.maximum(above, 0), tf.maximum(at(tree.action, node), 0), -value, live & (above >= 0), visits, total)

    *_, visits, total = tf.while_loop(lambda node, action, value, live, visits, total: tf.reduce_any(live), step,
                                      (node, action, value, wanted, tree.visits, tree.total))
    return tree._replace(visits=visits, total=total)
