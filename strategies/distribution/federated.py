"""Federated averaging: workers that come and go, each with data of its own, simulated in one process.

McMahan et al. 2017 (arXiv 1602.05629, algorithm 1). In each round the server sends the weights to some of the clients
that are there; each takes `local_steps` steps on its own examples with a fresh optimizer and sends its weights back;
the new weights are their mean, weighted by the clients' numbers of examples. So data stay where they are, and weights
travel once a round instead of at every step.

    uneven data   with `client_skew` s a share s of the examples is sorted by class before it is dealt out in two
                  pieces a client (section 3, "pathological non-IID" for s = 1), and pieces differ in size (log-normal,
                  sigma s)
    drop-outs     a chosen client fails with probability `client_dropout`; its work is lost
    late joiners  a share `late_clients` of the clients comes at a random moment of the first half of the training

Who is chosen, who fails and what is drawn from whose data follows from the seed and the round alone.
"""

import contextlib

import numpy as np
import tensorflow as tf
import tf_keras as keras

from strategies.copying import copy_model
from strategies.distribution import segments
from strategies.distribution.peers import Alone
from strategies.replacing import replaced, trained_by

PIECES = 2  # of a client's data
_PURPOSES = {"choose": 1, "fail": 2, "order": 3, "noise": 4}  # keep the streams of random numbers apart


