"""What a coordinator proves in a cluster of processes: `python -m tests.strategies.distribution.on_cluster NAME`, run
as every member by the supervisor. Exits with 0 when it holds."""

import sys

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.common import splits
from strategies import cluster, distribution, export
from strategies.distribution import asynchronous
from tests.strategies.distribution import replicas

TIMEOUT = 60.0
RATE, STEPS, BATCH = 0.125, 24, 4  # the rate is exact in every precision


def data():
    noise = np.random.default_rng(0)
    x = noise.normal(size=[48, 3]).astype("float64")
    return x, x @ np.array([[1.0], [-2.0], [0.5]]) + 0.1 * noise.normal(size=[48, 1])


def fitted(strategy, optimizer, *, loss="mse", steps=STEPS, callbacks=()):
    """(model, initial kernel) of a linear regression after some steps."""
    keras.backend.set_floatx("float64")
    stream = replicas.stream(*data(), BATCH)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Dense(1, use_bias=False, input_shape=[3], name="dense")])
        model.compile(optimizer, loss)
        model.optimizer.build(model.trainable_variables)
    strategy.check(model, stream)
    initial = model.get_weights()[0]
    strategy.fit(model, stream, start_step=0, total_steps=steps, callbacks=callbacks, verbose=0)
    return model, initial


def downpour():
    """One worker is an exact Downpour replica: local steps, a push every 2 steps, a fetch every 3."""
    n_push, n_fetch = 2, 3
    strategy = distribution.create("async", n_push=n_push, n_fetch=n_fetch, cluster_timeout=TIMEOUT)
    model, server = fitted(strategy, keras.optimizers.SGD(RATE))
    batches = [(x.numpy(), y.numpy()) for x, y in replicas.stream(*data(), BATCH)().take(STEPS)]
    accrued = 0.0
    for step, (x, y) in enumerate(batches):
        if step % n_fetch == 0:
            local = server
        gradient = 2 * x.T @ (x @ local - y) / BATCH
        accrued, local = accrued + gradient, local - RATE * gradient
        if (step + 1) % n_push == 0:
            server, accrued = server - RATE * accrued, 0.0
    np.testing.assert_allclose(strategy.gather(model).get_weights()[0], server, rtol=1e-12)
    assert model.optimizer.iterations.numpy() == STEPS


def one_worker():
    """One worker's updates are never stale, so it is sequential SGD, with momentum, decay and schedule."""
    def optimizer():
        rate = keras.optimizers.schedules.PolynomialDecay(RATE, STEPS, 0.0)
        return keras.optimizers.SGD(rate, momentum=0.9, weight_decay=0.01)

    strategy = distribution.create("async", max_staleness=0, cluster_timeout=TIMEOUT)
    model, _ = fitted(strategy, optimizer())
    expected, _ = fitted(distribution.create("single"), optimizer())
    np.testing.assert_allclose(model.get_weights()[0], expected.get_weights()[0], rtol=1e-12)


def downpour_evaluates():
    """Copies of the weights stay in their step: moving statistics and metrics are read from the servers after it."""
    strategy = distribution.create("async", n_push=2, n_fetch=2, cluster_timeout=TIMEOUT)
    stream, logs = replicas.stream(*data(), BATCH), Logs()
    with strategy.scope():
        model = keras.Sequential([keras.layers.BatchNormalization(input_shape=[3]), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.01), "mse", metrics=["mae"])
        model.optimizer.build(model.trainable_variables)
    x, y = data()
    evaluation = splits.evaluation_stream(48, 8, lambda index: (tf.gather(x, index), tf.gather(y, index)))
    strategy.fit(model, stream, start_step=0, total_steps=STEPS, validation=evaluation, callbacks=[logs], verbose=0)
    plain = strategy.gather(model)
    plain.compile(loss="mse", metrics=["mae"])
    for name, value in zip(("val_loss", "val_mae"), plain.evaluate(evaluation(), verbose=0)):
        np.testing.assert_allclose(logs.epochs[-1][name], value, rtol=1e-6)
    np.testing.assert_allclose(export.predict(model, x), plain(x), rtol=1e-6)  # the coordinator reads the servers


class Logs(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs))


def dropped():
    """With a gradient that is always -1, weights and accumulators tell how many updates were applied: what is dropped
    moves neither. (Both are sums, which servers keep exactly whatever the order; momentum is not.)"""
    def minus_sum(y, outputs):  # d/dw of -mean over a batch of w·x, at x = 1
        return -tf.reduce_mean(outputs, axis=-1)

    class Ones(keras.layers.Layer):
        def call(self, inputs):
            return tf.ones_like(inputs)

    strategy = distribution.create("async", max_staleness=0, cluster_timeout=TIMEOUT)
    stream = replicas.stream(*data(), BATCH)
    keras.backend.set_floatx("float64")
    for optimizer in keras.optimizers.SGD(1.0), keras.optimizers.Adagrad(1.0, initial_accumulator_value=0.0):
        with strategy.scope():
            inputs = keras.Input([3])
            dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
            model = keras.Model(inputs, dense(Ones()(inputs)))
            model.compile(optimizer, minus_sum)
            model.optimizer.build(model.trainable_variables)
        logs = Logs()
        strategy.fit(model, stream, start_step=0, total_steps=STEPS * 5, callbacks=[logs], verbose=0)
        steps = int(model.optimizer.iterations.numpy())
        applied = round(steps * (1 - np.mean([epoch["dropped_share"] for epoch in logs.epochs])))
        counted = model.get_weights()[0] if isinstance(optimizer, keras.optimizers.SGD) else optimizer.variables[1]
        np.testing.assert_array_equal(np.asarray(counted), np.full([3, 1], applied))
        assert steps == STEPS * 5 and 0 < applied < steps, (steps, applied)
        assert max(epoch["staleness_max"] for epoch in logs.epochs) >= 1


def parts():
    """Weights divided over two servers are saved, restored and gathered as wholes."""
    from strategies import checkpoint
    asynchronous._SMALLEST_PART = 8
    strategy = distribution.create("async", cluster_timeout=TIMEOUT)
    model, _ = fitted(strategy, keras.optimizers.Adam(RATE))
    assert len(model.weights) == 2, model.weights
    named = {name: v.numpy() for name, v in checkpoint.named_variables(model).items()}
    plain, _ = fitted(distribution.create("single"), keras.optimizers.Adam(RATE))
    expected = checkpoint.named_variables(plain)
    assert {n: v.shape for n, v in named.items()} == {n: v.numpy().shape for n, v in expected.items()}
    np.testing.assert_array_equal(strategy.gather(model).get_weights()[0], named["weights/dense/kernel"])
    checkpoint.restore(plain, named)
    np.testing.assert_array_equal(plain.get_weights()[0], named["weights/dense/kernel"])
    checkpoint.restore(model, {name: v.numpy() for name, v in checkpoint.named_variables(plain).items()})


if __name__ == "__main__":
    if cluster.read(asynchronous.JOBS).job != "chief":
        asynchronous.serve(TIMEOUT)
    else:
        for name in sys.argv[1:]:
            globals()[name]()
            print(f"{name} holds", flush=True)
            cluster.check_port = lambda address: None  # this process has it now
