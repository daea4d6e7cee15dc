"""One representative of each family × every property."""

import pytest

from tests.conformance.catalogue import CATALOGUE
from tests.conformance.matrix import PROPERTIES

REPRESENTATIVES = {entry.family: entry for entry in reversed(CATALOGUE)}  # the first of each family


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("family", REPRESENTATIVES)
def test_representative(family, name):
    entry = REPRESENTATIVES[family]
    if name in entry.unsupported:
        pytest.skip(entry.unsupported[name])
    PROPERTIES[name](entry)
