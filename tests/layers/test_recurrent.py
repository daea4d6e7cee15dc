"""`layers.recurrent` against NumPy loops, Keras' own LSTM and finite differences."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from layers.recurrent import LayerNormLSTMCell, PeepholeLSTMCell, TreeLSTM
from tests.layers.differences import check_gradient

RNG = np.random.default_rng
UNITS = 3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def randomized(layer, seed=1):
    """The layer, built, with weights of which none is special."""
    layer.set_weights([RNG(seed + i).normal(scale=0.5, size=w.shape) for i, w in enumerate(layer.get_weights())])
    return layer


def network(cell, features=5, **options):
    layer = keras.layers.RNN(cell, return_sequences=True, dtype="float64", **options)
    layer(np.zeros([1, 2, features]))
    return randomized(layer)


def peephole_reference(x, kernel, recurrent, bias, peephole):
    """One sequence [T, D], unit by unit."""
    h, c, outputs = np.zeros(UNITS), np.zeros(UNITS), []
    for frame in x:
        new_h, new_c = np.zeros(UNITS), np.zeros(UNITS)
        for u in range(UNITS):
            i, f, g, o = (frame @ kernel[:, k * UNITS + u] + h @ recurrent[:, k * UNITS + u] + bias[k * UNITS + u]
                          for k in range(4))
            kept = sigmoid(f + peephole[1, u] * c[u]) * c[u]
            new_c[u] = kept + sigmoid(i + peephole[0, u] * c[u]) * np.tanh(g)
            new_h[u] = sigmoid(o + peephole[2, u] * new_c[u]) * np.tanh(new_c[u])
        h, c = new_h, new_c
        outputs.append(h)
    return np.stack(outputs)


def layer_norm_reference(x, kernel, recurrent, bias, recurrent_gamma, kernel_gamma, state_gamma, state_beta):
    """One sequence [T, D], as equations 20-22 stand."""
    def norm(v):
        return (v - np.mean(v)) / np.sqrt(np.var(v) + 1e-5)

    h, c, outputs = np.zeros(UNITS), np.zeros(UNITS), []
    for frame in x:
        sums = norm(recurrent.T @ h) * recurrent_gamma + norm(kernel.T @ frame) * kernel_gamma + bias
        i, f, g, o = sums.reshape(4, UNITS)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(norm(c) * state_gamma + state_beta)
        outputs.append(h)
    return np.stack(outputs)


@pytest.mark.parametrize("cell, reference", [(PeepholeLSTMCell, peephole_reference),
                                             (LayerNormLSTMCell, layer_norm_reference)])
@pytest.mark.parametrize("unroll", [False, True])
def test_cells_equal_numpy(cell, reference, unroll):
    x = RNG(0).normal(size=(2, 6, 5))
    layer = network(cell(UNITS, dtype="float64"), unroll=unroll)
    expected = [reference(row, *layer.get_weights()) for row in x]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-10, atol=1e-12)


def test_without_peepholes_it_is_an_lstm():
    x = RNG(0).normal(size=(2, 6, 5))
    stock = keras.layers.LSTM(UNITS, return_sequences=True, dtype="float64")
    expected = stock(x)
    layer = network(PeepholeLSTMCell(UNITS, dtype="float64"))
    layer.set_weights([*stock.get_weights(), np.zeros([3, UNITS])])
    np.testing.assert_allclose(layer(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", [PeepholeLSTMCell, LayerNormLSTMCell])
def test_forget_bias_is_one(cell):
    cell = cell(2)
    cell.build([None, 5])
    np.testing.assert_array_equal(cell.bias, [0, 0, 1, 1, 0, 0, 0, 0])


@pytest.mark.parametrize("cell", [PeepholeLSTMCell, LayerNormLSTMCell])
def test_masked_steps_leave_the_state(cell):
    x = RNG(0).normal(size=(2, 6, 5))
    layer = network(cell(UNITS, dtype="float64"))
    mask = np.array([[True] * 4 + [False] * 2, [True] * 6])
    other = np.where(mask[..., None], x, 99.0)
    np.testing.assert_array_equal(layer(x, mask=mask), layer(other, mask=mask))
    np.testing.assert_allclose(layer(x, mask=mask)[0, 5], layer(x[:1, :4])[0, -1], rtol=1e-12)


@pytest.mark.parametrize("cell", [PeepholeLSTMCell, LayerNormLSTMCell])
def test_gradients_of_cells_equal_finite_differences(cell):
    layer = network(cell(UNITS, dtype="float64"))
    check_gradient(layer, RNG(0).normal(size=(2, 3, 5)))


def random_trees(batch, number, arity, seed=0):
    """children [B, N, K] of random trees, each node with one parent at most, and the mask [B, N]: tree b uses N - b
    nodes."""
    rng, children = RNG(seed), np.full((batch, number, arity), -1)
    mask = np.arange(number) < number - np.arange(batch)[:, None]
    for b in range(batch):
        count = number - b
        for child in range(count - 1):
            free = [(p, k) for p in range(child + 1, count) for k in range(arity) if children[b, p, k] < 0]
            if free:
                children[(b, *free[rng.integers(len(free))])] = child
    return children, mask


def tree_reference(x, children, node, weights):
    """h and c of a node, by recursion from the leaves."""
    kernel, recurrent, forget, bias = weights
    below = [tree_reference(x, children, k, weights) for k in children[node] if k >= 0]
    total = np.sum([h for h, _ in below], axis=0) if below else np.zeros(UNITS)
    i, o, u, f = np.split(x[node] @ kernel + bias, 4)
    more = np.split(total @ recurrent, 3)
    c = sigmoid(i + more[0]) * np.tanh(u + more[2])
    for child_h, child_c in below:
        c = c + sigmoid(f + child_h @ forget) * child_c
    return sigmoid(o + more[1]) * np.tanh(c), c


def tree_layer(features=5, **options):
    layer = TreeLSTM(UNITS, dtype="float64", **options)
    layer.build([None, None, features])
    return randomized(layer)


@pytest.mark.parametrize("unroll", [False, True])
def test_random_trees_equal_recursion(unroll):
    x = RNG(0).normal(size=(4, 9, 5))
    children, mask = random_trees(4, 9, 3)
    layer = tree_layer(unroll=unroll)
    found = layer(x, children, mask=mask).numpy()
    for b in range(4):
        for node in range(9):
            expected = tree_reference(x[b], children[b], node, layer.get_weights())[0] if mask[b, node] else 0
            np.testing.assert_allclose(found[b, node], expected, rtol=1e-10, atol=1e-12)
    roots = tree_layer(unroll=unroll, return_nodes=False)
    np.testing.assert_array_equal(roots(x, children, mask=mask), [found[b, 8 - b] for b in range(4)])
    np.testing.assert_allclose(roots(x[:1], children[:1]), found[:1, 8], rtol=1e-12)


def test_a_chain_is_an_lstm():
    x = RNG(0).normal(size=(2, 6, 5))
    layer = tree_layer()
    kernel, recurrent, forget, bias = (np.split(w, w.shape[-1] // UNITS, axis=-1) for w in layer.get_weights())
    stock = keras.layers.LSTM(UNITS, return_sequences=True, dtype="float64")
    stock(x)
    order = (0, 3, 2, 1)  # Keras: input, forget, candidate, output
    recurrent = [*recurrent, *forget]
    stock.set_weights([np.concatenate([parts[k] for k in order], axis=-1) for parts in (kernel, recurrent, bias)])
    chain = np.arange(6)[:, None] - 1
    np.testing.assert_allclose(layer(x, chain), stock(x), rtol=1e-10, atol=1e-12)


def test_the_order_of_children_does_not_matter():
    x = RNG(0).normal(size=(2, 8, 5))
    children, _ = random_trees(2, 8, 3)
    layer = tree_layer()
    np.testing.assert_allclose(layer(x, children[:, :, ::-1]), layer(x, children), rtol=1e-12)


def test_padding_of_trees_changes_nothing():
    x = RNG(0).normal(size=(3, 7, 5))
    children, mask = random_trees(3, 7, 2)
    layer = tree_layer()
    other = np.where(mask[..., None], x, 99.0)
    np.testing.assert_array_equal(layer(other, children, mask=mask), layer(x, children, mask=mask))
    assert not layer(x, children, mask=mask).numpy()[~mask].any()


@pytest.mark.parametrize("unroll", [False, True])
def test_children_that_do_not_come_before_their_node_are_none(unroll):
    """Where their values are not known beforehand; else they are an error."""
    x = RNG(0).normal(size=(1, 4, 5))
    wrong = np.array([[[1, -1], [0, 9], [2, 1], [0, 3]]])
    layer = tree_layer(unroll=unroll)
    found = tf.function(lambda *inputs: layer(*inputs))(tf.constant(x), tf.constant(wrong))
    np.testing.assert_array_equal(found, layer(x, np.where(wrong < np.arange(4)[:, None], wrong, -1)))


def test_trees_in_a_model_of_open_size():
    nodes, children = keras.Input((None, 5)), keras.Input((None, 2), dtype="int32")
    layer = TreeLSTM(UNITS)
    model = keras.Model([nodes, children], layer(keras.layers.Masking()(nodes), children))
    x = RNG(0).normal(size=(3, 7, 5)).astype("float32")
    trees, mask = random_trees(3, 7, 2)
    np.testing.assert_allclose(model([x * mask[..., None], trees]), layer(x, trees, mask=mask), atol=1e-6)


def test_gradient_of_trees_equals_finite_differences():
    children, mask = random_trees(2, 4, 2)
    check_gradient(lambda x: layer(x, children, mask=mask), RNG(0).normal(size=(2, 4, 5)), layer := tree_layer())


@pytest.mark.parametrize("call, message", [
    (lambda: PeepholeLSTMCell(0), "units must be a positive integer; received 0"),
    (lambda: LayerNormLSTMCell(2.5), "units must be a positive integer; received 2.5"),
    (lambda: TreeLSTM("3"), "units must be a positive integer; received '3'"),
    (lambda: TreeLSTM(3)(np.zeros((2, 4, 5)), np.zeros((2, 4, 2))), "whole numbers children.*received.*float64"),
    (lambda: TreeLSTM(3)(np.zeros((2, 4, 5)), np.zeros(4, int)), "TreeLSTM takes nodes.*children \\(4,\\)"),
    (lambda: TreeLSTM(3)(np.zeros((2, 4, 5)), np.full((2, 3, 2), -1)), "received 4 nodes and 3 rows of children"),
    (lambda: TreeLSTM(3)(np.zeros((1, 3, 5)), [[-1], [2], [1]]), "before their parent; received child 2 of node 1"),
    (lambda: TreeLSTM(3)(np.zeros((1, 2, 5)), tf.constant([[[-1], [1]]])), "received child 1 of node 1.*root is"),
    (lambda: TreeLSTM(3, unroll=True)(keras.Input((None, 5)), keras.Input((None, 2), dtype="int32")),
     "unroll=True\\) needs a known number of nodes"),
])
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
