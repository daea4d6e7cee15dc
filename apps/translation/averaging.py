"""The mean of the weights after the last epochs (Vaswani et al. 2017, section 6.1, average the last checkpoints)."""

import numpy as np
import tf_keras as keras

from apps.common import fitting
from strategies import checkpoint

FOLDER = "epochs"


class KeepEpochs(keras.callbacks.Callback):
    """Keeps the weights after each of the last epochs in files, so that a resumed run averages the same ones.

    Args:
        folder: where they are kept.
        count: of epochs.
    """

    def __init__(self, folder, count):
        super().__init__()
        self._folder, self._count = folder, count

    def on_epoch_end(self, epoch, logs=None):
        self._folder.mkdir(parents=True, exist_ok=True)
        with fitting.saving():
            checkpoint.save(self._folder / f"{epoch:06d}.npz", self.model, {}, with_optimizer=False)
        for path in sorted(self._folder.glob("??????.npz"))[:-self._count]:
            path.unlink()


def callbacks(part):
    """The callback of a training whose weights will be averaged."""
    count = part.config.average_epochs
    return [KeepEpochs(part.checkpoints.path / FOLDER, count)] if count else []


def finish(part, model):
    """Gives a model the mean of the weights that were kept."""
    paths = sorted((part.checkpoints.path / FOLDER).glob("??????.npz")) if part.config.average_epochs else []
    if paths:
        files = [checkpoint.read(path)[0] for path in paths]
        mean = {name: _mean(name, [file[name] for file in files]) for name in files[0]}
        checkpoint.restore(model, mean, with_optimizer=False)


def _mean(name, values):
    if values[0].dtype.kind != "f" or "_mask" in name.rsplit("/", 1)[-1]:
        return values[-1]  # counters, and what pruning has removed by now
    return np.mean(np.stack(values), axis=0, dtype=np.float64).astype(values[0].dtype)
