"""The cluster that a process belongs to, as `TF_CONFIG` describes it, and waiting for its other processes.

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'

No wait here is without a time-out: TensorFlow's own may last for ever when a process never comes.
"""

import atexit
import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
import time

VARIABLE = "TF_CONFIG"
# Kubeflow starts a process again that ends with 128 or more, and leaves 1-127 to a person; apps/cluster.py does so too.
EXIT_RETRY = 138
_AT_END = []
_POLL_SECONDS = 0.2
_CONNECT_SECONDS = 1.0


class ClusterError(RuntimeError):
    """Another process of the cluster is missing, silent or gone: starting again may help."""

    exit_code = EXIT_RETRY


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Attributes:
        jobs: {"worker": ("host:port", ...), ...}.
        job, index: this process.
    """

    jobs: dict
    job: str
    index: int

    @property
    def address(self):
        """host:port of this process."""
        return self.jobs[self.job][self.index]

    @property
    def chief(self):
        """host:port of the process that writes: the chief or, where there is none, worker 0."""
        return self.jobs.get("chief", self.jobs["worker"])[0]

    @property
    def is_chief(self):
        """Whether this is that process."""
        return self.address == self.chief

    @property
    def others(self):
        """Addresses of all other processes but the chief."""
        return [address for job, addresses in self.jobs.items() if job != "chief" for address in addresses
                if address != self.address]


def read(expected):
    """The cluster of this process.

    Args:
        expected: names of the jobs that there must be; "chief" may be there besides.

    Raises:
        ValueError: `TF_CONFIG` is missing or malformed, or has other jobs.
    """
    example = json.dumps({"cluster": {job: ["10.0.0.1:2222"] for job in expected},
                          "task": {"type": expected[0], "index": 0}})
    text = os.environ.get(VARIABLE)
    if not text:
        raise ValueError(f"{VARIABLE} is not set: expected the addresses of all processes and the task of this one, as "
                         f"{example}. On one machine python -m apps.cluster sets it.")
    try:
        content = json.loads(text)
        jobs = {job: tuple(addresses) for job, addresses in content["cluster"].items()}
        job, index = content["task"]["type"], content["task"]["index"]
        if not isinstance(index, int) or not all(isinstance(a, str) for addresses in jobs.values() for a in addresses):
            raise TypeError("an index that is a number and addresses that are text were expected")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{VARIABLE} cannot be read ({type(error).__name__}: {error}); expected JSON as {example}; "
                         f"received {text}.") from None
    _check(jobs, job, index, expected, example)
    return Cluster(jobs, job, index)


def _check(jobs, job, index, expected, example):
    if not set(expected) <= set(jobs) <= {"chief", *expected} or not all(jobs.values()):
        raise ValueError(f"{VARIABLE} has the jobs {', '.join(jobs) or 'none'}; expected {', '.join(expected)}, each "
                         f"with an address, as {example}.")
    if not 0 <= index < len(jobs.get(job, ())):
        raise ValueError(f"{VARIABLE} says that this process is {job} {index}, which is not in its cluster: "
                         f"{ {name: len(addresses) for name, addresses in jobs.items()} }.")
    addresses = [address for group in jobs.values() for address in group]
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{VARIABLE}: {address!r} is not an address; expected host:port, as 10.0.0.1:2222.")
        if addresses.count(address) > 1:
            raise ValueError(f"{VARIABLE}: two processes have the address {address}. Give each one of its own.")


def check_port(address):
    """Raises ValueError when the port of this process is in use."""
    _listen(address).close()


def _listen(address):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("", port_of(address)))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ValueError(f"{VARIABLE}: port {port_of(address)} of this process cannot be opened ({error.strerror}). "
                         "End the process that has it, or choose another port in the configuration of all "
                         "processes.") from None
    listener.setblocking(False)
    return listener


def meet(own, seconds):
    """Returns once all other processes are there: each answers at its port meanwhile. One that goes on gives its port
    to TensorFlow's server, which answers whoever still waits.

    Raises:
        ValueError: the port of this process is in use.
        ClusterError: some do not come within that time; the message names them.
    """
    with _listen(own.address) as listener:
        def answer():
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()

        wait_for([address for group in own.jobs.values() for address in group if address != own.address], seconds,
                 meanwhile=answer)


def port_of(address):
    """The port of host:port."""
    return int(address.rpartition(":")[2])


def answers(address):
    """Whether something listens at host:port."""
    try:
        socket.create_connection((address.rpartition(":")[0], port_of(address)), _CONNECT_SECONDS).close()
        return True
    except OSError:
        return False


def wait_for(addresses, seconds, meanwhile=lambda: None):
    """Returns once all addresses answer; calls `meanwhile` again and again.

    Raises:
        ClusterError: some do not within that time; the message names them.
    """
    missing, until = list(addresses), time.monotonic() + seconds
    while True:
        meanwhile()
        missing = [address for address in missing if not answers(address)]
        if not missing:
            return
        if time.monotonic() > until:
            raise ClusterError(f"no answer from {', '.join(missing)} within --cluster_timeout={seconds:g} s. Start "
                               "these processes, or correct their addresses in TF_CONFIG.")
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def deadline(seconds):
    """Ends the process, by SIGALRM, when its body takes longer than that: for calls into TensorFlow that wait without
    end, and let no other thread of Python run."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def reason(error):
    """The line of a TensorFlow error that says what happened."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith("[[")), type(error).__name__)


def at_end(function):
    """Has a function called when this process ends, in the usual way or by `give_up`."""
    _AT_END.append(function)
    atexit.register(function)


def give_up(message, code=EXIT_RETRY):
    """Ends this process at once, whatever TensorFlow's threads wait for."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    for function in _AT_END:
        function()
    sys.stdout.flush()
    os._exit(code)
