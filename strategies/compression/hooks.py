"""Weights and outputs that pass through a function whenever their layer is called.

Masks, codebooks and fake quantisation all say "compute with f(w) instead of w". A hook does that from outside, for any
layer, nested or not, without wrapping it: for the duration of a call the layer's attribute holds f(w). The model stays
the same object with the same variables under the same names, so optimizer, checkpoints, distribution and `fit` need not
know about it; gradients reach w through f.
"""

import contextlib
import dataclasses
import re

import tensorflow as tf
import tf_keras as keras
from tf_keras.src.mixed_precision import autocast_variable

TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
_ATTRIBUTE = "compression_hook"


@dataclasses.dataclass(frozen=True)
class Slot:
    """A weight and where it is read.

    Attributes:
        caller: the layer whose call reads the weight. Of a recurrent network that is the layer that loops, not its
            cell: inside the loop a function of the weight would be computed at every time step.
        owner: the layer that has the weight as attribute: `caller`, or its cell.
        attribute: its name there.
        variable: the weight.
    """

    caller: keras.layers.Layer
    owner: keras.layers.Layer
    attribute: str
    variable: tf.Variable

    @property
    def key(self):
        """What tells the slots of one caller apart."""
        return f"{self.owner.name}.{self.attribute}"

    @property
    def name(self):
        """The variable's name without :0, unique in the models of the suite."""
        return self.variable.name.split(":")[0]


def channel_axes(slot):
    """(axes of the input channels, axes of the output channels) of a kernel; the others are places of a window."""
    owner, rank = slot.owner, slot.variable.shape.rank
    if isinstance(owner, keras.layers.EinsumDense) and slot.attribute == "kernel":
        inputs, output = owner.equation.split("->")
        is_output = [letter in output for letter in inputs.split(",")[1]]
        return tuple(tuple(axis for axis in range(rank) if is_output[axis] == wanted) for wanted in (False, True))
    if isinstance(owner, TRANSPOSED):
        return (rank - 1,), (rank - 2,)
    return (rank - 2,), (rank - 1,)


class Hook(keras.layers.Layer):
    """State and functions of one layer; attached to it as a sublayer, so that Keras tracks the state.

    Args:
        slots: `Slot`s of the weights that pass through `weight`.

    Subclasses override `weight` and `output`, and create their state by `state`.
    """

    def __init__(self, caller, slots=()):
        super().__init__(name=f"{caller.name}_{type(self).__name__.lower()}")
        self._caller_name = caller.name
        self.slots = tuple(slots)
        self._masks = {}

    def mask_zeros(self, *, always=False):
        """Gives each weight that has zeros a mask under which they stay 0; `always`: also weights without zeros."""
        for slot in self.slots:
            value = slot.variable.numpy()
            if always or not value.all():
                self._masks[slot.key] = self.state(f"{slot.attribute}_mask", (value != 0).astype(value.dtype))

    def mask(self, slot):
        """The variable that masks the weight of a slot (1 stays, 0 is removed), or None."""
        return self._masks.get(slot.key)

    def masked(self, slot, value):
        """value * mask, or value."""
        return value if self.mask(slot) is None else value * self.mask(slot)

    def state(self, name, value, dtype=None, *, by_replica=False):
        """A weight that is not trained, named after the layer and saved with the model.

        Args:
            name: its last part.
            value: initial value, array.
            dtype: of the variable, of `value` by default.
            by_replica: each replica moves its own copy in training, and their mean is what is saved, as with the
                statistics of batch normalisation. Otherwise all copies are equal, and only callbacks change them.
        """
        value = tf.convert_to_tensor(value, dtype)
        synchronization = tf.VariableSynchronization.ON_READ if by_replica else tf.VariableSynchronization.AUTO
        # Copies that are equal have no need of a mean, which whole numbers do not have.
        aggregation = tf.VariableAggregation.MEAN if by_replica else tf.VariableAggregation.ONLY_FIRST_REPLICA
        with tf.name_scope(self._caller_name):
            return self.add_weight(name=name, shape=value.shape, dtype=value.dtype, trainable=False,
                                   initializer=keras.initializers.Constant(value.numpy()),
                                   synchronization=synchronization, aggregation=aggregation,
                                   experimental_autocast=False)

    def weight(self, slot, value):
        """What stands in for a weight: `value` is the weight in its own precision; returns a tensor of its shape."""
        return value

    def inputs(self, value):
        """What stands in for the first argument of the layer's call."""
        return value

    def output(self, value):
        """What stands in for the output of the layer."""
        return value

    @contextlib.contextmanager
    def _swapped(self):
        try:
            for slot in self.slots:
                slot.owner.__dict__[slot.attribute] = self._replacement(slot)
            yield
        finally:
            for slot in self.slots:
                slot.owner.__dict__[slot.attribute] = slot.variable

    def _replacement(self, slot):
        with autocast_variable.enable_auto_cast_variables(None):  # f sees the master weights, not 16-bit copies
            value = self.weight(slot, tf.convert_to_tensor(slot.variable))
        casts = isinstance(slot.variable, autocast_variable.AutoCastVariable)
        return tf.cast(value, slot.owner.compute_dtype) if casts else value


