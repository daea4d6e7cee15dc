"""Model parallelism by sharding: weights cut over a mesh of devices (DTensor), batch over another axis of it.

A tensor has one layout: for each of its axes the axis of the mesh along which it is cut, or none. TensorFlow derives
the layouts of what is computed and adds the communication; the model is written as for one device. Over the mesh axis
"batch" rows of the batch are cut, over "model" weights, by the rules of `RULES`: columns of dense kernels, heads of
attention, features of embeddings; filters of convolutions stay whole.
"""

import contextlib
import functools
import pathlib
import re

import tensorflow as tf
import tf_keras as keras
from tensorflow.experimental import dtensor
from tf_keras.src import backend

from layers import regularization
from layers.recurrent import TreeLSTM
from strategies.compression.hooks import leaf_layers
from strategies.copying import copy_model
from strategies.distribution import devices, segments
from strategies.distribution.held import held_updates
from strategies.distribution.micro_batches import Collector, as_part, counters_of, rows_of_part
from strategies.distribution.peers import Alone
from strategies.distribution.sharing import batch_norms, check_batch, raise_obstacle
from strategies.replacing import replaced, traced_anew

AXES = ("batch", "model")
WHOLE = "-"
# (class or name of the layer, attribute): for each axis of the weight the mesh axis that it is cut along.
RULES = {
    ("Dense", "kernel"): (WHOLE, "model"),
    ("Dense", "bias"): ("model",),
    ("Embedding", "embeddings"): (WHOLE, "model"),
    # Multi-head attention: [D, heads, D_head] into the heads, [heads, D_head, D] out of them.
    ("query", "kernel"): (WHOLE, "model", WHOLE),
    ("key", "kernel"): (WHOLE, "model", WHOLE),
    ("value", "kernel"): (WHOLE, "model", WHOLE),
    ("query", "bias"): ("model", WHOLE),
    ("key", "bias"): ("model", WHOLE),
    ("value", "bias"): ("model", WHOLE),
    ("attention_output", "kernel"): ("model", WHOLE, WHOLE),
}
# Layers that DTensor has no rules for: their loops or gradients cannot be cut, not even along the batch.
REFUSED = (keras.layers.RNN, TreeLSTM, keras.layers.DepthwiseConv1D, keras.layers.SeparableConv1D,
           keras.layers.SeparableConv2D, keras.layers.AveragePooling1D, keras.layers.AveragePooling3D)
_meshes = {}


