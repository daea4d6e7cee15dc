"""Search trees of a batch of games as arrays, so that a whole search is one program for XLA.

Shapes: B games, N nodes, A actions. Node 0 is the root. One more node than there is room for stands at the end of every
array: what need not be kept is written there.

All values are for the side to move at their node; sides alternate.
"""

import typing

import tensorflow as tf

NOBODY = -1
ILLEGAL = -1.0  # in place of a prior probability


class Game(typing.NamedTuple):
    """What a search knows of a game: functions of batches of its states.

    Attributes:
        num_actions: A.
        step: (state, action int32 [B]) -> state.
        legal: state -> bool [B, A].
        result: state -> (over bool [B], value float32 [B] for the side to move, which counts where it is over).
        observe: state -> input of the network.
        sensible: (state, legal bool [B, A], the network's value float32 [B]) -> bool [B, A]: the legal moves that a
            search considers.
        outcome: what else a network may learn from the last position of a game: state -> {name: float32 [B, ...]} for
            the side to move; the other side has the negative.
    """

    num_actions: int
    step: typing.Callable
    legal: typing.Callable
    result: typing.Callable
    observe: typing.Callable
    sensible: typing.Callable = lambda state, legal, value: legal
    outcome: typing.Callable = lambda state: {}


class Tree(typing.NamedTuple):
    """Search trees.

    Attributes:
        size: int32 [B], nodes in use.
        parent: int32 [B, N + 1], -1 for the root.
        action: int32 [B, N + 1], the action that led to a node.
        child: int32 [B, N + 1, A], -1 where an action has not been tried.
        prior: float32 [B, N + 1, A], the network's probabilities, -1 for actions that are illegal or not considered.
        logits: float32 [B, N + 1, A], the network's logits.
        visits: float32 [B, N + 1, A], how often an action was searched.
        total: float32 [B, N + 1, A], sum of the values that came back, for the side that chose the action.
        value: float32 [B, N + 1], the network's value, or the result where the game is over.
        over: bool [B, N + 1].
        state: states of the game, each part [B, N + 1, ...].
    """

    size: tf.Tensor
    parent: tf.Tensor
    action: tf.Tensor
    child: tf.Tensor
    prior: tf.Tensor
    logits: tf.Tensor
    visits: tf.Tensor
    total: tf.Tensor
    value: tf.Tensor
    over: tf.Tensor
    state: typing.Any

    @property
    def capacity(self):
        """N."""
        return self.parent.shape[1] - 1


class Rows(typing.NamedTuple):
    """One node of each tree: the rows of `Tree` of the same names, [B, A], and `value`, [B]."""

    prior: tf.Tensor
    logits: tf.Tensor
    visits: tf.Tensor
    total: tf.Tensor
    value: tf.Tensor


def plant(game, network, state, capacity):
    """Trees of a root each, evaluated.

    Args:
        game: `Game`.
        network: observation -> (logits float32 [B, A], value float32 [B]).
        state: states of the game, each part [B, ...].
        capacity: N.
    """
    logits, prior, value, over = evaluate(game, network, state)
    batch, actions, room = value.shape[0], game.num_actions, capacity + 1

    def first(row, fill=0):
        rest = tf.fill([batch, capacity, *row.shape[1:]], tf.cast(fill, row.dtype))
        return tf.concat([row[:, None], rest], axis=1)

    nothing = tf.zeros([batch, room, actions])
    return Tree(
        size=tf.ones([batch], tf.int32), parent=tf.fill([batch, room], NOBODY), action=tf.fill([batch, room], NOBODY),
        child=tf.fill([batch, room, actions], NOBODY), prior=first(prior, ILLEGAL), logits=first(logits),
        visits=nothing, total=nothing, value=first(value), over=first(over),
        state=tf.nest.map_structure(first, state))


def without_visits(tree):
    """Trees whose roots were not searched yet; what lies below them stays."""
    others = (tf.range(tree.capacity + 1) > 0)[:, None]
    return tree._replace(visits=tf.where(others, tree.visits, 0), total=tf.where(others, tree.total, 0))