def install(layer, hook):
    """Lets every later call of `layer` go through `hook`.

    Raises:
        ValueError: the layer has a hook already.
    """
    if getattr(layer, _ATTRIBUTE, None) is not None:
        raise ValueError(f"Layer {layer.name!r} is being compressed already by a "
                         f"{type(getattr(layer, _ATTRIBUTE)).__name__}; call finish on the model first.")
    original, own = layer.call, layer.__dict__.get("call")

    def call(inputs, *args, **kwargs):
        with hook._swapped():
            outputs = original(hook.inputs(inputs), *args, **kwargs)
        return hook.output(outputs)

    setattr(layer, _ATTRIBUTE, hook)
    # Not by setattr, which would track the function as part of the layer's state.
    layer.__dict__["call"] = call
    call.replaced = own  # a layer that Keras makes of an operator, such as a slice, has a call of its own


def hook_weights(model, slots, make_hook):
    """Installs `make_hook(layer, its slots)` on each layer that reads one of the slots."""
    by_layer = {}
    for slot in slots:
        by_layer.setdefault(id(slot.caller), []).append(slot)
    for mine in by_layer.values():
        install(mine[0].caller, make_hook(mine[0].caller, mine))
    forget_traces(model)


def bake(model):
    """Writes what the hooks stand in for weights into the weights, and takes the hooks away. Returns the model."""
    for layer in hooked_layers(model):
        hook = hook_of(layer)
        for slot in hook.slots:
            slot.variable.assign(hook.weight(slot, tf.convert_to_tensor(slot.variable)))
    remove(model)
    return model


@tf.custom_gradient
def straight_through(value, replacement):
    """`replacement`, to the last bit, with the gradient of `value` itself (Bengio et al. 2013, arXiv 1308.3432)."""
    return tf.identity(replacement), lambda gradient: (gradient, tf.zeros_like(gradient))


def remove(model):
    """Takes all hooks of a model away, with their state."""
    for layer in hooked_layers(model):
        own = layer.__dict__.pop("call").replaced
        if own is not None:
            layer.__dict__["call"] = own
        delattr(layer, _ATTRIBUTE)
    forget_traces(model)


def forget_traces(model):
    """Lets Keras trace `fit`, `evaluate` and `predict` anew: graphs that it keeps hold the layers as they were."""
    model.train_function = model.test_function = model.predict_function = None


def hooked_layers(model):
    """The layers of a model that have a hook, in order."""
    return [layer for layer in leaf_layers(model) if getattr(layer, _ATTRIBUTE, None) is not None]


def hook_of(layer):
    """The layer's hook, or None."""
    return getattr(layer, _ATTRIBUTE, None)


def leaf_layers(model):
    """Layers that compute something themselves, in order, each once: models and composite layers are taken apart.

    Recurrent layers are leaves, with their cells.
    """
    leaves, seen = [], set()

    def visit(layer):
        if id(layer) in seen or isinstance(layer, Hook):
            return
        seen.add(id(layer))
        children = [] if isinstance(layer, keras.layers.RNN) else _sublayers(layer)
        for child in children:
            visit(child)
        if not isinstance(layer, keras.Model) and (not children or _own_variables(layer)):
            leaves.append(layer)

    visit(model)
    return leaves


def weight_slots(model, *, select=".*"):
    """Where the trainable matrices and kernels of a model are read.

    Args:
        model: built `keras.Model`.
        select: regular expression; slots whose name it is found in.

    Returns:
        list of `Slot`, one for each trainable variable of rank 2 or more that is no bias.

    Raises:
        ValueError: such a variable is not an attribute of a layer, or its layer is called under another's name, so that
            it cannot be replaced from outside; or `select` is no regular expression, or finds none.
    """
    try:
        pattern = re.compile(select)
    except re.error as error:
        raise ValueError(f"{select!r} is not a regular expression ({error}).") from None
    slots, found = [], set()
    for layer in leaf_layers(model):
        owners = _with_cells(layer) if isinstance(layer, keras.layers.RNN) else [layer]
        for owner in owners:
            for attribute, value in list(owner.__dict__.items()):
                if _is_matrix(value) and id(value) not in found:
                    found.add(id(value))
                    slots.append(Slot(layer, owner, attribute, value))
    missed = [w.name for w in model.trainable_weights if _is_matrix(w) and id(w) not in found]
    if missed:
        raise ValueError(f"Weight {missed[0]!r} cannot be compressed: it is not an attribute of its layer. Keep it as "
                         "self.<name> there, not in a list or dictionary.")
    chosen = [slot for slot in slots if pattern.search(slot.name)]
    if not chosen:
        raise ValueError(f"No weight of model {model.name!r} matches {select!r}: expected part of one of "
                         f"{', '.join(slot.name for slot in slots[:8])}{', …' if len(slots) > 8 else ''}.")
    return chosen


def _sublayers(layer):
    return [child for child in layer._flatten_layers(recursive=False, include_self=False)
            if not isinstance(child, Hook)]


def _with_cells(layer):
    return [layer, *(child for child in layer._flatten_layers(include_self=False) if not isinstance(child, Hook))]


def _own_variables(layer):
    return any(isinstance(value, tf.Variable) for value in layer.__dict__.values())


def _is_matrix(value):
    return isinstance(value, tf.Variable) and value.trainable and value.shape.rank >= 2 and "bias" not in value.name
