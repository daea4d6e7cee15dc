"""The tests run with the settings of the binaries, which `apps` makes before TensorFlow is imported."""

import apps  # noqa: F401
