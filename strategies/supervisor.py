"""The processes of a cluster on one machine: started with one command, started again when they die, none left behind.

What is started again follows from what TensorFlow survives. A worker of parameter servers can be replaced while the
others go on. A parameter server takes the weights with it, a coordinator the program, and a synchronous group cannot
take a member back: then all are ended, and a new group resumes from the last checkpoint.
"""

import ctypes
import dataclasses
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time

from strategies.cluster import EXIT_RETRY, VARIABLE

_BAD_INPUT = 2  # starting again would not help
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 60.0  # to save and end, when asked to
_SHORT_LIFE = 30.0  # seconds; who dies younger is started again later and later
_LONGEST_PAUSE = 30.0
_LONGEST_STOP = 5.0
_HOPELESS = 3  # early deaths in a row by an error of the program's own
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_NOISE = (b"I0000 ", b"W0000 ", b"WARNING: All log messages before absl::InitializeLog()")  # of TensorFlow's start


@dataclasses.dataclass
class Member:
    """A process of the cluster: `job`, `index`, the running `process`, when it began and how often in a row it died
    young."""

    job: str
    index: int
    process: subprocess.Popen | None = None
    began: float = 0.0
    early_deaths: int = 0
    resume_at: float | None = None
    stopped_since: float | None = None
    line: bytes = b""

    @property
    def name(self):
        return f"{self.job} {self.index}"


