"""Measurements: one program per question, each prints a table and keeps `results/<name>.json`."""

import apps  # noqa: F401 - before TensorFlow is imported: the settings of the binaries