class ModelParallel:
    """A model whose weights and batches are cut over a mesh of devices.

    Args:
        mesh: "batch:2,model:2", sizes of the axes; one of them may be left out.
        layout: rules that come before `RULES`, "pattern=axes" separated by semicolons, or the name of a file with one a
            line: variables whose name the regular expression matches are cut along these comma-separated axes, "-" for
            none.
        num_devices: must be the product of the sizes, if given.
        micro_batches: parts in which a batch is taken, one after another.

    Raises:
        ValueError: a malformed mesh or layout, or a mesh that does not fit the devices.
    """

    compiles = False  # DTensor compiles for itself
    refuses = {"quantize": "DTensor has no rules for fake quantisation",
               "low_bit": "DTensor has no rules for the loop over levels"}
    sees_steps = True
    peers = Alone()

    def __init__(self, *, mesh="", layout="", num_devices=0, micro_batches=1):
        self._sizes = parse_mesh(mesh)
        number = self._sizes["batch"] * self._sizes["model"]
        if num_devices not in (0, number):
            raise ValueError(f"--mesh={mesh} has {number} devices; received --num_devices={num_devices}. Leave it out.")
        self._rules = parse_layout(layout)
        names = devices.local_devices(number)
        self.mesh = _only_mesh(dtensor.create_mesh([(axis, self._sizes[axis]) for axis in AXES], devices=names))
        self._parts = micro_batches
        self.layouts = {}

    @staticmethod
    def obstacle(model):
        """As of `Single`."""
        refused = [layer.name for layer in leaf_layers(model) if isinstance(layer, REFUSED)
                   or isinstance(layer, keras.layers.AveragePooling2D) and not _is_mean_of_tiles(layer)
                   or isinstance(layer, keras.layers.DepthwiseConv2D) and not _is_sum_of_shifts(layer)]
        return "" if not refused else (f"--distribution=model_parallel has no rules for layer {refused[0]!r}. Use "
                                       "--distribution=pipeline.")

    def check(self, model, train):
        """Decides how each weight is cut; a model that is trained later has the weights of this one or fewer.

        Raises:
            ValueError: a layer that DTensor has no rules for, a rule of the user that matches no weight or does not fit
                it, or a batch that cannot be cut.
        """
        check_batch(train.batch_size, self._sizes["batch"], self._parts)
        raise_obstacle(self, model)
        self.layouts = assign_layouts(model, self._rules, self._sizes)

    @contextlib.contextmanager
    def scope(self):
        """Context in which the model and its optimizer are built: named variables are created in their layout."""

        def create(next_creator, **options):
            if not options.get("name"):  # Keras' counters of steps, which stay with the program
                return next_creator(**options)
            layout = self._layout_of(f"{tf.get_current_name_scope()}/{options['name']}")
            with tf.init_scope():
                value = options["initial_value"]
                value = tf.convert_to_tensor(value() if callable(value) else value, options.get("dtype"))
                return MeshVariable(_put(value, layout or self._whole(value)), trainable=options.get("trainable"),
                                    name=options["name"])

        with tf.variable_creator_scope(create):
            yield

    def fit(self, model, train, *, start_step, total_steps, validation=None, callbacks=(), verbose=1):
        """As `Single.fit`."""
        strangers = [w.name for w in model.trainable_weights if w.name.split(":")[0] not in self.layouts]
        if strangers:
            raise RuntimeError(f"check(model, train) has not seen variable {strangers[0]!r}: call it with a model of "
                               "the same layers, under names of your own.")
        with self.scope(), self._whole_masks(), _sums_of_shifts(), held_updates(model.optimizer, _in_layout), \
                self._on_mesh(model), contextlib.ExitStack() as changes:
            for each in (model, *getattr(model, "teachers", ())):
                changes.enter_context(_written_out(each))
            return segments.fit(model, lambda step: train(None, step), train.steps_per_epoch, start_step=start_step,
                                total_steps=total_steps, validation=None if validation is None else validation(),
                                callbacks=callbacks, verbose=verbose)

    def gather(self, model):
        """The trained weights as one ordinary model."""
        return copy_model(model)

    @contextlib.contextmanager
    def _on_mesh(self, model):
        """Within it Keras' `fit` and `evaluate` put batches on the mesh and compute there."""
        collector = Collector(model.optimizer)
        train = self._step_in_parts(model, collector) if self._parts > 1 else self._step(model.train_step)
        # Keras calls the makers for functions of an iterator over batches.
        makers = {f"make_{name}_function": _maker(step, getattr(model, f"_{name}_counter"))
                  for name, step in (("train", train), ("test", self._step(model.test_step)))}
        with collector.attached(), replaced(model, **makers), traced_anew(model):
            yield

    def _step(self, step):
        compiled = tf.function(step)  # traced for every shape: DTensor's layouts of unknown sizes are wrong
        return lambda batch: compiled(tf.nest.map_structure(self._put_batch, batch))

    def _step_in_parts(self, model, collector):
        """As `micro_batches`, but each part is a function of its own: within one DTensor does not keep the order in
        which a variable is written and read."""
        variables = []

        def gradients_of(batch, index):
            with as_part(index, self._parts), collector as pairs:
                results = model.train_step(batch)
            variables[:] = [variable for _, variable in pairs]
            return results, [None if gradient is None else tf.convert_to_tensor(gradient) for gradient, _ in pairs]

        def update(sums):
            model.optimizer.apply_gradients([(None if s is None else s / self._parts, variable)
                                             for s, variable in zip(sums, variables)])

        compiled, compiled_update = tf.function(gradients_of), tf.function(update)

        def step(batch):
            counters = [(counter, counter.numpy()) for counter in counters_of(model)]
            sums = None
            for index in range(self._parts):
                part = tf.nest.map_structure(
                    lambda t, index=index: self._put_batch(rows_of_part(t, index, self._parts)), batch)
                results, gradients = compiled(part, index)
                sums = gradients if sums is None else [g if s is None else s + g for s, g in zip(sums, gradients)]
                if index < self._parts - 1:
                    for counter, value in counters:
                        counter.assign(value)
            compiled_update(sums)
            return results

        return step

    @contextlib.contextmanager
    def _whole_masks(self):
        """Within it each device draws the whole mask of a dropout and takes its part: cut by DTensor, the draw gives
        other bits than on one device."""
        draw = regularization.keep_mask

        def keep_mask(*args, **kwargs):
            mask = draw(*args, **kwargs)
            return dtensor.relayout(mask, self._whole(mask))

        with replaced(regularization, keep_mask=keep_mask):
            yield

    def _put_batch(self, value):
        """A tensor [B, ...] on the mesh, cut along the batch where that divides it: the last batch of an evaluation may
        not."""
        rows = "batch" if value.shape[0] % self._sizes["batch"] == 0 else WHOLE
        return _put(value, self._layout((rows, *[WHOLE] * (value.shape.rank - 1))))

    def _layout_of(self, name):
        """Layout of the weight of that name, also of its slots, whose names end in it; None when it is no weight."""
        names = [known for known in self.layouts if f"/{name}".endswith(f"/{known}")]
        return self._layout(self.layouts[max(names, key=len)]) if names else None

    def _layout(self, axes):
        return dtensor.Layout([dtensor.UNSHARDED if axis == WHOLE else axis for axis in axes], self.mesh)

    def _whole(self, value):
        return dtensor.Layout.replicated(self.mesh, value.shape.rank)


