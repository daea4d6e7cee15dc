"""How a model is made smaller: each method has `prepare(model)`, to train the result, and `finish(model)`."""

from layers.checking import unknown_name
from strategies.compression.distillation import Distillation
from strategies.compression.low_bit import LowBit
from strategies.compression.pruning import Pruning
from strategies.compression.quantization import Quantization, calibrate
from strategies.compression.sharing import WeightSharing
from strategies.compression.structured import FilterPruning

__all__ = ["METHODS", "Distillation", "FilterPruning", "LowBit", "Pruning", "Quantization", "WeightSharing",
           "calibrate", "check_chain"]

# In the order in which they may follow each other: what comes later keeps what came before.
METHODS = {"distill": Distillation, "filters": FilterPruning, "prune": Pruning, "share": WeightSharing,
           "quantize": Quantization, "low_bit": LowBit}
_LAST = ("share", "quantize", "low_bit")  # each sets the values of the weights: one of them at most


def check_chain(names):
    """The names of methods, when they can follow each other in this order.

    Raises:
        ValueError: an unknown name, one twice, or an order or pair in which a method would undo another.
    """
    names = list(names)
    for name in names:
        if name not in METHODS:
            raise unknown_name("compression", name, METHODS)
    if names != sorted(set(names), key=list(METHODS).index):
        raise ValueError(f"compression={','.join(names)} is not a legal order: expected each method once, in the order "
                         f"{', '.join(METHODS)}. What comes later keeps what came before, not the other way round.")
    last = [name for name in names if name in _LAST]
    if len(last) > 1:
        raise ValueError(f"{' and '.join(last)} exclude each other: each sets the values that weights may have. Choose "
                         "one of them.")
    return names
