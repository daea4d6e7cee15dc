"""Parameter servers against arithmetic, in processes of their own."""

import os
import sys

import pytest

from strategies.supervisor import Supervisor


@pytest.fixture
def cores(request):
    """This process, and what it starts, on so many cores; None: on all."""
    if request.param is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:request.param])
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("cores, workers, servers, names", [
    (1, 1, 1, ["downpour", "one_worker", "downpour_evaluates"]),  # where each program has one thread by default
    pytest.param(None, 2, 2, ["dropped", "parts"], marks=pytest.mark.conformance)], indirect=["cores"])
def test_holds(workers, servers, names):
    lines = []
    supervisor = Supervisor([sys.executable, "-m", "tests.strategies.distribution.on_cluster", *names], max_restarts=0,
                            workers=workers, servers=servers, report=lines.append)
    assert supervisor.run() == 0, lines
