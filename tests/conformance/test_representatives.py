"""One representative of each family × every property."""

import pytest

from tests.conformance.catalogue import CATALOGUE
from tests.conformance.matrix import PROPERTIES

# What takes long is left to the full matrix, but for one family.
_QUICK = ("normalization", "dropout", "residual", "wide_resnet", "densenet")
ONLY_FOR = {"processes": ("image_classification",), "servers": ("densenet",), "replicas": _QUICK, "mesh": _QUICK}
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
