"""TF_CONFIG, ports and time-outs."""

import concurrent.futures
import json
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from strategies import cluster, supervisor

ADDRESSES = {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}
SERVERS = {"chief": ["a:1"], "worker": ["b:1", "b:2"], "ps": ["c:1"]}


def configure(monkeypatch, jobs=None, task=("worker", 0), text=None):
    monkeypatch.setenv(cluster.VARIABLE, text if text is not None else json.dumps(
        {"cluster": jobs or ADDRESSES, "task": {"type": task[0], "index": task[1]}}))


def test_reads_what_tensorflow_reads(monkeypatch):
    configure(monkeypatch, task=("worker", 1))
    own = cluster.read(["worker"])
    assert (own.address, own.chief, own.is_chief) == ("10.0.0.2:2222", "10.0.0.1:2222", False)
    configure(monkeypatch, SERVERS, ("chief", 0))
    own = cluster.read(["worker", "ps"])
    assert own.is_chief and own.others == ["b:1", "b:2", "c:1"]


@pytest.mark.parametrize("text, words", [
    ("", "TF_CONFIG is not set"), ("{", "cannot be read (JSONDecodeError"), ("[]", "cannot be read (TypeError"),
    ('{"cluster": {"worker": ["a:1"]}}', "cannot be read (KeyError: 'task')"),
    ('{"cluster": {"worker": [1]}, "task": {"type": "worker", "index": 0}}', "addresses that are text"),
    ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "0"}}', "an index that is a number")])
def test_malformed(monkeypatch, text, words):
    configure(monkeypatch, text=text)
    with pytest.raises(ValueError, match=re.escape(words)):
        cluster.read(["worker"])


@pytest.mark.parametrize("jobs, task, words", [
    ({"worker": ["a:1"], "ps": ["b:1"]}, ("worker", 0), "has the jobs worker, ps; expected worker"),
    ({"worker": []}, ("worker", 0), "expected worker, each with an address"),
    ({"worker": ["a:1"]}, ("worker", 1), "this process is worker 1, which is not in its cluster: {'worker': 1}"),
    ({"worker": ["a"]}, ("worker", 0), "'a' is not an address"),
    ({"worker": ["a:99999"]}, ("worker", 0), "'a:99999' is not an address"),
    ({"worker": ["a:1", "a:1"]}, ("worker", 0), "two processes have the address a:1")])
def test_impossible(monkeypatch, jobs, task, words):
    configure(monkeypatch, jobs, task)
    with pytest.raises(ValueError, match=re.escape(words)):
        cluster.read(["worker"])


def test_port_in_use():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of this process cannot be opened"):
            cluster.check_port(f"127.0.0.1:{port}")
        assert cluster.answers(f"127.0.0.1:{port}")
    cluster.check_port(f"127.0.0.1:{port}")


def test_who_never_comes_is_named():
    port, = supervisor.free_ports(1)
    began = time.monotonic()
    with pytest.raises(cluster.ClusterError, match=f"no answer from 127.0.0.1:{port} within --cluster_timeout=0.5 s"):
        cluster.wait_for([f"127.0.0.1:{port}"], 0.5)
    assert time.monotonic() - began < 10


def test_processes_meet(monkeypatch):
    ports = supervisor.free_ports(3)
    jobs = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    members = [cluster.Cluster(jobs, "worker", index) for index in range(3)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = [pool.submit(cluster.meet, member, 20) for member in members[:2]]
        time.sleep(0.5)
        assert not any(each.done() for each in first)
        with socket.socket() as server:  # the third has met them already and runs TensorFlow's server
            server.bind(("127.0.0.1", ports[2]))
            server.listen()
            for each in first:
                each.result(10)
    with pytest.raises(cluster.ClusterError, match=f"no answer from 127.0.0.1:{ports[1]}, 127.0.0.1:{ports[2]} within"):
        cluster.meet(members[0], 0.5)


def test_deadline_ends_what_lets_no_thread_run():
    program = ("import ctypes\nfrom strategies import cluster\n"
               "with cluster.deadline(5): pass\n"
               "with cluster.deadline(0.3): ctypes.PyDLL(None).sleep(60)")  # sleeps with Python's lock held
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=50)
    assert done.returncode == -signal.SIGALRM
