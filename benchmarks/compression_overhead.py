"""What a training step costs under each compression, over the plain one.

    python -m benchmarks.compression_overhead [--model=resnet20] [--batch_size=128] [--rounds=15]

Plain and compressed steps alternate in one process, a pair of models at a time. To a step of pruning its share of the
updates of masks is added, in a run of 1,000 steps. Distillation is measured twice: with a teacher of the same size run
at every step, and with its outputs given. For the first the target is 1.1 times the plain step and the teacher's
forward pass, which is a row of its own.
"""

import argparse
import time

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.image_classification import models
from apps.image_classification.config import Config
from apps.image_classification.data import ImageSpec
from benchmarks import common
from strategies import compression
from strategies.compression import pruning

SPEC = ImageSpec(32, 32, 3, 10, tuple("0123456789"), (127.5,) * 3, (127.5,) * 3)
TARGETS = {"prune": 1.15, "quantize": 2.0, "distill, outputs given": 1.1}
METHODS = ("prune", "quantize", "share", "low_bit", "distill", "distill, outputs given", "teacher's forward pass")
PRUNED_STEPS = 1000


def make_step(method, name, batch_size):
    """(training step on one batch, recipe, model) of a method; of "teacher's forward pass" the step alone."""
    x = tf.random.stateless_uniform([batch_size, 32, 32, 3], [1, 2], 0, 255)
    y = tf.one_hot(tf.range(batch_size) % 10, 10)
    teacher = models.build(Config(workdir="unused", model=name), SPEC)
    if method == "teacher's forward pass":
        forward = tf.function(lambda: teacher(x, training=False))
        return (lambda: forward().numpy()), None, None
    recipe = {"plain": lambda: None, "prune": lambda: compression.Pruning(sparsity=0.8),
              "quantize": lambda: compression.Quantization(x[:32]), "share": compression.WeightSharing,
              "low_bit": lambda: compression.LowBit(bits=4)}.get(method, lambda: compression.Distillation([teacher]))()
    keras.utils.set_random_seed(0)
    model = models.build(Config(workdir="unused", model=name), SPEC)
    model = model if recipe is None else recipe.prepare(model)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), keras.losses.CategoricalCrossentropy(from_logits=True))
    targets = {"targets": y, "teacher": teacher(x, training=False)} if method == "distill, outputs given" else y
    return common.training_step(model, x, targets), recipe, model


def mask_updates(recipe, model):
    """Seconds that the updates of masks take, as a mean over the steps of a run."""
    began = time.perf_counter()
    for _ in range(5):
        recipe.update_masks(model, 0.5)
    once = (time.perf_counter() - began) / 5
    return once * len(pruning.due_steps(recipe, PRUNED_STEPS)) / PRUNED_STEPS


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rows = []
    for method in METHODS:
        keras.backend.clear_session()
        plain, _, _ = make_step("plain", options.model, options.batch_size)
        step, recipe, model = make_step(method, options.model, options.batch_size)
        seconds = common.paired_seconds({"plain": plain, method: step}, rounds=options.rounds, warmup=3)
        if method == "prune":
            seconds[method] = seconds[method] + mask_updates(recipe, model)
        low, ratio, high = common.ratio_interval(seconds[method], seconds["plain"])
        rows.append({"method": method, "plain_ms": 1000 * float(np.median(seconds["plain"])),
                     "step_ms": 1000 * float(np.median(seconds[method])), "ratio": ratio, "ratio_low_95": low,
                     "ratio_high_95": high, "target": TARGETS.get(method)})
    common.write("compression_overhead", rows, model=options.model, batch_size=options.batch_size)


if __name__ == "__main__":
    main()
