"""Training on one device: the whole contract of a distribution strategy in its shortest form."""

import contextlib

from strategies.distribution import segments
from strategies.distribution.micro_batches import micro_batches
from strategies.distribution.peers import Alone
from strategies.distribution.sharing import check_batch


class Single:
    """One device, the one TensorFlow takes by default.

    Args:
        micro_batches: parts in which a batch is taken, one after another, to need less memory.
    """

    compiles = True  # with XLA
    refuses = {}  # {method of compression: why not}
    sees_steps = True  # callbacks are told of every step, not of epochs only
    peers = Alone()  # the processes that run the same program

    def __init__(self, *, micro_batches=1):
        self._parts = micro_batches

    @staticmethod
    def obstacle(model):
        """Why a model cannot be trained so; empty when it can."""
        return ""

    def check(self, model, train):
        """Raises ValueError, before training, when a model or its stream cannot be trained so."""
        check_batch(train.batch_size, 1, self._parts)

    def scope(self):
        """Context in which the model and its optimizer are built."""
        return contextlib.nullcontext()

    def fit(self, model, train, *, start_step, total_steps, validation=None, callbacks=(), verbose=1):
        """Trains a compiled model from global step `start_step` to `total_steps`.

        Args:
            model: compiled `keras.Model`, built inside `scope()`.
            train: stream of endless batches: `train(input_context, start_step) -> Dataset`, `train.steps_per_epoch`.
            start_step, total_steps: global steps, counted from the beginning of the run.
            validation: stream evaluated after each epoch, or None.
            callbacks: Keras callbacks.
            verbose: as in `keras.Model.fit`.

        Returns:
            history of the epochs that were run: dict of lists.
        """
        validation = None if validation is None else validation()
        with micro_batches(model, self._parts):
            return segments.fit(model, lambda step: train(None, step), train.steps_per_epoch, start_step=start_step,
                                total_steps=total_steps, validation=validation, callbacks=callbacks, verbose=verbose)

    def gather(self, model):
        """The trained weights as one ordinary model: here, the model itself."""
        return model
