"""Quantisation-aware training by tensorflow_model_optimization, for the models that it accepts.

Its default scheme (Jacob et al. 2018, arXiv 1712.05877) wraps each layer that it knows: convolutions, dense layers,
batch normalisation behind them, ReLU, pooling, concatenation. It refuses models inside a model, normalisation that does
not follow a convolution, recurrent layers, attention, and layers of one's own; `quantization` takes those too. Both
leave the same: a plain model with weights on their 8-bit grid.
"""

import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit.default_8bit_quantize_configs import (
    NoOpQuantizeConfig,
)
from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapper
from tf_keras.src import backend

_REASON = "{}. Use the suite's own quantisation-aware training (--quantize_engine=usagi), which has no such limit."


class TfmotQuantization:
    """TFMOT's quantisation-aware training: `prepare`, `fit`, `finish`. Zeros in convolutions and dense layers stay."""

    def __init__(self):
        self._plain = None

    def prepare(self, model):
        """A model of wrapped layers with the weights of `model`, which is kept for `finish`.

        Args:
            model: functional or sequential `keras.Model`, float32.

        Raises:
            ValueError: a model that TFMOT does not accept.
        """
        self._plain = model
        # What TFMOT puts behind the inputs is numbered on; checks and later runs know layers by their names.
        backend.get_default_graph_uid_map().pop(("", "quantize_layer"), None)
        try:
            # This scheme is the default one but for weights that are 0, which stay 0.
            scheme = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
            with tfmot.quantization.keras.quantize_scope({"NoOpQuantizeConfig": NoOpQuantizeConfig}):
                wrapped = tfmot.quantization.keras.quantize_apply(_annotated(model), scheme)
        except (ValueError, RuntimeError, AttributeError, KeyError, TypeError) as error:
            reason = str(error).split("\n")[0].split(" You can quantize this layer by")[0].rstrip(" .:")
            raise ValueError(_REASON.format(f"TFMOT cannot quantise model {model.name!r}: {reason}")) from None
        for layer in model.layers:
            if layer.weights and sorted(_variables(wrapped, layer)) != sorted(map(_last_part, layer.weights)):
                raise ValueError(_REASON.format(f"TFMOT writes layer {layer.name!r} of model {model.name!r} as others, "
                                                "which cannot be turned back"))
        return wrapped

    def finish(self, model):
        """Takes the 8-bit weights over into the plain model.

        Args:
            model: what `prepare` returned, trained.

        Returns:
            the model that `prepare` was given.
        """
        for layer in self._plain.layers:
            values = _variables(model, layer)
            for weight in layer.weights:
                weight.assign(values[_last_part(weight)])
        return self._plain


def _annotated(model):
    """The model with a wish for quantisation on all layers.

    Those that scale the inputs, which TFMOT does not know, are passed through.
    """
    if any(isinstance(layer, keras.Model) for layer in model.layers):
        raise ValueError("it does not take a model inside a model")

    def annotate(layer):
        config = NoOpQuantizeConfig() if isinstance(layer, keras.layers.Rescaling) else None
        return tfmot.quantization.keras.quantize_annotate_layer(layer, config)

    return keras.models.clone_model(model, clone_function=annotate)


def _variables(wrapped, layer):
    """{last part of a weight's name: value}, of what has taken the layer's place in the wrapped model; {}: nothing."""
    found = [part for part in wrapped.layers if layer.name in (part.name, getattr(_inner(part), "name", None))]
    if not found:
        return {}
    values = {_last_part(weight): weight for weight in _inner(found[0]).weights}
    if isinstance(found[0], QuantizeWrapper):
        # The wrapper has replaced these attributes of the layer by tensors. In "training" the grid is that of the
        # weights as they are now; otherwise it would be that of the last step.
        values |= {_last_part(weight): quantizer(weight, True, weights=variables)
                   for weight, quantizer, variables in found[0]._weight_vars}
    return values


def _inner(layer):
    return layer.layer if isinstance(layer, QuantizeWrapper) else layer


def _last_part(weight):
    return weight.name.split("/")[-1].split(":")[0]
