"""One representative of each family × every property, and the state of the full matrix."""

import pytest

from tests.conformance import matrix
from tests.conformance.catalogue import CATALOGUE
from tests.conformance.properties import PROPERTIES

REPRESENTATIVES = {entry.family: entry for entry in reversed(CATALOGUE)}  # the first of each family


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("family", REPRESENTATIVES)
def test_representative(family, name):
    entry = REPRESENTATIVES[family]
    if name in entry.unsupported:
        pytest.skip(entry.unsupported[name])
    PROPERTIES[name](entry)


def test_the_full_matrix_was_run_on_this_source():
    missing = [f"{entry.name} {name}" for entry, name in matrix.missing_cells(matrix.read_results())]
    assert not missing, f"run `make conformance`: {len(missing)} cells are missing or stale, such as {missing[:5]}"
