"""How large a model is: parameters and nonzero parameters."""

import math

import numpy as np


def count_parameters(model, trainable_only=False):
    """Number of floating-point weights of a built model or layer.

    This is `model.count_params()` without integer state: the step counter of a dropout layer is kept like a weight but
    is no parameter. Moving statistics of batch normalisation count, as they do in `keras.applications`; papers and
    PyTorch leave them out, which `trainable_only=True` does too.

    Args:
        model: a built `keras.Model` or layer.
        trainable_only: whether to count trainable weights only.

    Returns:
        int.
    """
    return sum(math.prod(weight.shape) for weight in _floating_weights(model, trainable_only))


def count_nonzero(model, trainable_only=False):
    """Number of floating-point weights that are not 0: what is left after pruning. Arguments as `count_parameters`."""
    return sum(int(np.count_nonzero(weight.numpy())) for weight in _floating_weights(model, trainable_only))


def _floating_weights(model, trainable_only):
    weights = model.trainable_weights if trainable_only else model.weights
    return [weight for weight in weights if weight.dtype.is_floating]
