"""Model parallelism by placement: layers of one model on several devices, parts of a batch flowing through them.

    stages    consecutive layers to each device, balanced by the bytes of their weights; with micro-batches device i
              works on one part of the batch while device i + 1 works on the part before it (GPipe, Huang et al. 2019,
              arXiv 1811.06965, section 2)
    branches  layers that do not wait for each other to different devices

Weights and optimizer slots live where their layer computes, its gradient is computed there too, and only activations
and their gradients travel. For any functional model; what it computes is what one device computes.
"""

import contextlib
import itertools

import numpy as np
import tensorflow as tf
from tf_keras.src.engine.functional import Functional

from layers.checking import unknown_name
from strategies import graph
from strategies.copying import copy_model
from strategies.distribution import devices, segments
from strategies.distribution.micro_batches import micro_batches
from strategies.distribution.peers import Alone
from strategies.distribution.sharing import check_batch, raise_obstacle
from strategies.replacing import replaced, trained_by

PLACEMENTS = ("stages", "branches")
# What TFMOT's quantisation-aware training calls the layers that stand in for those of a model.
_WRAPPED, _OF_INPUTS = "quant_", "quantize_layer"


class Pipeline:
    """Layers of a model on several devices.

    Args:
        num_devices: 0: all accelerators.
        micro_batches: parts of a batch, each of which goes through the devices as soon as they are free.
        placement: one of `PLACEMENTS`.
    """

    compiles = False  # XLA compiles for one device
    refuses = {}
    sees_steps = True
    peers = Alone()

    def __init__(self, *, num_devices=0, micro_batches=1, placement="stages"):
        if placement not in PLACEMENTS:
            raise unknown_name("placement", placement, PLACEMENTS)
        self.devices = devices.local_devices(num_devices)
        self._parts, self._placement = micro_batches, placement
        self.plan = {}

    @staticmethod
    def obstacle(model):
        """As of `Single`."""
        return "" if isinstance(model, Functional) else (
            f"--distribution=pipeline places the layers of a functional model; {model.name!r} is a "
            f"{type(model).__name__}. Build it with keras.Model(inputs, outputs).")

    def check(self, model, train):
        """Decides which layer goes where; a model that is trained later has the layers of this one or fewer.

        Raises:
            ValueError: the model is not functional, has fewer layers with weights than there are devices, or the batch
                cannot be cut.
        """
        check_batch(train.batch_size, 1, self._parts)
        raise_obstacle(self, model)
        place = {"stages": stages, "branches": branches}[self._placement]
        plan = {name: self.devices[index] for name, index in place(model, len(self.devices)).items()}
        self.plan = {_OF_INPUTS: self.devices[0], **{_WRAPPED + name: device for name, device in plan.items()}, **plan}

    @contextlib.contextmanager
    def scope(self):
        """Context in which the model and its optimizer are built: variables are created where their layer will be."""

        def create(next_creator, **options):
            with tf.device(self._device_of(f"{tf.get_current_name_scope()}/{options.get('name')}")):
                return next_creator(**options)

        with tf.variable_creator_scope(create):
            yield

    def fit(self, model, train, *, start_step, total_steps, validation=None, callbacks=(), verbose=1):
        """As `Single.fit`."""
        strangers = [layer.name for layer in model.layers if layer.name not in self.plan and layer.weights]
        if strangers:
            raise RuntimeError(f"check(model, train) has not seen layer {strangers[0]!r}: call it with a model of the "
                               "same layers, under names of your own.")
        with self.scope(), micro_batches(model, self._parts, overlap=True), self._placed(model):
            return segments.fit(model, lambda step: train(None, step), train.steps_per_epoch, start_step=start_step,
                                total_steps=total_steps, validation=None if validation is None else validation(),
                                callbacks=callbacks, verbose=verbose)

    def gather(self, model):
        """The trained weights as one ordinary model."""
        return copy_model(model)

    def _device_of(self, name):
        """Where what bears this name belongs: to the first layer of the plan in its path; None when there is none."""
        return next((self.plan[part] for part in name.split(":")[0].split("/") if part in self.plan), None)

    @contextlib.contextmanager
    def _placed(self, model):
        """Within it the layers of the plan, their gradients and their updates are computed on their devices."""
        train_step, optimizer = model.train_step, getattr(model.optimizer, "inner_optimizer", model.optimizer)
        update_step = optimizer.update_step

        def placed_step(data):
            with tf.compat.v1.device(self._place):
                return train_step(data)

        def placed_update(gradient, variable):
            with tf.device(variable.device):
                return update_step(gradient, variable)

        with contextlib.ExitStack() as changes:
            for layer in model.layers:
                if layer.name in self.plan:
                    changes.enter_context(replaced(layer, call=_on_device(self.plan[layer.name], layer.call)))
            changes.enter_context(trained_by(model, placed_step))
            changes.enter_context(replaced(optimizer, update_step=placed_update))
            yield

    def _place(self, operation):
        """The device of an operation of the training step that stands in no layer's call.

        That of a gradient bears the name of the operation that it belongs to; TensorFlow would compute them all on the
        first device. Others, such as sums of gradients, go to the earliest stage that their inputs come from.
        """
        if operation.device or any(tensor.dtype == tf.resource for tensor in operation.inputs):
            return operation.device
        named = self._device_of(operation.name)
        if named is not None:
            return f"/device:{named}"
        reached = [self.devices.index(name) for tensor in operation.inputs
                   for name in [tensor.op.device.rpartition("/")[2].removeprefix("device:")] if name in self.devices]
        return f"/device:{self.devices[min(reached)]}" if reached else ""


