"""Applications: one folder each, all with the same file names (config, data, models, train, predict, README)."""

import os

# Before TensorFlow is imported: by itself it uses oneDNN only on processors with AVX-512 VNNI or more, and convolutions
# take twice as long without it on others (benchmarks/onednn.py). An existing setting is left alone.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# The suite is written for tf_keras, as TFMOT is; without this TensorFlow imports Keras 3 as well.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
