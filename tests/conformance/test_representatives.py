"""One representative of each family × every property."""

import pytest

from tests.conformance.catalogue import CATALOGUE
from tests.conformance.matrix import PROPERTIES

# What takes long is left to the full matrix, but for a few families; and what whole runs of several processes show
# (tests/apps/image_classification/test_clusters.py), altogether.
_QUICK = ("normalization", "dropout", "residual", "attention")
ONLY_FOR = {"low_bits": _QUICK, "processes": (), "servers": (), "replicas": _QUICK, "mesh": _QUICK, "stages": _QUICK}
REPRESENTATIVES = {entry.family: entry for entry in reversed(CATALOGUE)}  # the first of each family


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("family", REPRESENTATIVES)
def test_representative(family, name):
    entry = REPRESENTATIVES[family]
    if family not in ONLY_FOR.get(name, REPRESENTATIVES):
        pytest.skip("in the full matrix")
    if name in entry.unsupported:
        pytest.skip(entry.unsupported[name])
    PROPERTIES[name](entry)
