"""The tests run with the settings of the binaries, which `apps` makes before TensorFlow is imported.

Four logical devices on the processor stand in for accelerators; they cannot be made once TensorFlow has begun.
"""

import apps  # noqa: F401  isort: skip

from strategies.distribution import devices

devices.local_devices(4)
