"""The application over several processes, with one of them killed."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tf_keras as keras

from apps.common import fitting
from apps.image_classification import train as train_lib
from apps.image_classification.config import Config
from strategies import cluster
from strategies.supervisor import free_ports
from tests import clusters

MODEL = "wrn_10_1"  # three residual blocks with batch norm and dropout: most of a run is the start of its processes

def weights(folder):
    return keras.models.load_model(folder / "model.keras", compile=False).get_weights()


def kill(name):
    return lambda supervisor: os.kill(supervisor.processes[name], signal.SIGKILL)


def test_two_processes_are_two_replicas_also_when_one_was_killed(tmp_path):
    code, lines, restarts = clusters.train(tmp_path / "group", f"--model={MODEL}", "--epochs=2", workers=2,
                                           hurt=kill("worker 1"), after_step=10)
    assert (code, restarts) == (0, 1), lines
    started = max(i for i, line in enumerate(lines) if "is process" in line)
    assert not any("UNAVAILABLE" in line for line in lines[started:])  # the chief's end is no failure
    train_lib.train(Config(data="digits", model=MODEL, width=0.25, dropout=0.2, batch_size=32, epochs=2,
                           export="none", verbose=0, distribution="sync", num_devices=2,
                           workdir=str(tmp_path / "replicas")))
    for a, b in zip(weights(tmp_path / "group"), weights(tmp_path / "replicas"), strict=True):
        np.testing.assert_array_equal(a, b)
    rows, expected = (fitting.read_history(tmp_path / name / "history.csv") for name in ("group", "replicas"))
    for row, other in zip(rows, expected, strict=True):  # sums over an epoch were made in another order
        assert row == pytest.approx(other, rel=1e-5)


@pytest.mark.conformance
def test_a_chain_under_servers_survives_the_death_of_one(tmp_path):
    code, lines, restarts = clusters.train(
        tmp_path, f"--model={MODEL}", "--epochs=3", "--compression=prune", "--compression_epochs=3",
        "--max_staleness=8", workers=2, servers=1, hurt=kill("ps 0"), after_step=10)
    assert (code, restarts) == (0, 1), lines
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test_accuracy"] > 0.3 and metrics["steps"] >= 6 * 40
    kernels = [w for w in weights(tmp_path) if w.ndim > 1]
    assert np.mean([np.mean(k == 0) for k in kernels]) == pytest.approx(0.8, abs=0.02)
    rows = fitting.read_history(tmp_path / "phases" / "01_prune" / "history.csv")
    assert [row["epoch"] for row in rows] == [0, 1, 2] and rows[-1]["sparsity"] == pytest.approx(0.8, abs=0.01)
    assert all(0 <= row["dropped_share"] < 1 and row["staleness_max"] >= 0 for row in rows)


@pytest.mark.parametrize("distribution, job, words", [
    ("multi_worker", "worker", "no answer from 127.0.0.1:{other} within --cluster_timeout=3 s"),
    ("async", "chief", "no answer from 127.0.0.1:{own}, 127.0.0.1:{other} within --cluster_timeout=3 s"),
    pytest.param("async", "ps", "no answer from the coordinator, 127.0.0.1:{chief}, within --cluster_timeout=3 s",
                 marks=pytest.mark.conformance)])
def test_who_never_comes_is_a_clear_error(tmp_path, distribution, job, words):
    ports = dict(zip(("own", "other", "chief"), free_ports(3)))
    own, other, chief = (f"127.0.0.1:{port}" for port in ports.values())
    jobs = {"worker": [own, other]} if job == "worker" else {"chief": [chief], "worker": [own], "ps": [other]}
    done = subprocess.run(
        [sys.executable, "-m", "apps.image_classification.train", f"--distribution={distribution}",
         "--cluster_timeout=3", f"--workdir={tmp_path / 'run'}"], capture_output=True, text=True, timeout=120,
        env={**os.environ, "TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": job, "index": 0}})})
    assert done.returncode == cluster.EXIT_RETRY
    assert f"error: {words.format(**ports)}" in done.stderr
    assert not (tmp_path / "run").exists()
