"""What a training step costs under each compression, over the plain one.

    python -m benchmarks.compression_overhead [--model=resnet20] [--batch_size=128] [--rounds=15]

Steps of all methods alternate in one process. To a step of pruning its share of the updates of masks is added, in a
run of 1,000 steps. Distillation is measured twice: with a teacher of the same size run at every step, and with its outputs given. For the
first the target is 1.1 times the plain step plus the teacher's forward pass, which is a row of its own.
"""

import argparse

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
PRUNED_STEPS = 1000


def make_steps(name, batch_size):
    """{method: a training step on one batch}."""
    x = tf.random.stateless_uniform([batch_size, 32, 32, 3], [1, 2], 0, 255)
    y = tf.one_hot(tf.range(batch_size) % 10, 10)
    teacher = models.build(Config(workdir="unused", model=name), SPEC)
    logits = teacher(x, training=False)
    recipes = {"plain": None, "prune": compression.Pruning(sparsity=0.8), "quantize": compression.Quantization(x[:32]),
               "share": compression.WeightSharing(), "low_bit": compression.LowBit(bits=4),
               "distill": compression.Distillation([teacher]), "distill, outputs given":
               compression.Distillation([teacher])}
    steps = {}
    for method, recipe in recipes.items():
        keras.utils.set_random_seed(0)
        model = models.build(Config(workdir="unused", model=name), SPEC)
        model = model if recipe is None else recipe.prepare(model)
        model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), keras.losses.CategoricalCrossentropy(from_logits=True))
        targets = {"targets": y, "teacher": logits} if method == "distill, outputs given" else y
        data = iter(tf.data.Dataset.from_tensors((x, targets)).repeat())
        train = model.make_train_function()
        steps[method] = lambda train=train, data=data: train(data)
        if method == "prune":
            steps["update of masks"] = lambda recipe=recipe, model=model: recipe.update_masks(model)
    forward = tf.function(lambda: teacher(x, training=False))
    steps["teacher's forward pass"] = lambda: forward().numpy()
    return steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    seconds = common.paired_seconds(make_steps(options.model, options.batch_size), rounds=options.rounds, warmup=3)
    num_updates = len(pruning.due_steps(compression.Pruning(sparsity=0.8), PRUNED_STEPS))
    seconds["prune"] = seconds["prune"] + np.median(seconds["update of masks"]) * num_updates / PRUNED_STEPS
    rows = []
    for method, values in seconds.items():
        low, ratio, high = common.ratio_interval(values, seconds["plain"])
        rows.append({"method": method, "step_ms": 1000 * float(np.median(values)), "ratio": ratio, "ratio_low_95": low,
                     "ratio_high_95": high, "target": TARGETS.get(method)})
    common.write("compression_overhead", rows, model=options.model, batch_size=options.batch_size)


if __name__ == "__main__":
    main()
