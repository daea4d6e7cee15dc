"""Training on one device: the whole contract of a distribution strategy in its shortest form."""

import contextlib

from strategies.distribution import segments


class Single:
    """One device, the one TensorFlow takes by default."""

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
        return segments.fit(model, lambda step: train(None, step), train.steps_per_epoch, start_step=start_step,
                            total_steps=total_steps, validation=validation, callbacks=callbacks, verbose=verbose)

    def gather(self, model):
        """The trained weights as one ordinary model: here, the model itself."""
        return model
