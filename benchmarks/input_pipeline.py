"""Does the input pipeline keep up? Training steps from the stream beside the same steps from tensors in memory.

    python -m benchmarks.input_pipeline [--data=fashion_mnist --data_dir=...] [--model=resnet20]
"""

import argparse

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.image_classification import data, models
from apps.image_classification.config import Config
from benchmarks import common


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--augmentation", default="flip,shift,cutout")
    parser.add_argument("--steps", type=int, default=20, help="training steps a round")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    config = Config(workdir="unused", data=options.data, data_dir=options.data_dir, model=options.model,
                    batch_size=options.batch_size, augmentation=options.augmentation)
    splits = data.load(config)
    model = models.build(config, splits.spec)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), keras.losses.CategoricalCrossentropy(from_logits=True))
    step = model.make_train_function()
    batches = [tuple(map(tf.identity, batch)) for batch in splits.train().take(8)]
    memory = iter(tf.data.Dataset.from_tensor_slices(tuple(tf.stack(part) for part in zip(*batches))).cache().repeat())
    stream = iter(splits.train())

    def steps_from(iterator):
        for _ in range(options.steps):
            logs = step(iterator)
        return float(logs["loss"])

    seconds = common.paired_seconds({"stream": lambda: steps_from(stream), "memory": lambda: steps_from(memory)},
                                    rounds=options.rounds)
    low, ratio, high = common.ratio_interval(seconds["memory"], seconds["stream"])
    images = options.steps * options.batch_size
    rows = [{"data": options.data, "model": options.model, "augmentation": options.augmentation,
             "stream_images_s": images / np.median(seconds["stream"]),
             "memory_images_s": images / np.median(seconds["memory"]), "ratio": ratio, "ratio_low_95": low,
             "ratio_high_95": high}]
    common.write("input_pipeline", rows)


if __name__ == "__main__":
    main()
