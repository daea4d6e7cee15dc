"""The devices of this machine that a strategy spreads over: accelerators, or logical ones on the processor."""

import tensorflow as tf


def local_devices(number=0):
    """Names of devices for replicas, shards or stages.

    A machine without accelerators stands in with logical devices on its processor, which share its cores: they show
    that a model is spread rightly, not how fast that is. Call it before TensorFlow has run anything, since logical
    devices cannot be added later.

    Args:
        number: how many; 0 takes all accelerators.

    Returns:
        list of names such as "GPU:0" or "CPU:1".

    Raises:
        ValueError: fewer accelerators, no number where there is none, or TensorFlow has begun with fewer devices.
    """
    accelerators = tf.config.list_physical_devices("GPU")
    if accelerators:
        if number > len(accelerators):
            raise ValueError(f"--num_devices={number}: this machine has {len(accelerators)} accelerators. Give at most "
                             "as many, or 0 for all.")
        return [f"GPU:{i}" for i in range(number or len(accelerators))]
    if not number:
        raise ValueError("--num_devices=0 takes all accelerators, and this machine has none. Give --num_devices=2 for "
                         "two logical devices on its processor.")
    _make_logical(number)
    return [f"CPU:{i}" for i in range(number)]


def _make_logical(number):
    processor = tf.config.list_physical_devices("CPU")[0]
    planned = len(tf.config.get_logical_device_configuration(processor) or [None])
    if planned < number:
        try:
            tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * number)
        except RuntimeError:  # TensorFlow has begun
            raise ValueError(f"--num_devices={number}: TensorFlow runs already in this process, with {planned} logical "
                             "devices. Begin a new process.") from None
