"""Every way in which a process of a cluster can go, and that training goes on without a person."""

import json
import os
import signal

import numpy as np
import pytest
import tf_keras as keras

import apps.image_classification.models  # noqa: F401 - its layers are loaded by name
from tests import clusters

pytestmark = pytest.mark.conformance
FLAGS = ["--epochs=6", "--cluster_timeout=12"]
SPURIOUS = 1  # with so short a time-out a busy machine may take a member for lost that is not
SPREAD = 0.06  # three standard deviations of the difference of two undisturbed runs; benchmarks.chaos looks closer


def hurting(number, *names):
    def hurt(supervisor):
        for name in names:
            os.kill(supervisor.processes[name], number)
    return hurt


def accuracy(folder):
    return json.loads((folder / "metrics.json").read_text())["test_accuracy"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Folders of a run under each strategy that nobody disturbs."""
    folders = {}
    for servers in (0, 1):
        folders[servers] = tmp_path_factory.mktemp(f"undisturbed{servers}")
        assert clusters.train(folders[servers], *FLAGS, workers=2, servers=servers)[0] == 0
    return folders


@pytest.mark.parametrize("number, names, restarts", [
    (signal.SIGKILL, ["worker 1"], 1), (signal.SIGKILL, ["worker 0", "worker 1"], 2), (signal.SIGKILL, ["ps 0"], 1),
    (signal.SIGKILL, ["chief 0"], 1), (signal.SIGSTOP, ["worker 0"], 1), (signal.SIGSTOP, ["ps 0"], 1)], ids=str)
def test_servers(undisturbed, tmp_path, number, names, restarts):
    code, lines, found = clusters.train(tmp_path, *FLAGS, workers=2, servers=1, hurt=hurting(number, *names),
                                        after_step=60)
    assert code == 0 and restarts <= found <= restarts + SPURIOUS, lines
    assert accuracy(tmp_path) >= accuracy(undisturbed[1]) - SPREAD


@pytest.mark.parametrize("number, name", [(signal.SIGKILL, "worker 0"), (signal.SIGKILL, "worker 1"),
                                          (signal.SIGSTOP, "worker 0"), (signal.SIGSTOP, "worker 1"),
                                          (signal.SIGTERM, "worker 0"), (signal.SIGTERM, "worker 1")], ids=str)
def test_group(undisturbed, tmp_path, number, name):
    code, lines, found = clusters.train(tmp_path, *FLAGS, workers=2, hurt=hurting(number, name), after_step=60)
    assert code == 0 and 1 <= found <= 1 + SPURIOUS, lines
    models = [keras.models.load_model(folder / "model.keras", compile=False) for folder in (tmp_path, undisturbed[0])]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("servers", [0, 1])
def test_sigterm_and_the_same_command_again(undisturbed, tmp_path, servers):
    code, lines, _ = clusters.train(tmp_path, *FLAGS, workers=2, servers=servers, after_step=60,
                                    hurt=lambda supervisor: os.kill(os.getpid(), signal.SIGTERM))
    assert code == 143, lines
    step = clusters.last_step(tmp_path)
    assert 60 <= step < 240
    assert clusters.train(tmp_path, *FLAGS, workers=2, servers=servers)[0] == 0
    assert accuracy(tmp_path) >= accuracy(undisturbed[servers]) - SPREAD
