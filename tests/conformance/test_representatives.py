"""One representative of each family × every property."""

import pytest

from tests.conformance.catalogue import CATALOGUE
from tests.conformance.matrix import PROPERTIES

# Each cell starts processes, for half a minute; the full matrix has those of all families.
OF_CLUSTERS = {"processes": "image_classification", "servers": "densenet"}
REPRESENTATIVES = {entry.family: entry for entry in reversed(CATALOGUE)}  # the first of each family


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("family", REPRESENTATIVES)
def test_representative(family, name):
    entry = REPRESENTATIVES[family]
    if OF_CLUSTERS.get(name, family) != family:
        pytest.skip("in the full matrix")
    if name in entry.unsupported:
        pytest.skip(entry.unsupported[name])
    PROPERTIES[name](entry)
