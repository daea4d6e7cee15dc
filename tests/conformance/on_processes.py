"""Trains an entry of the catalogue as one process of a cluster; the chief keeps the weights.

    python -m tests.conformance.on_processes DISTRIBUTION ENTRY FILE
"""

import os
import sys

import numpy as np

from strategies import cluster, distribution
from strategies.distribution import asynchronous
from tests.conformance import distribution_properties
from tests.conformance.catalogue import CATALOGUE
from tests.strategies.distribution import replicas

TIMEOUT = 120.0


def main(name, entry_name, path):
    if name == "async" and cluster.read(asynchronous.JOBS).job != "chief":
        asynchronous.serve(TIMEOUT)
        return
    strategy = distribution.create(name, cluster_timeout=TIMEOUT)
    entry = next(entry for entry in CATALOGUE if entry.name == entry_name)
    model = replicas.train(strategy, distribution_properties._seeded(entry), distribution_properties._compile,
                           distribution_properties._batches(entry))
    if strategy.peers.is_chief:
        np.savez(path, *model.get_weights())
    else:
        strategy.peers.wait_for_chief()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