def without_children(tree, wanted):
    """Trees of which the `wanted`, bool [B], are left with their root alone, not searched yet."""
    nothing = tf.zeros_like(tree.visits)
    bare = tree._replace(
        size=tf.ones_like(tree.size), parent=tf.fill(tree.parent.shape, NOBODY),
        action=tf.fill(tree.action.shape, NOBODY), child=tf.fill(tree.child.shape, NOBODY), visits=nothing,
        total=nothing)
    return select(wanted, bare, tree)


def evaluate(game, network, state):
    """(logits [B, A], prior [B, A], value [B], over [B]) of states."""
    logits, value = network(game.observe(state))
    legal = game.sensible(state, game.legal(state), value)
    over, result = game.result(state)
    prior = tf.where(legal, tf.nn.softmax(tf.where(legal, logits, logits.dtype.min)), ILLEGAL)
    return logits, prior, tf.where(over, result, value), over


def rows(tree, node):
    """`Rows` of the nodes int32 [B]."""
    return Rows(*(at(part, node) for part in (tree.prior, tree.logits, tree.visits, tree.total, tree.value)))


def at(part, node):
    """Rows [B, ...] of nodes int32 [B] of an array [B, N, ...]."""
    return tf.gather(part, node, batch_dims=1)


def put(part, node, row):
    """An array [B, N, ...] with other rows at nodes int32 [B]."""
    if row.shape[1:].num_elements() == 0:
        return part
    return tf.tensor_scatter_nd_update(part, _places(node), row)


def add(part, node, action, number):
    """An array [B, N, A] with numbers [B] added at (node, action)."""
    return tf.tensor_scatter_nd_add(part, _places(node, action), number)


def select(wanted, new, old):
    """Of two nests of parts [B, ...] or [1, ...]: the games of `new` where `wanted`, bool [B], else those of `old`."""
    def part(new, old):
        return tf.where(tf.reshape(wanted, [-1] + [1] * (len(old.shape) - 1)), new, old)

    return tf.nest.map_structure(part, new, old)


def _places(*indices):
    return tf.stack([tf.range(indices[0].shape[0]), *indices], axis=1)


def replant(tree, action):
    """Trees whose roots are the children that actions lead to; what lies below them is kept, and nothing else.

    Args:
        tree: `Tree`.
        action: int32 [B]; -1 leaves a tree as it is.

    Returns:
        (Tree, bool [B]: whether the child was there). Where it was not, the tree means nothing: plant a new one.
    """
    batch, room = tree.parent.shape
    root = tf.where(action < 0, 0, at(at(tree.child, tf.zeros([batch], tf.int32)), tf.maximum(action, 0)))
    there, root = root >= 0, tf.maximum(root, 0)

    # A node stays when its way up meets the new root. Ways are halved each time: `up` is 1, 2, 4, ... nodes above.
    own = tf.range(room)[None]
    parents = tf.where(own == root[:, None], own, tree.parent)
    up = tf.where(parents < 0, 0, parents)  # the old root is its own parent, and so is the new one
    for _ in range((room - 1).bit_length()):
        up = tf.gather(up, up, batch_dims=1)
    stays = (up == root[:, None]) & (own < tree.size[:, None])
    place = tf.where(stays, tf.cumsum(tf.cast(stays, tf.int32), axis=1) - 1, NOBODY)  # the order stays: root first
    size = tf.reduce_sum(tf.cast(stays, tf.int32), axis=1)
    source = tf.argsort(tf.where(stays, own, own + room), axis=1)  # old numbers, those that stay first

    def move(part):
        return tf.gather(part, source, batch_dims=1)

    def renumber(numbers):
        flat = tf.reshape(numbers, [batch, -1])
        return tf.reshape(tf.where(flat < 0, NOBODY, tf.gather(place, tf.maximum(flat, 0), batch_dims=1)),
                          numbers.shape)

    used = own < size[:, None]
    edges = used[..., None]
    parent = tf.where(used & (own > 0), renumber(move(tree.parent)), NOBODY)
    return Tree(
        size=size, parent=parent, action=tf.where(own > 0, move(tree.action), NOBODY),
        child=tf.where(edges, renumber(move(tree.child)), NOBODY), prior=move(tree.prior), logits=move(tree.logits),
        visits=tf.where(edges, move(tree.visits), 0), total=tf.where(edges, move(tree.total), 0),
        value=move(tree.value), over=move(tree.over), state=tf.nest.map_structure(move, tree.state)), there
