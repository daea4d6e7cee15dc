"""Optimizers and learning-rate schedules. A schedule is a function of step / total steps, so that a run scaled to
another budget goes through the same shape."""

import math

import tensorflow as tf
import tf_keras as keras

from layers.checking import unknown_name
from layers.regularization import decay_kernels_only

SHAPES = ("cosine", "step", "constant", "inverse_square_root")
OPTIMIZERS = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}


class _TrueNorm:
    """Makes the gradients of tables dense before they are clipped.

    Keras takes the norm of the rows of a sparse gradient, of which a table gets one for each token, also for those of
    the same entry: not the norm of their sum, and another one when a batch is taken in parts.
    """

    def apply_gradients(self, grads_and_vars, *args, **kwargs):
        dense = [(None if gradient is None else tf.convert_to_tensor(gradient), variable)
                 for gradient, variable in grads_and_vars]
        return super().apply_gradients(dense, *args, **kwargs)


_CLIPPING = {name: type(cls.__name__, (_TrueNorm, cls), {}) for name, cls in OPTIMIZERS.items()}


@keras.utils.register_keras_serializable("usagi")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0 to `peak`, then one of four shapes over the rest of the run.

    With p = share of the steps after warm-up that are done: cosine, peak·(1 + cos πp)/2 (Loshchilov & Hutter 2017,
    without restarts); step, peak divided by 10 at p = 1/2 and again at 3/4 (the milestones of He et al. 2016, section
    4.2); constant; inverse_square_root, peak·√(warm-up steps / step) (Vaswani et al. 2017, equation 3, whose peak is
    d_model^-½ · warm-up^-½).
    """

    def __init__(self, peak, total_steps, *, shape="cosine", warmup_fraction=0.0):
        if shape not in SHAPES:
            raise unknown_name("schedule", shape, SHAPES)
        self.peak = float(peak)
        self.total_steps = int(total_steps)
        self.shape = shape
        self.warmup_fraction = float(warmup_fraction)

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        warmup = float(round(self.warmup_fraction * self.total_steps))
        done = tf.clip_by_value((step - warmup) / max(1.0, self.total_steps - warmup), 0.0, 1.0)
        if self.shape == "cosine":
            factor = 0.5 * (1.0 + tf.cos(math.pi * done))
        elif self.shape == "step":
            factor = tf.where(done < 0.5, 1.0, tf.where(done < 0.75, 0.1, 0.01))
        elif self.shape == "inverse_square_root":
            factor = tf.math.rsqrt(tf.maximum(step + 1.0, warmup) / max(1.0, warmup))
        else:
            factor = tf.ones_like(done)
        # The first step gets 1/warmup of the peak, not 0, which would waste it.
        return self.peak * tf.where(step < warmup, (step + 1.0) / max(1.0, warmup), factor)

    def get_config(self):
        return {"peak": self.peak, "total_steps": self.total_steps, "shape": self.shape,
                "warmup_fraction": self.warmup_fraction}


def make_optimizer(config, total_steps, model):
    """The optimizer that a configuration describes, with decoupled weight decay on kernels only.

    Raises:
        ValueError: unknown optimizer or schedule.
    """
    if config.optimizer not in OPTIMIZERS:
        raise unknown_name("optimizer", config.optimizer, OPTIMIZERS)
    rate = Schedule(config.learning_rate, total_steps, shape=config.schedule, warmup_fraction=config.warmup_fraction)
    cls, options = OPTIMIZERS[config.optimizer], {}
    if config.gradient_clip:
        cls, options = _CLIPPING[config.optimizer], {"global_clipnorm": config.gradient_clip}
    if config.optimizer == "sgd":
        options |= {"momentum": config.momentum, "nesterov": bool(config.momentum)}
    else:
        options["beta_2"] = config.beta_2
    if config.optimizer == "adamw" or config.optimizer == "sgd" and config.weight_decay:
        options["weight_decay"] = config.weight_decay
    optimizer = cls(rate, **options)
    if config.weight_decay and config.optimizer != "adam":
        decay_kernels_only(optimizer, model)
    return optimizer