class Federated:
    """Rounds of local steps and averaging.

    Args:
        clients: K.
        client_share: C, part of the clients that a round asks.
        local_steps: steps of --batch_size examples of each client a round. They count once in the length of the run, as
            the clients work at the same time.
        client_skew, client_dropout, late_clients: see above.
        seed: of all of that.
    """

    compiles = False  # a round is a loop of training steps
    refuses = {}
    sees_steps = False
    sees_rounds = True
    peers = Alone()

    def __init__(self, *, clients=20, client_share=0.25, local_steps=10, client_skew=0.0, client_dropout=0.0,
                 late_clients=0.0, seed=0):
        self._clients, self._steps, self._skew, self._seed = clients, local_steps, client_skew, seed
        self._dropout, self._late = client_dropout, late_clients
        self._chosen = max(1, round(client_share * clients))

    @staticmethod
    def obstacle(model):
        """As of `Single`."""
        return ""

    def check(self, model, train):
        """Raises ValueError when examples cannot be had singly, are too few, or an epoch is shorter than a round."""
        if train.examples is None:
            raise ValueError("--distribution=federated deals single examples out to clients; these training data come "
                             "in batches of similar lengths. Use --distribution=sync or async.")
        if train.num_examples < PIECES * self._clients:
            raise ValueError(f"--clients={self._clients} need at least {PIECES * self._clients} training examples; "
                             f"received {train.num_examples}. Give fewer clients.")
        if self._steps > train.steps_per_epoch:
            raise ValueError(f"--local_steps={self._steps}: an epoch has {train.steps_per_epoch} steps. Give fewer, or "
                             "a smaller --batch_size.")
        if self._skew:
            labels_of(train)

    def scope(self):
        """Context in which the model and its optimizer are built."""
        return contextlib.nullcontext()

    def fit(self, model, train, *, start_step, total_steps, validation=None, callbacks=(), verbose=1):
        """As `Single.fit`; callbacks are told of rounds, as of batches, and of epochs. An epoch is as many rounds as it
        takes for each step of the stream's epoch to have been taken by the clients of a round together."""
        labels = labels_of(train) if self._skew else np.zeros(train.num_examples)
        rows = deal(labels, self._clients, self._skew, self._seed)
        rounds, size = -(-total_steps // self._steps), self._steps
        joined = joining_rounds(self._clients, self._late, rounds, self._seed)
        with _rounds(model, self._chosen, size):
            return segments.fit(model, lambda start: self._data(train, rows, joined, start),
                                train.steps_per_epoch // size, start_step=start_step // size, total_steps=rounds,
                                validation=None if validation is None else validation(), callbacks=callbacks,
                                verbose=verbose)

    def gather(self, model):
        """The trained weights as one ordinary model."""
        return copy_model(model)

    def _data(self, train, rows, joined, start):
        """Rounds from number `start` on: ([m, E, B, ...] of the stream's batches, weights of the m clients)."""
        table, sizes = tf.ragged.constant([r.tolist() for r in rows], tf.int64), [len(r) for r in rows]
        table, sizes, joined = table.to_tensor(), tf.constant(sizes, tf.int64), tf.constant(joined, tf.int64)
        number, count = self._chosen, self._steps * train.batch_size

        def one(index):
            def key(purpose):
                return tf.stack([tf.constant(self._seed * 8 + _PURPOSES[purpose], tf.int64), index])

            there = tf.where(joined <= index)[:, 0]
            chosen = tf.random.experimental.stateless_shuffle(there, key("choose"))[:number]
            works = tf.random.stateless_uniform([number], key("fail")) >= self._dropout
            # With fewer clients there than are asked, the places that are left stand for nobody.
            places = tf.range(number) < tf.size(chosen)
            chosen = tf.pad(chosen, [[0, number - tf.size(chosen)]])

            def examples_of(client):
                own = table[client, :sizes[client]]
                order = tf.random.experimental.stateless_shuffle(own, key("order") + [client * 1_000_003, 0])
                return tf.gather(order, tf.range(count, dtype=tf.int64) % sizes[client])

            index_of = tf.map_fn(examples_of, chosen)
            batch = train.examples(tf.reshape(index_of, [-1]), key("noise"))
            batch = tf.nest.map_structure(
                lambda t: tf.reshape(t, [number, self._steps, train.batch_size, *t.shape[1:]]), batch)
            weights = tf.where(works & places, tf.gather(sizes, chosen), tf.zeros_like(chosen))
            return batch, tf.cast(weights, tf.float32)

        rounds = tf.data.Dataset.range(start, 2**62).map(one, num_parallel_calls=2, deterministic=True).prefetch(2)
        options = tf.data.Options()
        options.autotune.enabled = False  # its thread may hold up an iterator that is dropped, for seconds
        return rounds.with_options(options)


@contextlib.contextmanager
def _rounds(model, clients, steps):
    """Within it a compiled model's `train_step` is a round of that many clients and local steps."""
    step, optimizer = model.train_step, getattr(model.optimizer, "inner_optimizer", model.optimizer)
    schedule = optimizer._learning_rate

    def round_step(data):
        batches, numbers = data
        # What clients change: weights, statistics, ranges; not masks and what else only callbacks change.
        weights = [v for v in model.weights if v.dtype.is_floating and (
            v.trainable or v.aggregation != tf.VariableAggregation.ONLY_FIRST_REPLICA)]
        slots = [v for v in optimizer.variables if v.dtype.is_floating and v.shape.rank]
        began, fresh = [tf.identity(v) for v in weights], [tf.zeros_like(v) for v in slots]
        first = tf.identity(optimizer.iterations)
        shares = tf.math.divide_no_nan(numbers, tf.reduce_sum(numbers))

        def restart():
            for variable, value in zip(weights + slots, began + fresh):
                variable.assign(value)
            optimizer.iterations.assign(0)  # by which Adam corrects the bias of its slots

        def client(i, sums):
            restart()

            def local(e):
                step(tf.nest.map_structure(lambda t: t[i, e], batches))
                return [e + 1]

            tf.while_loop(lambda e: e < steps, local, [tf.constant(0)], parallel_iterations=1)
            return i + 1, [s + tf.cast(shares[i], v.dtype) * v for s, v in zip(sums, weights)]

        with contextlib.ExitStack() as stack:
            if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
                stack.enter_context(replaced(optimizer, _learning_rate=_From(schedule, first)))
            _, means = tf.while_loop(lambda i, sums: i < clients, client,
                                     (tf.constant(0), [tf.zeros_like(v) for v in began]), parallel_iterations=1)
        restart()
        someone = tf.reduce_sum(numbers) > 0  # otherwise nobody came back: the weights stay
        for variable, mean, before in zip(weights, means, began):
            variable.assign(tf.where(someone, mean, before))
        optimizer.iterations.assign(first + steps)
        return {metric.name: metric.result() for metric in model.metrics}

    with trained_by(model, round_step):
        yield


class _From(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule from a later step on."""

    def __init__(self, schedule, first):
        self._schedule, self._first = schedule, first

    def __call__(self, step):
        return self._schedule(self._first + step)


def labels_of(train):
    """The class of each training example, int [N].

    Raises:
        ValueError: the targets are not classes.
    """
    found = []
    for start in range(0, train.num_examples, 1024):
        index = tf.range(start, min(start + 1024, train.num_examples), dtype=tf.int64)
        targets = train.examples(index, tf.constant([0, 0], tf.int64))[1]
        targets = targets["targets"] if isinstance(targets, dict) else targets
        if targets.shape.rank != 2:
            raise ValueError("--client_skew deals examples out by their class; these targets have shape "
                             f"{tuple(targets.shape)}, not [N, classes]. Use --client_skew=0.")
        found.append(tf.argmax(targets, axis=1).numpy())
    return np.concatenate(found)


def deal(labels, clients, skew, seed):
    """Who has which examples: a list of int arrays, one a client, none empty, together each example once."""
    noise, number = np.random.default_rng([seed, 11]), len(labels)
    order = noise.permutation(number)
    by_class = order[np.argsort(labels[order], kind="stable")]
    is_sorted = noise.random(number) < skew
    mixed = iter(noise.permutation(by_class[~is_sorted]))
    line = np.array([e if s else next(mixed) for e, s in zip(by_class, is_sorted)])
    pieces = PIECES * clients
    sizes = np.exp(skew * noise.normal(size=pieces))
    ends = np.round(np.cumsum(sizes) / sizes.sum() * (number - pieces)).astype(int) + np.arange(1, pieces + 1)
    parts = np.split(line, ends[:-1])
    places = noise.permutation(pieces).reshape(clients, PIECES)
    return [np.concatenate([parts[i] for i in own]) for own in places]


def joining_rounds(clients, late, rounds, seed):
    """The round in which each client comes, int [K]: 0, or for the late ones one of the first half. One is there."""
    noise = np.random.default_rng([seed, 12])
    number = min(round(late * clients), clients - 1)
    joined = np.zeros(clients, int)
    joined[noise.permutation(clients)[:number]] = noise.integers(1, max(rounds // 2, 1) + 1, number)
    return joined
