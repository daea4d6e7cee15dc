"""The other end of the conversion worker: one process for all conversions, restarted after a crash."""

import atexit
import contextlib
import json
import os
import pathlib
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time

_PROGRAM = pathlib.Path(__file__).resolve().parent / "conversion_worker.py"
_LARGEST_MESSAGE = 1200  # characters


class ConversionError(ValueError):
    """A model that the TFLite converter refused, or on which it crashed."""


class _Ended(ConversionError):
    """The worker's process is no more."""


class Worker:
    """A process that converts models, started at the first request and reused for the next ones.

    It ends with this process, or when `close` is called. A crash or a time-out costs the conversion in hand; the next
    request starts a new process. Threads may share a worker: they wait for each other.

    Args:
        command: what to run instead of the conversion worker; it must speak its protocol.
    """

    def __init__(self, command=None):
        self._command = command or [sys.executable, str(_PROGRAM)]
        self._process = None
        self._log = None
        self._lock = threading.Lock()

    @property
    def pid(self):
        """Process id while the worker runs, else None."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running else None

    def request(self, request, timeout):
        """Sends one request and waits for the answer.

        Args:
            request: JSON-serialisable dictionary, see `conversion_worker`.
            timeout: seconds, the start of the process included.

        Raises:
            ConversionError: the converter raised, the process ended, or the time was over.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            if self.pid is None:
                self._start()
            try:
                self._begin(request, deadline)
            except _Ended:  # somebody ended the idle process: that is no fault of this request
                self._start()
                self._begin(request, deadline)
            answer = self._receive(deadline)
        if "error" in answer:
            raise ConversionError(f"{answer['error']}: {_trim(answer['message'])}")

    def close(self):
        """Ends the process, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        self._log.close()

    def _begin(self, request, deadline):
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either, which tells more
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._receive(deadline)

    def _start(self):
        self.close()
        self._log = tempfile.TemporaryFile()
        # Conversion is work for the processor; an accelerator may be in use by training, its memory taken.
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=self._log, env=environment, bufsize=0)

    def _receive(self, deadline):
        """The next answer of the process."""
        stdout = self._process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(max(deadline - time.monotonic(), 0)):
                self.close()
                raise ConversionError("The conversion did not finish in time and was stopped. Allow more time, or "
                                      "convert a smaller model.")
        line = stdout.readline()  # answers are short and written at once: the rest of the line is there
        if not line.endswith(b"\n"):
            raise _Ended(self._last_words())
        return json.loads(line)

    def _last_words(self):
        code = self._process.wait()
        self._log.seek(0)
        log = self._log.read().decode(errors="replace")
        self.close()
        how = f"was ended by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
        return f"The converter's process {how} during the conversion. Its last words: {_trim(log, end=True) or 'none'}"


def _trim(message, end=False):
    """The part of a converter's message that tells something, in one line: no dump of the graph, no places in it."""
    parts = []
    for line in message.split('"func.func"')[0].splitlines():
        part = re.sub(r"<unknown>:0: (error|note):( see current operation:)?| loc\(.*", " ", line).strip()
        if part and part not in parts:
            parts.append(part)
    text = " ".join(parts)
    if len(text) <= _LARGEST_MESSAGE:
        return text
    return "... " + text[-_LARGEST_MESSAGE:] if end else text[:_LARGEST_MESSAGE] + " ..."


_SHARED = Worker()
atexit.register(_SHARED.close)


def shared_worker():
    """The worker that all conversions of this process use."""
    return _SHARED
