"""The network of `benchmarks.search_benchmark`."""

import numpy as np
import tensorflow as tf

from apps.alphago.go import features
from apps.alphago.go import rules as go
from benchmarks.search import usagi_worker


def test_it_is_as_sharp_as_a_trained_one():
    """So it takes over all kernels: searches of a flat policy would be another thing to measure."""
    rules = go.Rules(size=9)
    state = usagi_worker._after_random_moves(rules, 64)
    logits, value = usagi_worker.network_of("tower")(tf.cast(features.zero_planes(rules, state), tf.float32))
    legal = go.program(rules, "legal")(state)
    favourite = tf.reduce_max(tf.nn.softmax(tf.where(legal, logits, -1e9)), axis=1)
    assert 0.4 < np.mean(favourite) < 0.6 and 0.35 < np.std(value) < 0.65
