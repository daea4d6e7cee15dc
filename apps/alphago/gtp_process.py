"""A program that speaks GTP (Go Text Protocol, version 2), in a process of its own: one command, one answer."""

import collections
import contextlib
import os
import pathlib
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import time

_LONGEST_ANSWER = 1 << 20  # bytes
_SHOWN = 200  # bytes of an answer in a message
_KEPT_ERRORS = 4096
_NUM_LINES = 10  # of standard error in a message
_GRACE_SECONDS = 2.0  # to end when asked to
# Becomes the program after it has asked the kernel for SIGKILL when its caller dies, also by a kill. Popen's preexec_fn
# would ask within a fork of this process, whose threads (TensorFlow's) may hold locks. Python ignores SIGPIPE, and what
# it starts would inherit that.
_LAUNCHER = """import ctypes, os, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.getppid() == int(sys.argv[1]) or sys.exit("the caller is gone")
os.execvp(sys.argv[2], sys.argv[2:])"""


class GtpError(RuntimeError):
    """A GTP program died, was silent, refused a command, or answered what makes no sense."""

    exit_code = 1


class Refused(GtpError):
    """It answered `?`: the command changed nothing."""


def words_of(command):
    """The words of a command: one line, split as a shell does, or a list of words.

    Raises:
        ValueError: an empty or unbalanced line, or a program that is not there.
    """
    try:
        words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    except ValueError as error:
        raise ValueError(f"The GTP command {command!r} cannot be split into words: {error}.") from None
    if not words:
        raise ValueError("The GTP command is empty: expected a program, such as gnugo --mode gtp.")
    if shutil.which(words[0]) is None:
        raise ValueError(f"The program {words[0]!r} of the GTP command {shlex.join(words)!r} is not there, or may not "
                         "be run. Install it, or give its path.")
    return words


class Program:
    """A GTP program, which ends when this process does.

    On Linux it ends with the thread that made it, so make it in one that stays.

    Args:
        command: see `words_of`.
        timeout: seconds that it may take for an answer.

    Raises:
        ValueError: from `words_of`.
    """

    def __init__(self, command, timeout):
        words = words_of(command)
        self._title, self._timeout = f"{pathlib.Path(words[0]).name} ({shlex.join(words)})", timeout
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())] if sys.platform == "linux" else []
        # In a session of its own: an interrupt from the terminal does not reach it, and its children end with it.
        self._process = subprocess.Popen([*launcher, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE, bufsize=0, start_new_session=True)
        self._selector, self._number = selectors.DefaultSelector(), 0
        self._output, self._errors = bytearray(), collections.deque(maxlen=_KEPT_ERRORS)
        for stream, into in ((self._process.stdout, self._output), (self._process.stderr, self._errors)):
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ, into)

    def __str__(self):
        """Its file's name and the command."""
        return self._title

    @property
    def is_closed(self):
        """Whether it has been ended, by `close` or after an error."""
        return self._process.returncode is not None

    def ask(self, command, seconds=0):
        """The answer to a command, without its sign and number.

        Args:
            command: one line.
            seconds: that it may take longer than others.

        Raises:
            Refused: the answer is `?`.
            GtpError: no answer in time, none that makes sense, or the program has died; it has been ended then.
        """
        if self.is_closed:
            raise GtpError(f"{self} was asked {command!r} after its end.")
        self._number += 1
        with contextlib.suppress(OSError):  # it has ended, and reading will tell
            self._process.stdin.write(f"{self._number} {command}\n".encode())
        answer = self._read(command, self._timeout + seconds)
        sign, number, words = re.match(r"([=?])(\d*)\s*(.*)", answer, re.DOTALL).groups()
        if number != str(self._number):
            self._fail(f"answered {command!r}, its command number {self._number}, with {answer[:_SHOWN]!r}, which has "
                       "another number")
        if sign == "?":
            raise Refused(f"{self} refused {command!r}: {words.strip() or 'no reason given'}.{self.last_words()}")
        return words.strip()

    def last_words(self):
        """The end of its standard error, as a sentence that follows another."""
        if not self.is_closed:
            self._take(0)
        lines = [line for line in _text(self._errors).splitlines() if line.strip()][-_NUM_LINES:]
        return f" Its last lines of standard error: {' | '.join(lines)}" if lines else " It wrote no errors."

    def close(self):
        """Ends the program and what it has started; a second call does nothing."""
        if not self.is_closed:
            with contextlib.suppress(OSError):
                self._process.stdin.write(b"quit\n")
            self._end(_GRACE_SECONDS)

    def _read(self, command, seconds):
        until = time.monotonic() + seconds
        while True:
            answer = self._output.replace(b"\r", b"").lstrip()
            is_line = b"\n" in answer or len(answer) > _SHOWN
            if is_line and answer[:1] not in (b"=", b"?") or len(answer) > _LONGEST_ANSWER:
                self._fail(f"answered {command!r} with {_shown(answer)}, which is not GTP: expected = or ?, the number "
                           "of the command, words and an empty line")
            end = answer.find(b"\n\n")
            if end >= 0:
                self._output[:] = answer[end + 2:]
                return _text(answer[:end])
            left = until - time.monotonic()
            so_far = f", but for {_shown(answer)} without an empty line" if answer else ""
            if left <= 0:
                self._fail(f"did not answer {command!r} within {seconds:g} s{so_far}")
            if not self._take(left):
                self._fail(f"ended before it answered {command!r}{so_far}")

    def _take(self, seconds):
        """Reads what there is, after `seconds` at most; whether more may come from standard output."""
        for key, _ in self._selector.select(seconds):
            content = key.fileobj.read(1 << 16)
            if content:
                key.data.extend(content)
            elif content is not None:
                self._selector.unregister(key.fileobj)
        return self._process.stdout in self._selector.get_map()

    def _fail(self, what):
        has_ended = self._end(0 if self._process.stdout in self._selector.get_map() else _GRACE_SECONDS)
        code = self._process.returncode
        how = (f" (killed by signal {-code})" if code < 0 else f" (exit code {code})") if has_ended else ""
        raise GtpError(f"{self} {what}{how}.{self.last_words()}")

    def _end(self, grace):
        """Ends it, at once after `grace` seconds; whether it ended by itself."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        has_ended = self.is_closed
        with contextlib.suppress(ProcessLookupError, PermissionError):  # where none of its group is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        until = time.monotonic() + 0.5  # what it wrote last is in the pipes
        while self._selector.get_map() and self._selector.select(0) and time.monotonic() < until:
            self._take(0)
        self._selector.close()
        self._process.stdout.close()
        self._process.stderr.close()
        return has_ended


def _text(content):
    return bytes(content).decode(errors="replace")


def _shown(content):
    return repr(_text(content[:_SHOWN]).rstrip())