class MeshVariable(dtensor.DVariable):
    """A variable on a mesh that is read and written as a whole from outside, as checkpoints do."""

    def numpy(self):
        """The whole value."""
        whole = dtensor.relayout(self.read_value(), dtensor.Layout.replicated(self.layout.mesh, self.shape.rank))
        return dtensor.unpack(whole)[0].numpy()

    def assign(self, value, *args, **kwargs):
        """Assigns a whole value, or one that is cut already."""
        if tf.executing_eagerly():
            value = _put(tf.convert_to_tensor(value, self.dtype), self.layout)
        return super().assign(value, *args, **kwargs)


def parse_mesh(text):
    """{"batch": size, "model": size} of "batch:2,model:2"; raises ValueError when it is something else."""
    sizes = dict.fromkeys(AXES, 1)
    for part in text.split(","):
        axis, _, size = part.strip().partition(":")
        if axis not in AXES or not size.isdigit() or int(size) < 1:
            raise ValueError(f"--mesh={text!r}: expected sizes of the axes {' and '.join(AXES)}, such as "
                             f"--mesh=batch:2,model:2; received {part.strip()!r}.")
        sizes[axis] = int(size)
    return sizes


def parse_layout(text):
    """[(compiled pattern, axes), ...] of the rules in a text or in the file of that name.

    Raises:
        ValueError: a malformed rule, or an axis that no mesh has.
    """
    if text and "=" not in text:
        path = pathlib.Path(text)
        if not path.is_file():
            raise ValueError(f"--layout={text}: expected rules such as 'fc1/kernel=-,model', or a file of them; there "
                             "is no such file.")
        text = ";".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    rules = []
    for rule in filter(None, (part.strip() for part in text.split(";"))):
        pattern, _, axes = rule.rpartition("=")
        axes = tuple(axis.strip() for axis in axes.split(","))
        unknown = [axis for axis in axes if axis not in (*AXES, WHOLE)]
        if not pattern or unknown:
            raise ValueError(f"--layout rule {rule!r}: expected pattern=axes with axes out of {', '.join(AXES)} and "
                             f"{WHOLE}" + (f"; received axis {unknown[0]!r}." if unknown else "."))
        try:
            rules.append((re.compile(pattern), axes))
        except re.error as error:
            raise ValueError(f"--layout: {pattern!r} is not a regular expression ({error}).") from None
    return rules


def assign_layouts(model, rules, sizes):
    """{name of a variable: for each axis the mesh axis that it is cut along, or "-"} for all variables of a model.

    A rule of `RULES` that does not divide a weight leaves it whole; one of the user's is an error then.

    Raises:
        ValueError: a rule of the user's matches no variable, or does not fit one.
    """
    layouts = {weight.name.split(":")[0]: (WHOLE,) * weight.shape.rank for weight in model.weights}
    for layer in leaf_layers(model):
        for attribute, variable in layer.__dict__.items():
            if isinstance(variable, tf.Variable):
                axes = RULES.get((layer.name, attribute)) or RULES.get((type(layer).__name__, attribute))
                if axes and not _misfit(variable.shape, axes, sizes):
                    layouts[variable.name.split(":")[0]] = axes
    shapes = {weight.name.split(":")[0]: weight.shape for weight in model.weights}
    for pattern, axes in reversed(rules):  # the first that matches counts
        matched = [name for name in layouts if pattern.search(name)]
        if not matched:
            raise ValueError(f"--layout: {pattern.pattern!r} matches no variable of {model.name!r}. Its variables are "
                             f"{', '.join(list(layouts)[:8])}{', …' if len(layouts) > 8 else ''}.")
        for name in matched:
            misfit = _misfit(shapes[name], axes, sizes)
            if misfit:
                raise ValueError(f"--layout: {name} has shape {tuple(shapes[name])}, and {','.join(axes)} {misfit}.")
            layouts[name] = axes
    return layouts