class Supervisor:
    """Runs a command as every member of a cluster.

    Args:
        command: list of words; each member gets it with its own `TF_CONFIG`.
        workers: number of workers.
        servers: number of parameter servers; with any there is a coordinator too, without the workers are a
            synchronous group.
        max_restarts: how many deaths are made good before giving up.
        report: function that prints a line.
    """

    def __init__(self, command, *, workers, servers=0, max_restarts=100, report=print):
        self._command, self._max_restarts, self._report = list(command), max_restarts, report
        self._sizes = {"chief": 1, "worker": workers, "ps": servers} if servers else {"worker": workers}
        self.restarts, self._signal, self._selector = 0, None, selectors.DefaultSelector()
        self._members, self._cluster, self._early_deaths, self._temporary = [], {}, 0, None

    def run(self):
        """Returns the exit code: the chief's, or 143 or 130 when this process was asked to end."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        # Members that are killed cannot remove their temporary files, so they get a place that is removed here.
        with tempfile.TemporaryDirectory(prefix="usagi_cluster_", ignore_cleanup_errors=True) as self._temporary:
            try:
                return self._run()
            finally:
                self._end(grace=0)
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _run(self):
        self._start_group()
        while True:
            self._relay(_POLL_SECONDS)
            if self._signal is not None:
                return self._stop()
            code = self._look()
            if code is not None:
                return code

    @property
    def processes(self):
        """{name: process id} of the members that run."""
        return {m.name: m.process.pid for m in self._members if m.process is not None and m.process.poll() is None}

    def _note(self, number, frame):
        self._signal = number

    def _start_group(self):
        self._cluster = {job: [f"127.0.0.1:{port}" for port in free_ports(number)]
                         for job, number in self._sizes.items()}
        self._members = [Member(job, index) for job in ("ps", "worker", "chief")
                         for index in range(self._sizes.get(job, 0))]
        for member in self._members:
            self._start(member)

    def _start(self, member):
        task = {"cluster": self._cluster, "task": {"type": member.job, "index": member.index}}
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "TMPDIR": self._temporary,
                       VARIABLE: json.dumps(task)}
        if member.job == "ps":
            environment["CUDA_VISIBLE_DEVICES"] = "-1"  # weights on servers are in main memory
        output = None if self._leads(member) else subprocess.PIPE
        # In a session of its own, so that an interrupt from the terminal comes here alone.
        member.process = subprocess.Popen(
            self._command, env=environment, stdout=output, stderr=None if output is None else subprocess.STDOUT,
            start_new_session=True, preexec_fn=die_with_parent)
        member.began, member.resume_at, member.line = time.monotonic(), None, b""
        self._report(f"cluster: {member.name} is process {member.process.pid}")
        if output is not None:
            os.set_blocking(member.process.stdout.fileno(), False)
            self._selector.register(member.process.stdout, selectors.EVENT_READ, member)

    def _leads(self, member):
        return member.job == "chief" or "chief" not in self._sizes and member.index == 0

    def _look(self):
        """Makes good what has died; the exit code when all is over."""
        for member in self._members:
            if member.resume_at is not None:
                if time.monotonic() >= member.resume_at:
                    self._start(member)
                continue
            code = member.process.poll()
            if code is None:
                self._end_if_stopped(member)
                continue
            if self._leads(member) and code == 0:
                self._end(grace=_GRACE_SECONDS if member.job == "worker" else 0)
                return 0
            if code == _BAD_INPUT:
                self._end(grace=0)
                return _BAD_INPUT
            if code == 0 and member.job == "worker" and "chief" not in self._sizes:
                continue  # its work is done; the chief still writes
            return self._make_good(member, code)
        return None

    def _end_if_stopped(self, member):
        """A member that is stopped (SIGSTOP) keeps the others waiting: it is ended, and so started again."""
        if not _is_stopped(member.process.pid):
            member.stopped_since = None
        elif member.stopped_since is None:
            member.stopped_since = time.monotonic()
        elif time.monotonic() - member.stopped_since > _LONGEST_STOP:
            self._report(f"cluster: {member.name} has been stopped for {_LONGEST_STOP:g} s")
            member.process.kill()

    def _make_good(self, member, code):
        self.restarts += 1
        self._report(f"cluster: {member.name} {death(code)}")
        replaced = member.job == "worker" and "chief" in self._sizes
        deaths = member.early_deaths if replaced else self._early_deaths
        deaths = deaths + 1 if time.monotonic() - member.began < _SHORT_LIFE else 0
        if self.restarts > self._max_restarts or 0 < code < 128 and deaths == _HOPELESS:
            self._end(grace=0)
            self._report(f"cluster: giving up after {self.restarts} deaths (--max_restarts={self._max_restarts})")
            return EXIT_RETRY if code < 0 else code
        if replaced:
            member.early_deaths, member.resume_at = deaths, time.monotonic() + _pause(deaths)
            return None
        self._end(grace=0)
        self._early_deaths, pause = deaths, _pause(deaths)
        self._report(f"cluster: all are started again{f' in {pause:g} s' if pause else ''}")
        until = time.monotonic() + pause
        while time.monotonic() < until and self._signal is None:
            time.sleep(_POLL_SECONDS)
        self._start_group()
        return None

    def _stop(self):
        """Asks all to end, and lets them save."""
        self._report("cluster: asked to end; letting all save")
        for member in self._members:
            if not self._leads(member) and "chief" in self._sizes:
                continue  # servers are needed for that
            _send(member, signal.SIGTERM)
        leaders = [m for m in self._members if "chief" not in self._sizes or self._leads(m)]
        self._wait(leaders, _GRACE_SECONDS)
        self._end(grace=0)
        return 128 + self._signal

    def _end(self, grace):
        """Ends every member; returns when none is left."""
        if grace:
            self._wait(self._members, grace)
        for number, seconds in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 60.0)):
            for member in self._members:
                _send(member, number)
            self._wait(self._members, seconds)
        until = time.monotonic() + 1
        while self._selector.get_map() and time.monotonic() < until:
            self._relay(0.05)  # what they wrote last
        for key in list(self._selector.get_map().values()):
            self._forget(key.fileobj)

    def _wait(self, members, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(m.process is not None and m.process.poll() is None for m in members):
            self._relay(0.05)

    def _relay(self, seconds):
        """Prints what members other than the first have written, with their names."""
        if not self._selector.get_map():
            time.sleep(seconds)
            return
        for key, _ in self._selector.select(seconds):
            try:
                content = key.fileobj.read()
            except OSError:
                content = b""
            member = key.data
            if not content:
                self._forget(key.fileobj)
                continue
            *lines, member.line = (member.line + content).split(b"\n")
            for line in lines:
                if not line.startswith(_NOISE):
                    self._report(f"{member.name}: {line.decode(errors='replace')}")

    def _forget(self, stream):
        self._selector.unregister(stream)
        stream.close()


def free_ports(number):
    """Ports of this machine that nothing uses."""
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _is_stopped(pid):
    if not hasattr(os, "waitid"):
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # it has ended since
        return False


def _pause(deaths):
    return min(2.0 ** deaths, _LONGEST_PAUSE) if deaths else 0.0


def _send(member, number):
    if member.process is not None and member.process.poll() is None:
        member.process.send_signal(number)


def death(code):
    """What an exit code of `subprocess` or `multiprocessing` says, to stand behind the process's name."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def die_with_parent():
    """Lets the kernel kill this process, also a stopped one, when the one that started it is killed. Linux only."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
