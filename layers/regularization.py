"""Regularisation: dropout that can be repeated, L1 and L2 penalties, and weight decay on kernels only.

Shapes: B batch (the rows of one replica), n elements of a row.
"""

import functools
import numbers

import tensorflow as tf
import tf_keras as keras

from layers.naming import NamedOnLoading

PHILOX = 1  # `tf.random.Algorithm.PHILOX`: a counter-based generator, so any part of a stream can be drawn alone.
WORDS_PER_COUNT = 4  # One value of Philox' counter yields four 32-bit words.


@keras.utils.register_keras_serializable("usagi")
class StatelessDropout(NamedOnLoading, keras.layers.Layer):
    """Inverted dropout whose mask is a pure function of (seed, step, global row).

    y = x * mask / (1 - rate) in training, y = x otherwise; each element of the mask is 0 with probability `rate`
    (Srivastava et al. 2014, section 10). The step is a weight of the layer, counted up by each call in training, so it
    is saved with the model: a resumed run draws the masks that the interrupted one would have drawn. The row is that of
    the *global* batch, so replicas that split it evenly draw together what one device draws for all of it. Eager, graph
    and XLA execution draw the same bits.

    Two layers with the same seed and shape drop the same elements: give each its own seed. With a batch that does not
    split evenly over the replicas masks are still valid, but not those of one device.

    Args:
        rate: probability to drop an element, 0 <= rate < 1.
        seed: whole number, 0 <= seed < 2**64.

    Call arguments:
        inputs: [B, ...], floating point.
        training: whether to drop.

    Returns:
        Same shape and dtype as inputs.

    Raises:
        ValueError: rate or seed out of range.
    """

    def __init__(self, rate, *, seed, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be at least 0 and below 1; received {rate!r}. Pass the share to drop: 0.3 "
                             "drops 30 %.")
        if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or not 0 <= seed < 2**64:
            raise ValueError(f"seed must be a whole number, at least 0 and below 2**64; received {seed!r}. Pass a "
                             "different one for each dropout layer of a model.")
        self.rate = float(rate)
        self.seed = int(seed)
        self.supports_masking = True

    def build(self, input_shape):
        # int64, since int32 variables are kept off accelerators. Each replica counts its own copy, which needs no
        # exchange between them; all copies are equal, so the first one is what is saved.
        self.step = self.add_weight(name="step", shape=[], dtype=tf.int64, initializer="zeros", trainable=False,
                                    synchronization=tf.VariableSynchronization.ON_READ,
                                    aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
        super().build(input_shape)

    def call(self, inputs, training=None):
        if training is None:
            training = keras.backend.learning_phase()
        is_training = tf.get_static_value(training) if tf.is_tensor(training) else bool(training)
        if is_training is None:  # known only when the graph runs
            return tf.cond(tf.cast(training, tf.bool), lambda: self._drop(inputs), lambda: tf.identity(inputs))
        return self._drop(inputs) if is_training else tf.identity(inputs)

    def _drop(self, inputs):
        step = tf.identity(self.step)
        self.step.assign_add(1)
        keep = keep_mask(tf.shape(inputs), rate=self.rate, seed=self.seed, step=step,
                         first_row=_first_global_row(inputs))
        # Not a division: graph optimisation turns that into this product, and then eager and graph differ in a bit.
        return tf.where(keep, inputs * (1 / (1 - self.rate)), tf.zeros_like(inputs))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def keep_mask(shape, *, rate, seed, step, first_row=0):
    """Which elements survive dropout: rows `first_row` ... `first_row + B - 1` of the mask of (seed, step).

    Element j of row r is word j of the Philox stream with key `seed`, begun at counter (r * ceil(n / 4), step): no
    number depends on how many rows are drawn together.

    Args:
        shape: [B, ...], static or an integer tensor; n is the product of all but B.
        rate: probability to drop, 0 <= rate < 1.
        seed: key, 0 <= seed < 2**64.
        step: non-negative integer or tensor.
        first_row: row of the global batch that the first row here is; integer or tensor.

    Returns:
        bool of that shape, True = keep.
    """
    shape = tf.convert_to_tensor(shape)
    size = tf.reduce_prod(shape[1:])  # n
    counts = (size + WORDS_PER_COUNT - 1) // WORDS_PER_COUNT  # counter values a row takes
    first_count = tf.cast(first_row, tf.int64) * tf.cast(counts, tf.int64)
    bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=tf.stack([shape[0], counts * WORDS_PER_COUNT]), key=tf.constant([seed], tf.uint64),
        counter=tf.cast(tf.stack([first_count, tf.cast(step, tf.int64)]), tf.uint64), alg=PHILOX, dtype=tf.uint32)
    # A comparison of integers is the same on every device; one of floats need not be.
    keep = bits[:, :size] >= tf.constant(round(rate * 2**32), tf.uint32)
    return tf.reshape(keep, shape)


