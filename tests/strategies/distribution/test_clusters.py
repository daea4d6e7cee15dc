"""Parameter servers against arithmetic, in processes of their own."""

import sys

import pytest

from strategies.supervisor import Supervisor


@pytest.mark.parametrize("workers, servers, names", [
    (1, 1, ["downpour", "one_worker", "downpour_evaluates"]), (2, 2, ["dropped", "parts"])])
def test_holds(workers, servers, names):
    lines = []
    supervisor = Supervisor([sys.executable, "-m", "tests.strategies.distribution.on_cluster", *names], max_restarts=0,
                            workers=workers, servers=servers, report=lines.append)
    assert supervisor.run() == 0, lines
