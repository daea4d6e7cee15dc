"""How far synchronous data parallelism carries: a model from measured parts, and how well it says what was measured.

    python -m benchmarks.scaling_model [--gbit=10] [--microseconds=50] [--measure]

A step of W workers with B examples each takes

    compute(B) + 2 (W - 1) (latency + bytes / (W · bandwidth))

where compute(B) = a + b B is fitted to measured steps of one process, bytes = 4 a parameter, and the second term is the
ring all-reduce of `MultiWorkerMirroredStrategy` (Patarasuk & Yuan 2009): each of 2 (W - 1) messages is a W-th of the
gradients. The table gives the speed-up over one worker for 1 to 1,024 workers, with the batch of a worker kept (weak)
and with the batch of all kept (strong), and the batch of a worker below which communication takes longer than compute.

--measure checks the formula on this machine: all-reduce between 2 processes at several sizes gives latency and
bandwidth of its loopback, and the steps of 2 and 3 processes, which share the cores, are predicted and then measured.
"""

import argparse
import json
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf
import tf_keras as keras

from benchmarks import common, distribution_speed
from layers.counting import count_parameters
from strategies import cluster, distribution

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
BATCHES = (16, 32, 64, 128)
SIZES = (1 << 10, 1 << 16, 1 << 20, 1 << 22, 1 << 24)  # bytes of an all-reduce
REPEATS, BATCH = 7, 128
TIMEOUT = 600.0


def ring_seconds(workers, size, latency, bandwidth):
    """Of an all-reduce of `size` bytes among that many; bandwidth in bytes a second."""
    return 2 * (workers - 1) * (latency + size / (workers * bandwidth))


def fit_line(x, y):
    """(a, b) of a + b x, by least squares, neither negative."""
    b, a = np.polyfit(x, y, 1)
    return max(float(a), 0.0), max(float(b), 0.0)


def predict(compute, size, batch, latency, bandwidth):
    """Rows of the table for a batch a worker."""
    a, b = compute
    rows = []
    for workers in WORKERS:
        ring = ring_seconds(workers, size, latency, bandwidth)
        one, share = a + b * batch, batch / workers
        rows.append({"workers": workers, "weak_speedup": round(workers * one / (one + ring), 1),
                     "strong_speedup": round(one / (a + b * share + ring), 2),
                     "communication_wins_below_batch": round(max((ring - a) / b, 0.0), 1)})
    return rows


def measured_compute(steps=REPEATS):
    """Median seconds of a training step of ResNet-20 in one process, {batch: seconds}."""
    model = distribution_speed.build("overhead")
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.CategoricalCrossentropy(from_logits=True))
    noise, calls = np.random.default_rng(0), {}
    for batch in BATCHES:
        x = tf.constant(noise.normal(size=[batch, 32, 32, 3]), tf.float32)
        calls[batch] = common.training_step(model, x, tf.one_hot(noise.integers(0, 10, batch), 10))
    seconds = common.paired_seconds(calls, rounds=steps)
    return {batch: float(np.median(values)) for batch, values in seconds.items()}, count_parameters(model)


def member(what):
    """One process of a group: times all-reduces, or training steps; the chief prints a line of JSON."""
    strategy = distribution.create("multi_worker", cluster_timeout=TIMEOUT)
    if what == "all_reduce":
        found = {}
        for size in SIZES:
            value = tf.zeros([size // 4])

            @tf.function
            def reduce(value=value):
                return strategy._strategy.run(
                    lambda: tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value + 1.0))

            found[size] = _median(lambda reduce=reduce: reduce().numpy())
    else:
        workers = strategy._strategy.num_replicas_in_sync
        clock, batch = Clock(), BATCH // workers * workers
        train = distribution_speed.random_images(64 * batch, batch, 32, 3)
        with strategy.scope():
            model = distribution_speed.build("overhead")
            model.compile(keras.optimizers.SGD(0.1, momentum=0.9),
                          keras.losses.CategoricalCrossentropy(from_logits=True))
        strategy.fit(model, train, start_step=0, total_steps=4 + 3 * REPEATS, callbacks=[clock], verbose=0)
        found = {"batch": batch, "seconds": float(np.median(np.diff(clock.times)[3:]))}
    if strategy.peers.is_chief:
        print("found " + json.dumps(found), flush=True)
    else:
        strategy.peers.wait_for_chief()


class Clock(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.times = []

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(time.perf_counter())


def _median(call):
    call()
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def group(what, workers):
    """What the chief of a group of processes found."""
    command = [sys.executable, "-m", "apps.cluster", f"--workers={workers}", "--max_restarts=0", "--", sys.executable,
               "-m", "benchmarks.scaling_model", f"--member={what}"]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(next(line for line in output.splitlines() if line.startswith("found ")).removeprefix("found "))


def check(compute, size):
    """(latency, bandwidth of the loopback, rows of predicted and measured steps)."""
    reduced = group("all_reduce", 2)
    seconds = {int(k): v for k, v in reduced.items()}
    # Of 2 workers: 2 messages of half the size.
    latency, per_byte = (value / 2 for value in fit_line([s / 2 for s in seconds], list(seconds.values())))
    a, b = compute
    rows = []
    for workers in (2, 3):
        found = group("steps", workers)
        # They share the cores, so that together they compute as long as one process would for all their examples.
        expected = workers * a + b * found["batch"] + ring_seconds(workers, size, latency, 1 / per_byte)
        rows.append({"workers": workers, "predicted_seconds": round(expected, 4),
                     "measured_seconds": round(found["seconds"], 4),
                     "ratio": round(found["seconds"] / expected, 3)})
    return latency, 1 / per_byte, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gbit", type=float, default=10.0, help="bandwidth of the link, Gbit/s")
    parser.add_argument("--microseconds", type=float, default=50.0, help="latency of a message")
    parser.add_argument("--measure", action="store_true", help="check the model on this machine")
    parser.add_argument("--member", choices=("all_reduce", "steps"))
    arguments = parser.parse_args()
    if arguments.member:
        cluster.read(["worker"])
        member(arguments.member)
        return
    steps, parameters = measured_compute()
    compute, size = fit_line(list(steps), list(steps.values())), 4 * parameters
    rows = predict(compute, size, BATCH, arguments.microseconds * 1e-6, arguments.gbit * 1e9 / 8)
    content = {"step_seconds": steps, "compute": compute, "bytes": size}
    if arguments.measure:
        latency, bandwidth, checked = check(compute, size)
        content |= {"loopback_latency": latency, "loopback_bandwidth": bandwidth, "checked": checked}
        print(json.dumps(checked, indent=1))
    common.write("scaling_model", rows, **content)


if __name__ == "__main__":
    main()