def _first_global_row(inputs):
    """Number that the first row here has in the global batch.

    The only place in `layers/` that asks which replica it runs in: a mask that is right for the global batch depends on
    it, and Keras does not pass it to a layer. Without replicas the answer is 0, also while a model is being built
    inside a strategy's scope (no context there, and no data).
    """
    context = tf.distribute.get_replica_context()
    if context is None:
        return 0
    return tf.cast(context.replica_id_in_sync_group, tf.int64) * tf.cast(tf.shape(inputs)[0], tf.int64)


def kernel_variables(model):
    """Trainable matrices and convolution kernels of a built model: what a penalty or weight decay should act on.

    They are the trainable weights of rank >= 2 whose own name ends in "kernel" (also recurrent, depthwise, pointwise)
    or begins with "embedding": no bias (also not those of rank 2 that GRU and attention have), gamma or beta.
    """
    def is_kernel(weight):
        name = weight.name.split("/")[-1].split(":")[0]
        return weight.shape.rank >= 2 and (name.endswith("kernel") or name.startswith("embedding"))

    return [weight for weight in model.trainable_weights if is_kernel(weight)]


def add_weight_penalty(model, *, l1=0.0, l2=0.0):
    """Adds l1 * sum |w| + l2 * sum w^2 over the kernels of `model` to its loss.

    As `keras.regularizers.L1L2` on every kernel (no factor 1/2: the gradient is l1 * sign(w) + 2 * l2 * w), but chosen
    after the model is built. Keras adds it once a step, whatever the number of replicas. It is part of this object, not
    of its configuration: a clone or a reloaded model has none.

    Args:
        model: a built `keras.Model`.
        l1: factor of the absolute values, at least 0.
        l2: factor of the squares, at least 0.

    Returns:
        The same model; unchanged when both factors are 0.

    Raises:
        ValueError: a factor is negative, or the model has no kernels.
    """
    for name, factor in (("l1", l1), ("l2", l2)):
        if not factor >= 0:
            raise ValueError(f"{name} must be at least 0; received {factor!r}. Pass 0 for no such penalty.")
    if l1 == 0 and l2 == 0:
        return model
    for kernel in _kernels_of(model, "penalise"):
        model.add_loss(functools.partial(_penalty, kernel, l1, l2))
    return model


def decay_kernels_only(optimizer, model):
    """Restricts the decoupled weight decay of a Keras optimizer to the kernels of `model`.

    With `weight_decay=d` an optimizer does w <- w - learning_rate * d * w before each update, apart from the gradient
    and its moments (Loshchilov & Hutter 2019, algorithms 1 and 2, where the factor is called eta_t * lambda: lambda is
    d times the peak learning rate here). Stock Keras applies that to every trainable weight; biases, gamma and beta
    should not shrink. The choice is not part of the optimizer's configuration: call this again on a reloaded one.

    Args:
        optimizer: a `keras.optimizers.Optimizer`, before its first step.
        model: a built `keras.Model`.

    Returns:
        The same optimizer.

    Raises:
        ValueError: not such an optimizer, one that has taken a step, or a model without kernels.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # beneath loss scaling
    if not hasattr(optimizer, "exclude_from_weight_decay"):
        raise ValueError("Weight decay needs a keras.optimizers.Optimizer; received "
                         f"{type(optimizer).__module__}.{type(optimizer).__name__}. Legacy optimizers have none.")
    if getattr(optimizer, "_built", False):
        raise ValueError("Which weights decay must be chosen before the first step; received an optimizer that is "
                         "built already. Call decay_kernels_only before fit, or create a new optimizer.")
    kernels = {id(kernel) for kernel in _kernels_of(model, "decay")}
    optimizer.exclude_from_weight_decay(var_list=[w for w in model.trainable_weights if id(w) not in kernels])
    return optimizer


def _kernels_of(model, verb):
    kernels = kernel_variables(model)
    if not kernels:
        raise ValueError(f"There is nothing to {verb}: model {model.name!r} has {len(model.trainable_weights)} "
                         "trainable weights, none of them a kernel. Give matrices names that end in kernel.")
    return kernels


def _penalty(kernel, l1, l2):
    value = tf.zeros([], kernel.dtype)
    if l1:
        value += l1 * tf.reduce_sum(tf.abs(kernel))
    if l2:
        value += l2 * tf.reduce_sum(tf.square(kernel))
    return value
