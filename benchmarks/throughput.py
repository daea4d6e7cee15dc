"""Images a second of the zoo beside `keras.applications`, training and inference.

    python -m benchmarks.throughput [--models=resnet50,mobilenet_v2,densenet121] [--train_rounds=40] [--rounds=12]

Both networks have random weights, 224×224 inputs and the same optimizer; training steps alternate, and so do inference
calls. Before inference the normalisations get random statistics: TensorFlow leaves out the addition of a bias that is
0, as it is in no trained network, and then does not join convolution and ReLU either. Inference is `keras.applications`
through the function that `model.predict` calls for each batch and through a compiled `tf.function` against the exported
form of ours with batch normalisation folded.
"""

import argparse

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.image_classification import models
from apps.image_classification.config import Config
from apps.image_classification.data import ImageSpec
from benchmarks import common
from strategies import export

PEERS = {"resnet50": keras.applications.ResNet50, "mobilenet_v2": keras.applications.MobileNetV2,
         "densenet121": keras.applications.DenseNet121}


def ours(name, size, classes=1000):
    """Our network with the scaling layer and logits that every model of the app has."""
    spec = ImageSpec(size, size, 3, classes, tuple(map(str, range(classes))), (127.5,) * 3, (127.5,) * 3)
    return models.build(Config(workdir="unused", model=name, stem="large"), spec)


def with_statistics(model):
    """The model, its batch normalisations as they may be after training."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            channels = layer.gamma.shape[0]
            layer.set_weights([rng.uniform(0.5, 1.5, channels), *rng.normal(0, 0.3, [2, channels]),
                               rng.uniform(0.5, 1.5, channels)])
    return model


def train_pair(name, size, batch, rounds):
    """Seconds of training steps, {"ours": [...], "keras.applications": [...]}."""
    x = tf.random.stateless_uniform([batch, size, size, 3], [1, 2], 0, 255)
    y = tf.one_hot(tf.range(batch), 1000)
    networks = {"ours": ours(name, size), "peer": PEERS[name](weights=None, classifier_activation=None,
                                                              input_shape=(size, size, 3))}
    steps = {}
    for key, model in networks.items():
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), keras.losses.CategoricalCrossentropy(from_logits=True))
        steps[key] = common.training_step(model, x, y)
    return common.paired_seconds(steps, rounds=rounds, warmup=2)


def inference_pair(name, size, batch, rounds):
    """Seconds of inference calls on one batch."""
    x = tf.random.stateless_uniform([batch, size, size, 3], [1, 2], 0, 255)
    peer = with_statistics(PEERS[name](weights=None, input_shape=(size, size, 3)))
    function = export.inference_function(with_statistics(ours(name, size)))
    graph = tf.function(lambda v: peer(v, training=False))
    predict, batches = peer.make_predict_function(), common.repeated(x)
    return common.paired_seconds({"ours": lambda: np.asarray(function(x)), "peer": lambda: predict(batches).numpy(),
                                  "peer_graph": lambda: graph(x).numpy()}, rounds=rounds, warmup=2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(PEERS))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--train_batch", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--train_rounds", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=12, help="of inference")
    options = parser.parse_args()
    rows, kept = [], {}
    for name in options.models.split(","):
        train = train_pair(name, options.size, options.train_batch, options.train_rounds)
        rows.append(compare(name, "training", options.train_batch, train["ours"], train["peer"]))
        keras.backend.clear_session()
        infer = inference_pair(name, options.size, options.batch, options.rounds)
        for peer, words in (("peer", "predict"), ("peer_graph", "tf.function")):
            rows.append(compare(name, f"inference against {words}", options.batch, infer["ours"], infer[peer]))
        keras.backend.clear_session()
        kept[name] = {"training": train, "inference": infer}
    common.write("throughput", rows, seconds={
        name: {task: {key: values.round(4).tolist() for key, values in pairs.items()} for task, pairs in tasks.items()}
        for name, tasks in kept.items()})


def compare(name, task, batch, ours_seconds, peer_seconds):
    """A row of the table: images a second of both, the ratio and its lower 95 % bound."""
    low, ratio, _ = common.ratio_interval(peer_seconds, ours_seconds)
    return {"model": name, "task": task, "batch": batch, "ours_images_s": batch / np.median(ours_seconds),
            "peer_images_s": batch / np.median(peer_seconds), "ratio": ratio, "ratio_low_95": low}


if __name__ == "__main__":
    main()
