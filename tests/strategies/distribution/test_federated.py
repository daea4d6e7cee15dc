import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from apps.common import workdir
from strategies.distribution import federated
from strategies.distribution.federated import Federated
from tests.strategies.distribution import replicas

BATCH, STEPS, RATE, MOMENTUM = 4, 3, 0.125, 0.5


def data():
    noise = np.random.default_rng(0)
    x = noise.normal(size=[61, 3])
    return x, x @ np.array([[1.0], [-2.0], [0.5]]) + 0.1 * noise.normal(size=[61, 1])


@pytest.fixture(autouse=True)
def double_precision():
    workdir.set_precision("float64")
    yield
    workdir.set_precision("float32")


def fit(strategy, *, rounds=6, optimizer=None, layer=None, slots=0.0):
    """(kernel before, kernel after, model)."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layer or keras.layers.Dense(1, use_bias=False, input_shape=[3])])
    model.compile(optimizer or keras.optimizers.SGD(RATE, momentum=MOMENTUM), "mse")
    model.optimizer.build(model.trainable_variables)
    for slot in (v for v in model.optimizer.variables if v.shape.rank):
        slot.assign(tf.fill(slot.shape, tf.constant(slots, slot.dtype)))
    before = model.get_weights()[0]
    stream = replicas.stream(*data(), BATCH)
    strategy.check(model, stream)
    strategy.fit(model, stream, start_step=0, total_steps=rounds * STEPS, verbose=0)
    return before, strategy.gather(model).get_weights()[0], model


def rounds_of(strategy, number, train=None):
    """The first rounds: [((x, y), examples of each client)]."""
    train = train or replicas.stream(*data(), BATCH)
    rows = federated.deal(np.zeros(train.num_examples), strategy._clients, 0.0, strategy._seed)
    joined = federated.joining_rounds(strategy._clients, strategy._late, number, strategy._seed)
    data_of = strategy._data(train, rows, joined, 0)
    assert data_of.options().autotune.enabled is False  # as of `apps.common.splits.Stream`
    return [((x.numpy(), y.numpy()), n.numpy()) for (x, y), n in data_of.take(number)]


def test_is_the_algorithm():
    strategy = Federated(clients=5, client_share=0.6, local_steps=STEPS, client_dropout=0.4, late_clients=0.4, seed=3)
    server, found, model = fit(strategy)
    survivors = []
    for (x, y), numbers in rounds_of(strategy, 6):
        ends = []
        for client_x, client_y in zip(x, y):
            local, velocity = server, 0.0
            for batch_x, batch_y in zip(client_x, client_y):
                gradient = 2 * batch_x.T @ (batch_x @ local - batch_y) / BATCH
                velocity = MOMENTUM * velocity - RATE * gradient
                local = local + velocity
            ends.append(local)
        if numbers.sum():
            server = np.tensordot(numbers / numbers.sum(), ends, 1)
        survivors.append(int((numbers > 0).sum()))
    np.testing.assert_allclose(found, server, rtol=1e-6)  # shares of clients are float32
    assert model.optimizer.iterations.numpy() == 6 * STEPS
    assert len(set(survivors)) > 1 and max(survivors) <= 3
    assert not any(v.numpy().any() for v in model.optimizer.variables if v.shape.rank)  # each client begins anew


def test_adam_begins_anew_with_each_client_and_its_rate_goes_on():
    strategy = Federated(clients=5, client_share=0.6, local_steps=STEPS, seed=3)
    schedule = keras.optimizers.schedules.InverseTimeDecay(0.1, 1, 0.5)
    # The slots are those of a run that another strategy began.
    server, found, model = fit(strategy, optimizer=keras.optimizers.Adam(schedule), slots=3.0)
    for number, ((x, y), examples) in enumerate(rounds_of(strategy, 6)):
        ends = []
        for client_x, client_y in zip(x, y):
            local, first, second = server, 0.0, 0.0
            for e, (batch_x, batch_y) in enumerate(zip(client_x, client_y)):
                gradient = 2 * batch_x.T @ (batch_x @ local - batch_y) / BATCH
                first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient ** 2
                rate = 0.1 / (1 + 0.5 * (number * STEPS + e)) * np.sqrt(1 - 0.999 ** (e + 1)) / (1 - 0.9 ** (e + 1))
                local = local - rate * first / (np.sqrt(second) + 1e-7)
            ends.append(local)
        server = np.tensordot(examples / examples.sum(), ends, 1)
    np.testing.assert_allclose(found, server, atol=1e-5)  # the rate is float32
    assert model.optimizer.iterations.numpy() == 6 * STEPS and model.optimizer._learning_rate is schedule


class Masked(keras.layers.Dense):
    """With a weight that no step changes, and one that each step changes, as a range."""

    def build(self, input_shape):
        super().build(input_shape)
        self.mask = self.add_weight(name="mask", shape=[3], initializer=keras.initializers.Constant(1 / 3),
                                    trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
        self.steps = self.add_weight(name="steps", initializer="zeros", trainable=False)

    def call(self, inputs):
        self.steps.assign_add(1.0)
        return super().call(inputs)


def test_what_clients_do_not_change_stays_as_it_is():
    """Such as masks, which are changed between rounds only: a mean of ones need not be one."""
    layer = Masked(1, use_bias=False, input_shape=[3])
    fit(Federated(clients=7, client_share=0.9, local_steps=STEPS), layer=layer)
    np.testing.assert_array_equal(layer.mask, np.full(3, 1 / 3))
    assert layer.steps.numpy() == pytest.approx(6 * STEPS)  # those of a client, not of all


def test_nobody_comes_back():
    before, after, _ = fit(Federated(clients=4, local_steps=STEPS, client_dropout=1.0))
    np.testing.assert_array_equal(before, after)


def test_rounds_do_not_depend_on_where_a_run_begins():
    strategy, train = Federated(clients=4, local_steps=2, client_dropout=0.3), replicas.stream(*data(), BATCH)
    rows = federated.deal(np.zeros(train.num_examples), 4, 0.0, 0)
    joined = np.zeros(4, int)
    later = next(iter(strategy._data(train, rows, joined, 2)))
    third = list(strategy._data(train, rows, joined, 0).take(3))[2]
    tf.nest.map_structure(np.testing.assert_array_equal, later, third)


def test_clients_use_their_own_examples_and_late_ones_come_late():
    train = replicas.stream(np.arange(60.0)[:, None], np.zeros([60, 1]), BATCH)
    strategy = Federated(clients=6, client_share=0.5, local_steps=2, late_clients=0.5, seed=1)
    rows = federated.deal(np.zeros(60), 6, 0.0, 1)
    joined = federated.joining_rounds(6, 0.5, 40, 1)
    assert sorted(joined > 0) == [False] * 3 + [True] * 3 and joined.max() <= 20
    owner = {example: client for client, own in enumerate(rows) for example in own.tolist()}
    seen = set()
    for number, ((x, _), numbers) in enumerate(strategy._data(train, rows, tf.constant(joined), 0).take(40)):
        for part, weight in zip(x.numpy(), numbers.numpy()):
            if weight:
                client, = {owner[int(example)] for example in part.ravel()}
                assert joined[client] <= number and weight == len(rows[client])
                seen.add(client)
    assert seen == set(range(6))


@pytest.mark.parametrize("skew, fewest, most", [(0.0, 9.5, 10), (0.5, 6, 9.6), (1.0, 2, 5)])
def test_examples_are_dealt_out(skew, fewest, most):
    labels = np.random.default_rng(0).integers(0, 10, 1000)
    rows = federated.deal(labels, 20, skew, seed=0)
    assert sorted(np.concatenate(rows).tolist()) == list(range(1000)) and min(map(len, rows)) >= federated.PIECES
    classes = np.mean([len(np.unique(labels[own])) for own in rows])
    sizes = [len(own) for own in rows]
    assert fewest <= classes <= most
    assert (max(sizes) - min(sizes) <= 2) == (skew == 0)


def test_bad_input():
    train = replicas.stream(*data(), BATCH)
    with pytest.raises(ValueError, match="--clients=40 need at least 80 training examples; received 61"):
        Federated(clients=40).check(None, train)
    with pytest.raises(ValueError, match="--local_steps=99: an epoch has 15 steps"):
        Federated(clients=4, local_steps=99).check(None, train)
    with pytest.raises(ValueError, match="these training data come in batches of similar lengths"):
        Federated(clients=4, local_steps=1).check(None, dataclasses.replace(train, examples=None))
    images = replicas.stream(np.zeros([20, 2]), np.zeros([20]), BATCH)
    with pytest.raises(ValueError, match="--client_skew deals examples out by their class"):
        Federated(clients=4, local_steps=1, client_skew=0.5).check(None, images)