def _misfit(shape, axes, sizes):
    """Why axes do not fit a shape; empty when they do."""
    if len(axes) != len(shape):
        return f"has {len(axes)} axes"
    cut = [axis for axis in axes if axis != WHOLE]
    if len(set(cut)) != len(cut):
        return "cuts along one axis of the mesh twice"
    wrong = [axis for size, axis in zip(shape, axes) if axis != WHOLE and size % sizes[axis]]
    return f"does not divide it: {wrong[0]} has {sizes[wrong[0]]} devices" if wrong else ""


def _is_mean_of_tiles(layer):
    """Whether an average pooling takes the mean of each of the tiles that its input is cut into."""
    sizes = layer.input_shape[1:3]
    return layer.data_format == "channels_last" and layer.pool_size == layer.strides and not any(
        size is None or size % tile for size, tile in zip(sizes, layer.pool_size))


@contextlib.contextmanager
def _written_out(model):
    """Within it layers compute by operators that DTensor has rules for, also for their gradients."""
    with contextlib.ExitStack() as changes:
        for layer in batch_norms(model):
            changes.enter_context(replaced(layer, fused=False))
        for layer in leaf_layers(model):
            if isinstance(layer, keras.layers.AveragePooling2D):
                changes.enter_context(replaced(layer, call=functools.partial(_mean_of_tiles, *layer.pool_size)))
        yield


def _mean_of_tiles(rows, columns, inputs):
    _, height, width, channels = inputs.shape
    tiles = tf.reshape(inputs, [-1, height // rows, rows, width // columns, columns, channels])
    return tf.reduce_mean(tiles, axis=[2, 4])


def _is_sum_of_shifts(layer):
    return layer.data_format == "channels_last" and layer.depth_multiplier == 1 and layer.dilation_rate == (1, 1)


@contextlib.contextmanager
def _sums_of_shifts():
    """Within it a depthwise convolution is a sum of shifted images, since DTensor has no rule for its kernel."""
    with replaced(backend, depthwise_conv2d=_sum_of_shifts):
        yield


def _sum_of_shifts(x, depthwise_kernel, strides=(1, 1), padding="valid", data_format=None, dilation_rate=(1, 1)):
    windows, pads = [], []
    for size, length, stride in zip(x.shape[1:3], depthwise_kernel.shape[:2], strides):
        number = -(-size // stride) if padding == "same" else (size - length) // stride + 1
        missing = max((number - 1) * stride + length - size, 0)
        pads.append((missing // 2, missing - missing // 2))
        windows.append([slice(first, first + (number - 1) * stride + 1, stride) for first in range(length)])
    x = tf.pad(x, [(0, 0), *pads, (0, 0)])
    return tf.add_n([x[:, rows, columns] * depthwise_kernel[i, j, :, 0]
                     for i, rows in enumerate(windows[0]) for j, columns in enumerate(windows[1])])


def _maker(step, counter):
    def run(iterator):
        results = step(next(iterator))
        counter.assign_add(1)
        return {name: value.numpy() for name, value in results.items()}

    return lambda force=False: run


def _only_mesh(mesh):
    """The mesh, if it is the first of the process: DTensor mixes up tensors of two meshes."""
    first = _meshes.setdefault("first", mesh)
    if first != mesh:
        raise ValueError("A process can have one mesh, and another one has been made in it. Begin a new process.")
    return first


def _put(value, layout):
    if not dtensor.is_dtensor(value):
        value = dtensor.copy_to_mesh(value, dtensor.Layout.replicated(layout.mesh, value.shape.rank))
    return dtensor.relayout(value, layout)


def _in_layout(value, variable):
    return dtensor.relayout(value, variable.layout)
