"""Optimizers and learning-rate schedules. A schedule is a function of step / total steps, so that a run scaled to
another budget goes through the same shape."""

import math

import tensorflow as tf
import tf_keras as keras

from layers.checking import unknown_name
from layers.regularization import decay_kernels_only

SHAPES = ("cosine", "step", "constant", "inverse_square_root")
OPTIMIZERS = ("sgd", "adam", "adamw")


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
    rate = Schedule(config.learning_rate, total_steps, shape=config.schedule, warmup_fraction=config.warmup_fraction)
    clip = {"global_clipnorm": config.gradient_clip} if config.gradient_clip else {}
    decay = {"weight_decay": config.weight_decay} if config.weight_decay else {}
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=config.momentum, nesterov=bool(config.momentum), **clip,
                                         **decay)
    elif config.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(rate, **clip, weight_decay=config.weight_decay)
    elif config.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, **clip)
    else:
        raise unknown_name("optimizer", config.optimizer, OPTIMIZERS)
    if config.weight_decay and config.optimizer != "adam":
        decay_kernels_only(optimizer, model)
    return optimizer
