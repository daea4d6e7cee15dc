"""Recurrent cells that Keras does not have, and a network over trees.

Shapes: B batch, D features of an input, U units, N nodes of a tree, K children of a node at most.

The cells go into `keras.layers.RNN(cell)`. Gates are cut out by slices, not by `tf.split`, of which the TFLite
converter leaves some in floating point. What is read thrice in a loop is read through a reshape: three gradients
of one tensor would be added up in an order that TensorFlow's optimisation chooses anew for each graph, and replicas
could not be compared bit by bit.
"""

import numpy as np
import tensorflow as tf
import tf_keras as keras

from layers.checking import positive_integer
from layers.naming import NamedOnLoading


class _Cell(keras.layers.Layer):
    """A cell with two states, h and c, [B, U] each, and four gates side by side: input, forget, candidate, output."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = positive_integer("units", units)
        self.state_size = [self.units, self.units]
        self.output_size = self.units

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=[input_shape[-1], 4 * self.units],
                                      initializer="glorot_uniform")
        self.recurrent_kernel = self.add_weight(name="recurrent_kernel", shape=[self.units, 4 * self.units],
                                                initializer="orthogonal")
        self.bias = self.add_weight(name="bias", shape=[4 * self.units], initializer=_forget_bias(self.units, 1))
        self._build_more()
        super().build(input_shape)

    def build_from_config(self, config):
        """Nothing: the recurrent layer builds its cell, under its own name (see `NamedOnLoading`)."""

    def _gates(self, sums):
        """Input, forget, candidate and output part [B, U] of [B, 4U]."""
        return [sums[:, k * self.units:(k + 1) * self.units] for k in range(4)]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.utils.register_keras_serializable("usagi")
class PeepholeLSTMCell(_Cell):
    """An LSTM cell whose gates see its state (Gers & Schmidhuber 2000, "Recurrent nets that time and count", sec. 2).

        i = sigmoid(W_i x + U_i h + p_i * c + b_i)      f = sigmoid(W_f x + U_f h + p_f * c + b_f)
        c' = f * c + i * tanh(W_c x + U_c h + b_c)      o = sigmoid(W_o x + U_o h + p_o * c' + b_o)
        h' = o * tanh(c')

    The peepholes p are element-wise; the output gate looks at the new state, the others at the old one. The forget bias
    begins at 1. With p = 0 this is `keras.layers.LSTMCell`, whose weights have the same shapes and order.

    Args:
        units: U.

    Call arguments:
        inputs: [B, D], one time step.
        states: [h, c], [B, U] each.

    Returns:
        h' [B, U] and the new states [h', c'].

    Example:
        keras.layers.RNN(PeepholeLSTMCell(32), return_sequences=True)

    Raises:
        ValueError: units is not a positive integer.
    """

    def _build_more(self):
        # Rows: input, forget, output gate.
        self.peephole = self.add_weight(name="peephole", shape=[3, self.units], initializer="random_uniform")

    def call(self, inputs, states):
        hidden, cell = states
        i, f, g, o = self._gates(tf.matmul(inputs, self.kernel) + tf.matmul(hidden, self.recurrent_kernel) + self.bias)
        peephole = tf.convert_to_tensor(self.peephole)
        new = tf.sigmoid(f + peephole[1] * cell) * cell + tf.sigmoid(i + peephole[0] * cell) * tf.tanh(g)
        seen = new[:, None]  # [B, 1, U]
        output = tf.sigmoid(o[:, None] + peephole[2] * seen) * tf.tanh(seen)
        return output[:, 0], [output[:, 0], new]


@keras.utils.register_keras_serializable("usagi")
class LayerNormLSTMCell(_Cell):
    """An LSTM cell with layer normalisation (Ba et al. 2016, arXiv 1607.06450, equations 20-22).

        (i, f, g, o) = LN(U h; a_1) + LN(W x; a_2) + b
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(LN(c'; a_3, b_3))

    LN takes mean and variance over all 4U sums of a sample together, as the paper writes it, and over the U states; in
    float32 at least. The paper's offsets of the first two LN only add to b: b stands for all three. b begins at 0, but
    at 1 for the forget gate.

    Args:
        units: U.
        epsilon: added to the variance.

    Call arguments:
        inputs: [B, D], one time step.
        states: [h, c], [B, U] each.

    Returns:
        h' [B, U] and the new states [h', c'].

    Raises:
        ValueError: units is not a positive integer.
    """

    def __init__(self, units, *, epsilon=1e-5, **kwargs):
        super().__init__(units, **kwargs)
        self.epsilon = float(epsilon)

    def _build_more(self):
        for name, size in (("recurrent_gamma", 4 * self.units), ("kernel_gamma", 4 * self.units),
                           ("state_gamma", self.units)):
            setattr(self, name, self.add_weight(name=name, shape=[size], initializer="ones"))
        self.state_beta = self.add_weight(name="state_beta", shape=[self.units], initializer="zeros")

    def call(self, inputs, states):
        hidden, cell = states
        # The sums are centred, not the kernels, which could be done once: what compression makes of a kernel's values,
        # zeros or a grid, has to reach the file.
        sums = (self._normalized(tf.matmul(hidden, self.recurrent_kernel)) * self.recurrent_gamma
                + self._normalized(tf.matmul(inputs, self.kernel)) * self.kernel_gamma)
        i, f, g, o = self._gates(tf.nn.bias_add(sums, self.bias))
        new = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(g)
        output = tf.sigmoid(o) * tf.tanh(self._normalized(new) * self.state_gamma + self.state_beta)
        return output, [output, new]

    def _normalized(self, value):
        """`value` less its mean, over its standard deviation."""
        x = tf.expand_dims(tf.cast(value, tf.float64 if value.dtype == tf.float64 else tf.float32), 0)
        x -= tf.reduce_mean(x, axis=-1, keepdims=True)  # read through a reshape: see the head of this file
        variance = tf.reduce_mean(x * x, axis=-1, keepdims=True)  # the converter has no tf.square with 8 or 16 bits
        return tf.cast(tf.squeeze(x * tf.math.rsqrt(variance + self.epsilon), 0), value.dtype)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.utils.register_keras_serializable("usagi")
class TreeLSTM(NamedOnLoading, keras.layers.Layer):
    """Child-sum tree LSTM (Tai et al. 2015, arXiv 1503.00075, section 3.1, equations 2-8).

    With the children k of node j and s = sum_k h_k:

        i = sigmoid(W_i x_j + U_i s + b_i), o and the candidate u (tanh) likewise
        f_k = sigmoid(W_f x_j + U_f h_k + b_f), a forget gate for each child
        c_j = i * u + sum_k f_k * c_k           h_j = o * tanh(c_j)

    The trees of a batch may all differ: nodes stand in an order in which children come before their parent, and a
    tensor says where the children are. A chain (the child of node j is j - 1) is a network over a sequence. Nodes are
    computed one after another, all trees of the batch at once. The forget bias begins at 1.

    Args:
        units: U.
        return_nodes: whether the outputs of all nodes are returned, or those of the root: the last node that is used.
        unroll: write the steps one after another instead of a loop; N must be known then. Exports to a phone do that
            by themselves.

    Call arguments:
        nodes: [B, N, D].
        children: [B, N, K] integers, the indices of each node's children, -1 for none; or [N, K], when all trees have
            the same form. An index that is not before its node counts as a child of zeros.
        mask: [B, N], False for nodes that are padding, whose outputs are 0; or None.

    Returns:
        h of all nodes [B, N, U], or of the root [B, U].

    Raises:
        ValueError: units is no positive integer; `children` has another shape or dtype, or holds, where its values are
            known beforehand, a child that does not come before its parent.
    """

    def __init__(self, units, *, return_nodes=True, unroll=False, **kwargs):
        super().__init__(**kwargs)
        self.units = positive_integer("units", units)
        self.return_nodes = bool(return_nodes)
        self.unroll = bool(unroll)
        self.supports_masking = True

    def build(self, input_shape):
        # Gates: input, output, candidate, forget; the first three see the sum of the children.
        self.kernel = self.add_weight(name="kernel", shape=[input_shape[-1], 4 * self.units],
                                      initializer="glorot_uniform")
        self.recurrent_kernel = self.add_weight(name="recurrent_kernel", shape=[self.units, 3 * self.units],
                                                initializer="orthogonal")
        self.forget_kernel = self.add_weight(name="forget_kernel", shape=[self.units, self.units],
                                             initializer="orthogonal")
        self.bias = self.add_weight(name="bias", shape=[4 * self.units], initializer=_forget_bias(self.units, 3))
        super().build(input_shape)

    def call(self, nodes, children, mask=None):
        children = _checked_children(nodes, children)  # [B, N, K]
        number = nodes.shape[1] or tf.shape(nodes)[1]
        if self.unroll and nodes.shape[1] is None:
            raise ValueError(f"TreeLSTM(unroll=True) needs a known number of nodes; received shape {nodes.shape}. Pad "
                             "the trees to one size, or leave unroll out.")
        projected = tf.einsum("bnd,du->bnu", nodes, self.kernel) + self.bias  # [B, N, 4U]
        written = tf.ones_like(children[..., 0], tf.bool) if mask is None else tf.cast(mask, tf.bool)

        def step(j, hidden, cell):  # states [B, N, U]: zeros for the nodes that are still to come
            kids = tf.where(children[:, j] < j, children[:, j], -1)
            new_hidden, new_cell = self._node(projected[:, j], kids, hidden, cell)
            here = tf.logical_and(tf.equal(tf.range(number), j), written)[..., None]  # [B, N, 1]
            return (j + 1, tf.where(here, new_hidden[:, None], hidden), tf.where(here, new_cell[:, None], cell))

        state = tf.zeros_like(projected[..., :self.units])
        loop = (0, state, state)
        if self.unroll:
            for _ in range(number):
                loop = step(*loop)
        else:
            loop = tf.while_loop(lambda j, *_: j < number, step, loop, maximum_iterations=number)
        hidden = tf.ensure_shape(loop[1], [*nodes.shape[:2], self.units])
        return hidden if self.return_nodes else _root(hidden, None if mask is None else written)

    def _node(self, sums, children, hidden, cell):
        """h and c [B, U] of a node with sums W x + b [B, 4U] and children [B, K]."""
        units, exists = self.units, (children >= 0)[..., None]  # [B, K, 1]
        # A gather along the trees' own axis; absent children read node 0 and are cut away.
        children = tf.maximum(children, 0)
        h, c = (tf.where(exists, state, tf.zeros_like(state)) for state in
                (tf.gather(hidden, children, batch_dims=1), tf.gather(cell, children, batch_dims=1)))  # [B, K, U]
        gates = sums[:, :3 * units] + tf.matmul(tf.reduce_sum(h, axis=1), self.recurrent_kernel)
        i, o, u = (gates[:, k * units:(k + 1) * units] for k in range(3))
        f = tf.sigmoid(sums[:, None, 3 * units:] + tf.einsum("bku,uv->bkv", h, self.forget_kernel))
        new = tf.sigmoid(i) * tf.tanh(u) + tf.reduce_sum(f * c, axis=1)
        return tf.sigmoid(o) * tf.tanh(new), new

    def compute_mask(self, inputs, mask=None):
        return mask if self.return_nodes else None

    def get_config(self):
        return {**super().get_config(), "units": self.units, "return_nodes": self.return_nodes, "unroll": self.unroll}


def _checked_children(nodes, children):
    """`children` as a tensor [B, N, K] of int32; see `TreeLSTM` for the errors."""
    known = None if tf.is_tensor(children) and not hasattr(children, "numpy") else np.asarray(children)
    children = tf.convert_to_tensor(children)
    if not children.dtype.is_integer or children.shape.rank not in (2, 3) or nodes.shape.rank != 3:
        raise ValueError("TreeLSTM takes nodes [B, N, D] and whole numbers children [B, N, K] or [N, K]; received "
                         f"nodes {nodes.shape} and children {children.shape} of {children.dtype.name}.")
    if not nodes.shape[1:2].is_compatible_with(children.shape[-2:-1]):
        raise ValueError(f"children must have a row for each node; received {nodes.shape[1]} nodes and "
                         f"{children.shape[-2]} rows of children. Pad rows with -1.")
    if known is not None and (known >= np.arange(known.shape[-2])[:, None]).any():
        *_, node, child = np.argwhere(known >= np.arange(known.shape[-2])[:, None])[0]
        raise ValueError(f"Children must come before their parent; received child {known[..., node, child].max()} of "
                         f"node {node}. Sort the nodes so that the root is the last.")
    children = tf.cast(children, tf.int32)
    return children if children.shape.rank == 3 else tf.tile(children[None], [tf.shape(nodes)[0], 1, 1])


def _root(hidden, used):
    """The last used node [B, U] of [B, N, U]; zeros when none is used."""
    if used is None:
        return hidden[:, -1]
    later = tf.cumsum(tf.cast(used, tf.int32), axis=1, reverse=True)
    last = tf.logical_and(used, later == 1)[..., None]
    return tf.reduce_sum(tf.where(last, hidden, tf.zeros_like(hidden)), axis=1)


def _forget_bias(units, place):
    """Initial value of four gates' biases [4U]: 1 for the one at `place`, 0 elsewhere."""
    return keras.initializers.Constant(np.repeat(np.eye(4)[place], units))
