"""Training speed under the distribution strategies, in alternation within one run.

    python -m benchmarks.distribution_speed --study=overhead [--rounds=7]
    python -m benchmarks.distribution_speed --study=straggler [--rounds=7]

overhead: ResNet-20 on 32×32 images, batch 128, on the cores of this machine: what a strategy costs where nothing is
won. `single_unfused` is `single` with batch normalisation in several operators, as DTensor needs it.
straggler: three workers whose input takes 20 ms a step, one of them five times as long: a small network, so that
waiting for the input is what counts. `even` are the same without the slow one.

Each variant is a training of its own (processes of their own) that makes an epoch when it is told to and waits in
between, so that they take turns.
"""

import argparse
import dataclasses
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tensorflow.python.data.experimental.ops import testing

from apps.common import splits
from apps.image_classification import data as data_lib
from apps.image_classification import models
from apps.image_classification.config import Config
from benchmarks import common
from strategies import cluster, distribution
from strategies.distribution import asynchronous
from strategies.distribution.sharing import batch_norms

TIMEOUT = 600.0  # longer than a variant has to wait for its turn
STUDIES = {
    "overhead": {"single": ("single", {}, None), "single_unfused": ("single", {}, None),
                 "sync": ("sync", {"num_devices": 2}, None),
                 "model_parallel": ("model_parallel", {"mesh": "batch:2"}, None), "async": ("async", {}, (1, 1))},
    "straggler": {"async": ("async", {}, (3, 1)), "sync": ("multi_worker", {}, (3, 0)),
                  "async_even": ("async", {}, (3, 1)), "sync_even": ("multi_worker", {}, (3, 0))}}
STEPS = {"overhead": 16, "straggler": 60}
BATCH = {"overhead": 128, "straggler": 96}
DATA_MILLISECONDS, SLOWER = 20, 5


class Turns(keras.callbacks.Callback):
    """Makes an epoch for each line of standard input, and answers with the seconds it took."""

    def on_epoch_begin(self, epoch, logs=None):
        print("ready", flush=True)
        if not sys.stdin.readline():
            sys.exit(0)
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        print(f"seconds {time.perf_counter() - self._began}", flush=True)


def random_images(number, batch, side, channels):
    """A training stream of random images, of which a few are kept and shown again and again."""
    noise = np.random.default_rng(0)
    x = tf.constant(noise.normal(size=[2 * batch, side, side, channels]), tf.float32)
    y = tf.one_hot(noise.integers(0, 10, len(x)), 10)
    return splits.training_stream(number, batch, 0, lambda index, noise: (tf.gather(x, index % len(x)),
                                                                         tf.gather(y, index % len(x))))


def stream(study, variant, workers):
    """The data of a variant: in the straggler's study a worker's batches take their time."""
    number = BATCH[study] * STEPS[study]
    if study == "overhead":
        return random_images(number, BATCH[study], 32, 3)
    asynchronously = variant.startswith("async")
    # A gradient of one worker is over as many examples as its share in a synchronous step.
    made = random_images(number, BATCH[study] // workers if asynchronously else BATCH[study], 8, 1)

    def make(context, start_step, turn):
        worker = turn[0] if asynchronously else context.input_pipeline_id
        slower = 1 if variant.endswith("even") else tf.where(tf.equal(worker, 0), SLOWER, 1)
        pause = tf.cast(1000 * DATA_MILLISECONDS * slower, tf.int64)
        options = tf.data.Options()
        options.autotune.enabled = False
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return made.make(context, start_step, turn).apply(testing.sleep(pause)).with_options(options)

    return dataclasses.replace(made, make=make)


def train(study, variant, rounds):
    """A member of a variant's processes: trains for as many epochs as it is told to."""
    name, options, members = STUDIES[study][variant]
    if name == "async" and cluster.read(asynchronous.JOBS).job != "chief":
        asynchronous.serve(TIMEOUT)
        return
    options = {**options, "cluster_timeout": TIMEOUT} if members else options
    strategy = distribution.create(name, **options)
    data = stream(study, variant, members[0] if members else 1)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = build(study)
    strategy.check(model, data)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = build(study)
        if variant == "single_unfused":
            for layer in batch_norms(model):
                layer.fused = False
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.CategoricalCrossentropy(from_logits=True))
        model.optimizer.build(model.trainable_variables)
    callbacks = [Turns()] if strategy.peers.is_chief else []
    strategy.fit(model, data, start_step=0, total_steps=(rounds + 1) * data.steps_per_epoch, callbacks=callbacks,
                 verbose=0)


def build(study):
    """The network of a study."""
    if study == "straggler":
        return keras.Sequential([keras.layers.Flatten(input_shape=[8, 8, 1]), keras.layers.Dense(32, "relu"),
                                 keras.layers.Dense(10)])
    spec = data_lib.ImageSpec(32, 32, 3, 10, tuple("0123456789"), (0.0,) * 3, (1.0,) * 3)
    return models.build(Config(model="resnet20", workdir="-"), spec)


class Variant:
    """The processes of one variant."""

    def __init__(self, study, name, rounds):
        members = STUDIES[study][name][2]
        command = [sys.executable, "-m", "benchmarks.distribution_speed", f"--study={study}", f"--variant={name}",
                   f"--rounds={rounds}"]
        if members:
            command = [sys.executable, "-m", "apps.cluster", f"--workers={members[0]}", f"--servers={members[1]}",
                       "--max_restarts=0", "--", *command]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._wait_for("ready")

    def epoch(self):
        """Seconds of one epoch."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        seconds = float(self._wait_for("seconds").split()[1])
        self._wait_for("ready")
        return seconds

    def end(self):
        self._process.terminate()
        self._process.wait()

    def _wait_for(self, word):
        for line in self._process.stdout:
            if line.startswith(word):
                return line
        raise RuntimeError(f"A variant ended with code {self._process.wait()}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", choices=STUDIES, required=True)
    parser.add_argument("--variant", default="")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.variant:
        train(arguments.study, arguments.variant, arguments.rounds + 3)
        return
    variants = {}
    try:
        for name in STUDIES[arguments.study]:
            variants[name] = Variant(arguments.study, name, arguments.rounds)
        seconds = common.paired_seconds({name: v.epoch for name, v in variants.items()}, rounds=arguments.rounds,
                                        warmup=1)
    finally:
        for variant in variants.values():
            variant.end()
    examples = BATCH[arguments.study] * STEPS[arguments.study]
    first = next(iter(seconds))
    rows = []
    for name, values in seconds.items():
        low, middle, high = common.ratio_interval(seconds[first], values)
        rows.append({"variant": name, "examples_per_second": round(examples / float(np.median(values)), 1),
                     f"rate_over_{first}": round(middle, 3), "low": round(low, 3), "high": round(high, 3)})
    common.write(f"distribution_{arguments.study}", rows,
                 seconds={name: values.tolist() for name, values in seconds.items()})


if __name__ == "__main__":
    main()
