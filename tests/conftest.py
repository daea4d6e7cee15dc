"""The tests run with the settings of the binaries, which `apps` makes before TensorFlow is imported.

Four logical devices on the processor stand in for accelerators; they cannot be made once TensorFlow has begun.
"""

import apps  # noqa: F401  isort: skip

import pytest
from tensorflow.python.framework import config as tf_config

from apps.common import workdir
from strategies.distribution import devices

devices.local_devices(4)


@pytest.fixture(autouse=True)
def nothing_is_left():
    """A test that trains by an application leaves its precision, and determinism, in which XLA refuses some gradients.
    """
    yield
    tf_config.disable_op_determinism()
    workdir.set_precision("float32")
