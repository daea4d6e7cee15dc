"""Trains a network on games that there are, and makes it smaller: records in SGF, or what `train_zero` has played.

    python -m apps.alphago.train_games --data=sgf --data_dir=games.zip --size=9 --workdir=runs/records9
    python -m apps.alphago.train_games --data=replay --data_dir=runs/zero9 --initial_model=runs/zero9 \\
        --compression=quantize --workdir=runs/zero9_int8

The first is the supervised learning of Silver et al. 2017 (figure 3). All distributions, compressions and exports
of the suite apply; what comes out plays: `--player=network:runs/zero9_int8/export/int8.tflite`.
"""

import functools
import math

import numpy as np
import tf_keras as keras

from apps.alphago import game_data, learning, networks
from apps.alphago.config import GamesConfig
from apps.common import compressing, flagging, training
from layers.counting import count_nonzero, count_parameters
from strategies import export


class HeadsLoss:
    """The loss of all heads together, for what ranks filters by it: ({head: targets}, {head: outputs}) -> scalar."""

    def __init__(self, model):
        self._model = model

    def __call__(self, targets, outputs):
        return self._model.compute_loss(y=targets, y_pred=outputs)


def train(config, callbacks=()):
    """Runs the whole story of one configuration; a second call with the same workdir resumes it.

    Args:
        config: `GamesConfig`.
        callbacks: further Keras callbacks.

    Returns:
        the flat dictionary written to `<workdir>/metrics.json`; an empty one in processes that leave that to the chief.

    Raises:
        ValueError: bad input; raised before anything is trained or written.
        apps.common.fitting.TrainingDiverged: the loss is not finite.
    """
    return training.run_whole(config, lambda: make_task(config, game_data.load(config)), evaluate, export_and_report,
                              callbacks)


def make_task(config, splits):
    """What `apps.common.training` needs to know of this application."""
    def compile_model(model, optimizer, config):
        learning.compile_model(model, optimizer, jit_compile=config.jit_compile, value_weight=config.weight_of_value,
                               metrics={"policy": ["accuracy"]})

    def build(config):
        return networks.build(splits.spec.structure)

    judged = build(config)
    compile_model(judged, keras.optimizers.SGD(), config)
    return training.Task(splits=splits, build=build, compile=compile_model, loss=HeadsLoss(judged),
                         representative=splits.representative, monitor=("val_policy_accuracy", "max"))


def evaluate(model, splits):
    """How often the policy's first move is the one that was played, and how far off the value is, in float32."""
    learning.compile_model(model, keras.optimizers.SGD(), metrics={"policy": ["accuracy"]})
    metrics = {}
    for name, split in (("test", splits.test), ("validation", splits.validation)):
        if split is not None:
            found = model.evaluate(split(), verbose=0, return_dict=True)
            metrics |= {f"{name}_accuracy": found["policy_accuracy"], f"{name}_policy_loss": found["policy_loss"],
                        f"{name}_value_error": found["value_loss"], f"{name}_loss": found["loss"]}
    spec = splits.spec
    return metrics | {"num_parameters": count_parameters(model), "num_nonzero": count_nonzero(model),
                      "macs": export.count_macs(model), "num_test": splits.test.num_examples,
                      "num_training": splits.train.num_examples,
                      **{f"num_{part}_games": number for part, number in spec.num_games.items()}}


def export_and_report(run, model, splits, metrics):
    """Writes `metrics.json`, the exported files, plots and `report.md`, and prints the table."""
    config = run.config
    planes, moves = scored_positions(splits.test, config.num_scored)

    def accuracy(predict):
        return float(np.mean(predict(planes)["policy"].argmax(axis=1) == moves))

    rows = export.export_all(
        model, run.path, formats=["keras", *training.export_formats(config)], samples=planes[:64],
        variant=training.variant_of(config), evaluate=accuracy, representative=splits.representative(
            config.num_representative))
    rows += compressing.packed_rows(run, model, rows, planes[:64], lambda unpacked: accuracy(
        functools.partial(export.predict, unpacked)))
    structure = splits.spec.structure
    training.report(run, f"zero_{structure.blocks}x{structure.filters} on {config.data}", metrics, rows, figures={},
                    sections={"The network": str(structure)})
    print(f"the policy's first move is the one played in {metrics['test_accuracy']:.2%} of "
          f"{metrics['num_test']} test positions, the value's squared error {metrics['test_value_error']:.3f}")


def scored_positions(stream, count):
    """(planes [n, N, N, C], moves int [n]) of positions spread over a stream, at most `count`."""
    share = min(1.0, count / stream.num_examples)
    planes, moves = [], []
    for batch, targets in stream():
        chosen = np.linspace(0, len(batch) - 1, max(1, math.floor(share * len(batch)))).astype(int)
        planes.append(batch.numpy()[chosen])
        moves.append(targets["policy"].numpy()[chosen].argmax(axis=1))
    return np.concatenate(planes)[:count], np.concatenate(moves)[:count]


def main(config):
    training.run_app(config, train, lambda: make_task(config, game_data.load(config)))


if __name__ == "__main__":
    flagging.run_app(GamesConfig, main)
