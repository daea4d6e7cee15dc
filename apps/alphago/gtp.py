"""An engine that speaks the Go Text Protocol, version 2 (draft 2): https://www.lysator.liu.se/~gunnar/gtp/."""

import contextlib
import io
import logging
import queue
import re
import threading

from apps.alphago.gtp_commands import COMMANDS, STREAMS
from apps.alphago.gtp_game import Game, Refused, run

LONGEST_LINE = 2**16  # characters; a line of as many is refused
_CONTROLS = {code: None for code in (*range(32), 127) if chr(code) not in "\t\n"} | {ord("\t"): " "}


class Engine:
    """Obeys commands, with a player of `players`' protocol.

    Args:
        player: who chooses moves.
        rules: `Rules` of the first game; later ones differ in size and komi. Without `max_moves` they allow four times
            as many moves as there are points.
        sizes: boards that the player can play; None: 5 to 19.
        version: what the command of that name answers.
        seconds: that the player may take for a move where no time settings were given; None: as it likes.

    Attributes:
        finished: whether it was told to quit.

    Raises:
        ValueError: `rules` are for a size that is not among `sizes`; and what the player raises about the rules.
    """

    def __init__(self, player, rules, *, sizes=None, version="1", seconds=None):
        self._game = Game(player, rules, tuple(range(5, 20) if sizes is None else sizes), version, seconds)
        self.finished = False

    @property
    def board(self):
        """`Board`: the game as it stands."""
        return self._game.board

    @property
    def clock(self):
        """`Clock`: the time that both sides have."""
        return self._game.clock

    def respond(self, line):
        """The response to one line: "=1 D4\\n\\n", "? unknown command\\n\\n", or "" to an empty line.

        Analysis ends with its first line.
        """
        return "".join(self._answer(line, lambda seconds: True))

    def serve(self, input, output):
        """Responds to lines until one says quit, or there are no more.

        Args:
            input: stream of bytes or text. A thread reads ahead, and what it stands on, a pipe or a file, should not be
                read by others meanwhile.
            output: stream of bytes or text, flushed after each piece of a response. When nobody reads it any more, that
                is the end too.
        """
        lines, write = _Lines(input, lambda line: _parse(line)[1::2] == ("quit", None)), _writer(output)
        for line in lines:
            with contextlib.closing(self._answer(line, lines.wait)) as pieces:
                try:
                    for piece in pieces:
                        write(piece)
                except BrokenPipeError:
                    return
            if self.finished:
                return

    def _answer(self, line, wait):
        """Yields the pieces of a response; `wait` as in `gtp_analysis`."""
        (number, name, words, fault), begun = _parse(line), False
        if not (number or name or fault):
            return
        try:
            if fault:
                raise Refused(fault)
            if name in STREAMS:
                for text in run(self._game, STREAMS[name], words, wait):
                    yield _clean(text) + "\n" if begun else f"={number}\n{_clean(text)}\n"
                    begun = True
                yield "\n" if begun else f"={number}\n\n"
            elif name in COMMANDS:
                yield f"={number} {_clean(run(self._game, COMMANDS[name], words) or '')}".rstrip(" ") + "\n\n"
                self.finished |= name == "quit"
            else:
                raise Refused("unknown command")
        except Exception as error:  # whatever it is, a player's too, must not end the engine
            if not isinstance(error, Refused):
                logging.getLogger(__name__).exception("Command %s failed.", name)
                error = f"failed: {type(error).__name__}: {error}"
            yield "\n" if begun else f"?{number} {_clean(str(error)).splitlines()[0]}\n\n"


def _parse(line):
    """(number or "", name or "", arguments, what is wrong or None) of a line, the way the protocol wants it read."""
    text = line.partition("\n")[0].translate(_CONTROLS).partition("#")[0].strip(" ")
    number = re.match("[0-9]*", text).group()
    name, *words = [word for word in text[len(number):].split(" ") if word] or [""]
    fault = "line too long" if len(line.partition("#")[0]) >= LONGEST_LINE else None
    if len(number) > 10 or number and int(number) >= 2**31:
        number, fault = "", fault or "syntax error"
    return number, name, words, fault


def _clean(text):
    """Text without control characters and empty lines, which would end a response."""
    return re.sub("\n\n+", "\n", str(text).translate(_CONTROLS)).rstrip("\n ")


class _Lines:
    """Lines of a stream, read ahead by a thread, so that one can be waited for while something else is done.

    Args:
        stream: of bytes or text. Bytes that are not ASCII stay what they are, as surrogates.
        is_last: whether there is nothing to be read after a line.
    """

    def __init__(self, stream, is_last):
        self._lines, self._next = queue.Queue(1000), None
        threading.Thread(target=self._read, args=[_reader(stream), is_last], daemon=True).start()

    def __iter__(self):
        while True:
            self.wait(None)
            line, self._next = self._next, None
            if not line:
                return
            yield line

    def wait(self, seconds):
        """Whether there is a line, or the end, within so many seconds; None: as long as it takes."""
        if self._next is None:
            with contextlib.suppress(queue.Empty):
                self._next = self._lines.get(timeout=seconds)
        return self._next is not None

    def _read(self, stream, is_last):
        try:
            while line := self._line(stream):
                self._lines.put(line)
                if is_last(line):
                    break
        except (OSError, ValueError):  # closed under our hands: the same as its end
            pass
        self._lines.put("")

    @staticmethod
    def _line(stream):
        """The next line, no more than the longest of it; "" at the end."""
        line = rest = stream.readline(LONGEST_LINE)
        while rest and rest[-1:] not in ("\n", b"\n"):
            rest = stream.readline(LONGEST_LINE)
        return line if isinstance(line, str) else line.decode("ascii", "surrogateescape")


def _reader(stream):
    """A stream to read lines from: one of its own over the same file, if there is one.

    A thread that waits in `sys.stdin` at the end of the program keeps Python from closing it, which is fatal there.
    """
    try:
        return open(stream.fileno(), "rb", closefd=False)
    except (AttributeError, OSError):
        return getattr(stream, "buffer", stream)


def _writer(stream):
    """A function that writes text to a stream of bytes or text, and flushes."""
    if isinstance(stream, io.TextIOBase) and not hasattr(stream, "buffer"):
        encode = str
    else:
        stream = getattr(stream, "buffer", stream)

        def encode(text):
            return text.encode("utf-8", "surrogateescape")

    def write(text):
        stream.write(encode(text))
        stream.flush()
    return write