def stages(model, number):
    """{layer name: stage}: consecutive layers, so that the sum of the squares of the stages' bytes is smallest.

    Raises:
        ValueError: fewer layers with weights than stages.
    """
    layers = _layers(model)
    sizes = np.array([_bytes(layer) for layer in layers], float)
    if np.count_nonzero(sizes) < number:
        raise ValueError(f"--num_devices={number}: {model.name!r} has {np.count_nonzero(sizes)} layers with weights. "
                         "Give no more devices than that.")
    ends = np.concatenate([[0], np.cumsum(sizes)])  # bytes before each cut
    # best[j]: smallest sum of squares of the first j layers in the stages so far; cuts: where the last of them begins.
    best, cuts = ends ** 2, []
    for _ in range(number - 1):
        costs = best[None, :] + (ends[:, None] - ends[None, :]) ** 2
        costs[np.triu_indices(len(ends), 0)] = np.inf
        cuts.append(costs.argmin(axis=1))
        best = costs.min(axis=1)
    begins, end = [], len(layers)
    for cut in reversed(cuts):
        end = int(cut[end])
        begins.insert(0, end)
    return {layer.name: sum(index >= begin for begin in begins) for index, layer in enumerate(layers)}


def branches(model, number):
    """{layer name: device}: of the readers of an output one stays on its device, others go to the next ones in turn.

    Raises:
        ValueError: the model has no branches.
    """
    places, heirs, free = {}, set(), itertools.cycle(range(number))
    next(free)
    for node in graph.nodes(model):
        if node.layer.name in places:
            continue
        parents = [tensor._keras_history.layer.name for tensor in node.keras_inputs]
        parent = next((name for name in parents if name in places), None)
        if parent is None:
            places[node.layer.name] = 0
        elif parent not in heirs or len(parents) > 1:
            heirs.add(parent)
            places[node.layer.name] = places[parent]
        else:
            places[node.layer.name] = next(free)
    if len(set(places.values())) < 2:
        raise ValueError(f"{model.name!r} has no branches to place. Use --placement=stages.")
    return places


def _layers(model):
    return list({id(node.layer): node.layer for node in graph.nodes(model)}.values())


def _bytes(layer):
    return sum(weight.shape.num_elements() * weight.dtype.size for weight in layer.weights)


def _on_device(device, call):
    def placed(inputs, *args, **kwargs):
        with tf.device(device):
            # A copy here, so that the gradient finds the layer's input on the layer's device.
            return call(tf.nest.map_structure(tf.identity, inputs), *args, **kwargs)

    return placed
