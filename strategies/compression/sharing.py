"""Weight sharing: the weights of a layer take few values, so that a file of them compresses well.

Deep Compression (Han, Mao & Dally 2016, arXiv 1510.00149), section 3: k-means over a layer's weights, the centroids
evenly spread at the start, then training of what is shared. Which weight belongs to which cluster is fixed; removed
weights (0) are a cluster of their own that does not move. `tensorflow_model_optimization` has it as clustering, for the
layers that it knows; here any layer can have it (see `hooks`).

All weights of a cluster take the mean of their updates: the step of ordinary training, projected onto weights that are
tied. (The paper moves a centroid by the sum; that is the same step with a larger learning rate.)
"""

import numpy as np
import tensorflow as tf

from strategies.compression import hooks


class WeightSharing:
    """Trains a model whose weights share values: `prepare`, `fit`, `finish`.

    Args:
        clusters: k, the number of values a weight variable may have beside 0, at least 2.
        select: regular expression for the names of the weights, as in `Pruning`.

    Raises:
        ValueError: fewer than 2 clusters.
    """

    def __init__(self, *, clusters=16, select=".*"):
        if isinstance(clusters, bool) or clusters != int(clusters) or not 2 <= clusters <= 2**16:
            raise ValueError(f"clusters must be a whole number from 2 to 65536; received {clusters!r}.")
        self.clusters, self.select = int(clusters), select

    def prepare(self, model):
        """Groups the chosen weights. Returns the model."""
        slots = hooks.weight_slots(model, select=self.select)
        hooks.hook_weights(model, slots, lambda layer, mine: Clusters(layer, mine, self.clusters))
        return model

    def finish(self, model):
        """Writes the shared values into the weights. Returns the model, plain again."""
        return hooks.bake(model)


class Clusters(hooks.Hook):
    """Reads the weights of one layer as the means of their clusters."""

    def __init__(self, caller, slots, clusters):
        super().__init__(caller, slots)
        self._members, self._counts = {}, {}
        for slot in slots:
            members = assign_clusters(slot.variable.numpy(), clusters)
            self._members[slot.key] = self.state(f"{slot.attribute}_cluster", members)
            self._counts[slot.key] = int(members.max()) + 1

    def weight(self, slot, value):
        members = tf.reshape(tf.convert_to_tensor(self._members[slot.key]), [-1])
        count = self._counts[slot.key]
        flat = tf.reshape(value, [-1])
        is_kept = tf.cast(members > 0, flat.dtype)
        sums = tf.math.unsorted_segment_sum(flat * is_kept, members, count)
        sizes = tf.math.unsorted_segment_sum(tf.ones_like(flat), members, count)
        return tf.reshape(tf.gather(sums / tf.maximum(sizes, 1), members), value.shape)


def assign_clusters(weights, clusters):
    """The cluster of each weight: k-means in one dimension from evenly spread centroids.

    Args:
        weights: array.
        clusters: k; fewer are made when the weights have fewer values.

    Returns:
        int64 array like weights: 0 for a weight that is 0, else 1 ... k.
    """
    members = np.zeros(weights.shape, np.int64)
    alive = weights[weights != 0].astype(np.float64)
    if alive.size:
        import sklearn.cluster  # slow to import

        count = min(clusters, len(np.unique(alive)))
        centroids = np.linspace(alive.min(), alive.max(), count)[:, None]
        found = sklearn.cluster.KMeans(count, init=centroids, n_init=1, max_iter=100).fit(alive[:, None])
        members[weights != 0] = found.labels_ + 1
    return members
