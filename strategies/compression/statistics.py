"""Moving statistics of batch normalisation, taken anew for the weights that are there.

Codes of few bits jump: where two scales of a layer are about as near to its weights, a step of any size may double or
halve all of them, and what training kept as moving statistics is a mixture that fits neither. With the codes fixed the
statistics are measured again, as Nagel et al. 2022 (arXiv 2203.11086) do for weights that oscillate.
"""

import tf_keras as keras

from strategies.compression import hooks


def settle_statistics(model, batches):
    """Sets moving means and variances to their averages over batches; other weights stay.

    Args:
        model: plain built `keras.Model`.
        batches: iterable of (inputs, ...); read only where the model has batch normalisation.
    """
    norms = [layer for layer in hooks.leaf_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    try:
        for number, (inputs, *_) in enumerate(batches if norms else ()):
            for layer in norms:
                layer.momentum = number / (number + 1)
            model(inputs, training=True)
    finally:
        for layer, momentum in zip(norms, momenta):
            layer.momentum = momentum
