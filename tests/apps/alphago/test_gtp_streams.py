"""Engines at the end of streams: pipes, files, other programs, and nonsense."""

import io
import os
import pathlib
import queue
import select
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from apps.alphago import gtp
from apps.alphago.go import rules as go
from apps.alphago.go import text
from apps.alphago.gtp import Engine
from apps.alphago.players import RandomPlayer
from tests.apps.alphago.go.reference import Board as Reference
from tests.apps.alphago.gtp_fakes import Fake

RULES = go.Rules(size=5, komi=0.5)
ROOT = pathlib.Path(__file__).parents[3]
GNUGO = shutil.which("gnugo", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/games"]))


def served(content, engine=None, output=None):
    output = io.BytesIO() if output is None else output
    (engine or Engine(Fake("A1", "B1"), RULES)).serve(content, output)
    return output.getvalue()


@pytest.mark.parametrize("content", ["name\n", "\n1 name\r\nquit\nname\n", "2 genmove b\ngenmove w", "", "quit\n" * 9])
def test_bytes_text_and_files(content, tmp_path):
    (tmp_path / "x").write_text(content)
    expected = served(io.BytesIO(content.encode()))
    assert served(io.StringIO(content), output=io.StringIO()) == expected.decode()
    for mode in ("r", "rb"):
        with open(tmp_path / "x", mode) as file:
            assert served(file) == expected
    assert served(io.TextIOWrapper(io.BytesIO(content.encode()), encoding="ascii")) == expected
    Engine(Fake("A1", "B1"), RULES).serve(io.StringIO(content), file := open(tmp_path / "y", "w"))
    assert (tmp_path / "y").read_bytes() == expected, "flushed"
    file.close()
    assert expected.count(b"\n\n") == {"": 0, "name\n": 1, "quit\n" * 9: 1}.get(content, 2)


def test_long_lines_and_odd_bytes():
    lines = [b"1 name", b"x" * 10**6, b"2 name " + b"#" * 10**6, b"\xff\xfe", b"3 play b \xe9", "4 版".encode(),
             b"\xc3\xa9" * 2**15, b"5 loadsgf \xff.sgf", b"6 name", b"9" * 20 + b" quit", b"quit" + b" " * 2**16,
             b"quitt", b"7 quit now", b"8 name"]
    found = served(io.BytesIO(b"\n".join(lines)))
    assert served(io.TextIOWrapper(io.BytesIO(b"\n".join(lines)), encoding="ascii")) == found
    said = found.split(b"\n\n")[:-1]
    assert said[:7] == [b"=1 fake", b"? line too long", b"=2 fake", b"? unknown command", b"?3 invalid vertex",
                        b"?4 unknown command", b"? line too long"]
    assert said[7].startswith(b"?5 cannot load file") and said[8:] == [
        b"=6 fake", b"? syntax error", b"? line too long", b"? unknown command", b"=7"]


class Channel:
    """A stream of text in memory that is read while it is written."""

    def __init__(self):
        self.pieces, self.rest = queue.Queue(), ""

    def write(self, words):
        self.pieces.put(words.decode() if isinstance(words, bytes) else words)

    def flush(self):
        """Nothing is held back."""

    def readline(self, limit=-1):
        while "\n" not in self.rest:
            self.rest += self.pieces.get(timeout=20)
        line, _, self.rest = self.rest.partition("\n")
        return line + "\n"


def test_two_engines_play_each_other():
    engines, channels, threads = [], [], []
    for seed in range(2):
        engines.append(Engine(RandomPlayer(seed), RULES))
        channels.append((Channel(), Channel()))
        threads.append(threading.Thread(target=engines[-1].serve, args=channels[-1], daemon=True))
        threads[-1].start()

    def ask(index, command):
        channels[index][0].write(command + "\n")
        answer = channels[index][1].readline()
        assert answer.startswith("=") and channels[index][1].readline() == "\n", answer
        return answer[1:].strip()

    moves = []
    while moves[-2:] != ["pass", "pass"] and len(moves) < 100:
        mover, colour = len(moves) % 2, "bw"[len(moves) % 2]
        moves.append(ask(mover, f"genmove {colour}"))
        assert ask(1 - mover, f"play {colour} {moves[-1]}") == ""
    assert ask(0, "final_score") == ask(1, "final_score")
    for index in range(2):
        ask(index, "quit")
        threads[index].join(20)
        assert not threads[index].is_alive()
    first, second = (engine.board for engine in engines)
    assert first.moves == second.moves and [text.name_of(move, 5) for _, move in first.moves] == moves
    for one, other in zip(first.state, second.state):
        np.testing.assert_array_equal(one, other)


class Pipes:
    """An engine in a thread, at the other end of two pipes."""

    def __init__(self, player):
        source, self.to_engine = os.pipe()
        self.from_engine, target = os.pipe()
        self.engine, self.input, self.output = Engine(player, RULES), os.fdopen(source, "rb"), os.fdopen(target, "wb")
        self.answers = os.fdopen(self.from_engine)
        self.ended, self.thread = False, threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        self.engine.serve(self.input, self.output)
        self.ended = True

    def say(self, words):
        os.write(self.to_engine, words)

    def join(self):
        self.thread.join(20)
        assert self.ended and not self.thread.is_alive()

    def end(self):
        os.close(self.to_engine)
        self.join()


@pytest.mark.parametrize("pause", [0.0, 0.03])
def test_analysis_goes_on_until_there_is_input(pause):
    player = Fake(pause=pause)
    pipes = Pipes(player)
    pipes.say(b"1 kata-analyze b 20\n")
    began = time.monotonic()
    assert pipes.answers.readline() == "=1\n"
    lines = [pipes.answers.readline() for _ in range(6)]
    took = time.monotonic() - began
    assert 0.8 < took < 10, "five intervals of 0.2 s"
    visits = [int(line.split()[4]) for line in lines]
    assert visits == sorted(set(visits)) and all(line.startswith("info move A5 visits") for line in lines)
    assert player.steps < 15 * took + 5, "the player is not asked without a rest"
    assert not player.closed
    pipes.say(b"2 name\n")
    asked = time.monotonic()
    while (line := pipes.answers.readline()) != "\n":
        assert line.startswith("info")
    assert pipes.answers.readline() == "=2 fake\n" and player.closed and pipes.answers.readline() == "\n"
    assert time.monotonic() - asked < 5
    pipes.say(b"lz-analyze 2000\n")
    assert pipes.answers.readline() == "=\n" and pipes.answers.readline().startswith("info")
    asked = time.monotonic()
    pipes.say(b"\n")  # an empty line is input too
    assert pipes.answers.readline() == "\n" and time.monotonic() - asked < 5, "long before the next line is due"
    pipes.say(b"lz-analyze 1\n")
    assert pipes.answers.readline() == "=\n"
    pipes.end()  # and so is the end
    pipes.output.close()
    assert pipes.answers.read().endswith("\n\n")


def test_a_player_that_has_no_more_to_say_or_fails():
    class Short(Fake):
        def analyse(self, board, interval):
            stream = super().analyse(board, interval)
            yield next(stream)
            if self.moves:
                raise self.moves.pop()

    player = Short()
    pipes = Pipes(player)
    pipes.say(b"lz-analyze 1\n")
    assert pipes.answers.readline() == "=\n" and pipes.answers.readline().startswith("info")
    assert not select.select([pipes.from_engine], [], [], 0.5)[0], "the response ends with the next input only"
    pipes.say(b"3 name\n")
    assert [pipes.answers.readline() for _ in range(3)] == ["\n", "=3 fake\n", "\n"]
    player.moves.append(RuntimeError("x"))
    pipes.say(b"lz-analyze 1\n")
    found = [pipes.answers.readline() for _ in range(3)]
    assert found[0] == "=\n" and found[1].startswith("info") and found[2] == "\n", "it has ended"
    pipes.end()


def test_nobody_listens():
    pipes = Pipes(RandomPlayer(0))
    pipes.say(b"name\n")
    assert pipes.answers.readline() == "= random\n"
    pipes.answers.close()
    pipes.say(b"lz-analyze 1\n")
    pipes.join()


def start(size):
    return subprocess.Popen([sys.executable, "-m", "tests.apps.alphago.gtp_fakes", str(size)], cwd=ROOT, bufsize=0,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_process(tmp_path):
    """It ends when nobody listens. Its input is still open: a thread that reads it must not make Python abort."""
    process, said = start(5), []
    file = tmp_path / "game.sgf"
    process.stdin.write(f"komi 3\ngenmove b\ngenmove w\nset_free_handicap A1 B1\nprintsgf {file}\n".encode())
    while len(said) < 10:
        said.append(process.stdout.readline().decode().strip())
    said = said[::2]
    process.stdout.close()
    process.stdin.write(b"lz-analyze 1\n")
    assert process.wait(60) in (0, 120), "120: its output could not be flushed"
    assert b"Fatal" not in process.stderr.read()
    assert said[3] == "? board not empty" and said[4] == "="
    engine = Engine(RandomPlayer(0), RULES)
    assert engine.respond(f"loadsgf {file}") == "=\n\n" and engine.board.rules.komi == 3
    assert [text.name_of(move, 5) for _, move in engine.board.moves] == [answer[2:] for answer in said[1:3]]
    process.stdin.close()
    process.stderr.close()


class Record:
    """What an engine must have after the lines that it has obeyed, by the board of a beginner."""

    def __init__(self, sizes):
        self.sizes, self.size, self.komi, self.limit = sizes, RULES.size, RULES.komi, 4 * RULES.size**2
        self.saved = None
        self.clear()

    def clear(self, setup=()):
        self.setup, self.moves = tuple(setup), []
        self.replay()

    def replay(self):
        self.board = Reference(self.size)
        self.board.stones = {divmod(point, self.size): 1 for point in self.setup}
        self.board.turn = -1 if self.setup else 1
        moves, self.moves = self.moves, []
        for colour, move in moves:
            self.play(colour, move)

    def allows(self, colour, move):
        if len(self.moves) >= 4 * self.size**2:
            return False
        ko, turn = self.board.ko, self.board.turn
        if colour != turn:
            self.board.ko, self.board.turn = None, colour
        legal = move == self.size**2 or self.board.is_legal(divmod(move, self.size))
        self.board.ko, self.board.turn = ko, turn
        return legal

    def play(self, colour, move):
        assert self.allows(colour, move), (colour, move)
        self.board.turn = colour
        self.board.play(None if move == self.size**2 else divmod(move, self.size))
        self.moves.append((colour, move))

    def stones(self):
        stones = np.zeros([self.size, self.size], int)
        for point, colour in self.board.stones.items():
            stones[point] = colour
        return stones

    def point(self, word):
        try:
            return text.move_of(word, self.size)
        except ValueError:
            return None

    def expects(self, name, words):
        """Whether a command must be obeyed; None: that is not decided here."""
        colour = {"b": 1, "black": 1, "w": -1, "white": -1}.get(words[0].lower()) if words else None
        if name == "play":
            point = self.point(words[1]) if len(words) == 2 else None
            return colour is not None and point is not None and self.allows(colour, point)
        if name == "undo":
            return not words and bool(self.moves)
        if name == "genmove":
            return len(words) == 1 and colour is not None and len(self.moves) < 4 * self.size**2
        if name == "boardsize":
            return len(words) == 1 and words[0] in map(str, self.sizes)
        return None

    def obeyed(self, name, words, answer):
        colour = {"b": 1, "w": -1}.get(words[0][0].lower()) if words and words[0] else None
        if name in ("play", "genmove"):
            self.play(colour, self.point(words[1] if name == "play" else answer))
        elif name == "undo":
            self.moves.pop()
            self.replay()
        elif name in ("clear_board", "boardsize"):
            self.size = int(words[0]) if words else self.size
            self.clear()
        elif name == "komi":
            self.komi = float(words[0])
        elif name in ("set_free_handicap", "place_free_handicap"):
            self.clear(self.point(word) for word in (words if name == "set_free_handicap" else answer.split()))
        elif name == "printsgf":
            self.saved = self.size, self.komi, self.setup, list(self.moves)
        elif name == "loadsgf":
            self.size, self.komi, self.setup, self.moves = *self.saved[:3], list(self.saved[3])
            self.replay()
        elif name == "showboard":
            np.testing.assert_array_equal(text.read(answer.rsplit("\n", 1)[0]), self.stones())
        elif name == "get_komi":
            assert float(answer) == self.komi
        elif name == "final_score":
            margin = self.board.area() - self.komi
            assert answer == (f"{'B' if margin > 0 else 'W'}+{abs(margin):.15g}" if margin else "0")


OFTEN = """undo showboard komi get_komi final_score final_status_list reg_genmove time_settings time_left name
    known_command list_commands kata-analyze lz-analyze kgs-time_settings""".split()
SELDOM = """boardsize clear_board set_free_handicap place_free_handicap fixed_handicap loadsgf printsgf
    protocol_version""".split()
NAMES = ["play"] * 12 + ["genmove"] * 3 + OFTEN * 2 + SELDOM


def random_line(noise, file):
    """(bytes of a line without its end, name or None for nonsense, words)."""
    if noise.random() < 0.15:
        return bytes(noise.integers(0, 256, noise.integers(0, 60), np.uint8)).replace(b"\n", b"\r"), None, []
    name, words = str(noise.choice(NAMES)), []
    points = [f"{column}{row}" for column in "ABCDEabFI" for row in range(1, 7)] + ["pass", "PASS"]
    pools = {"play": [["b", "w", "BLACK", "White"], points], "genmove": [["b", "w"]], "reg_genmove": [["b", "w"]],
             "komi": [["0.5", "7", "-3.5", "0", "6.25", "1000000"]], "boardsize": [["5", "6", "5", "9", "0"]],
             "set_free_handicap": [points] * int(noise.integers(0, 6)), "place_free_handicap": [["2", "3", "9", "30"]],
             "time_settings": [["0", "1", "300"]] * 3, "time_left": [["b", "w"], ["0", "5", "77"], ["0", "1", "3"]],
             "final_status_list": [["alive", "dead", "seki", "x"]], "known_command": [NAMES],
             "loadsgf": [[str(file)]], "printsgf": [[str(file)]]}
    words = [str(noise.choice(pool)) for pool in pools.get(name, [])]
    if noise.random() < 0.1 and name != "printsgf":  # no files with random names
        odd = ["9" * 50, "-1", "1e999", "nan", "\u00e9", "\udcff", "b", "C3", "''", "../..", "0x10", "\u0663", "=", "?"]
        words.insert(int(noise.integers(0, len(words) + 1)), str(noise.choice(odd)))
    number = "" if noise.random() < 0.5 else str(noise.integers(0, 2**31)) + " "
    space = "\t" if noise.random() < 0.1 else "  " if noise.random() < 0.1 else " "
    comment = " # play b A1" if noise.random() < 0.05 else "\r" if noise.random() < 0.1 else ""
    return (number + space.join([name, *words]) + comment).encode("utf-8", "surrogateescape"), name, words


def is_blank(line):
    return not bytes(code for code in line if code > 31 and code != 127).partition(b"#")[0].strip(b" ")


def test_ten_thousand_lines(tmp_path):
    """The whole stream is written first; what is obeyed is then told to a record kept here."""
    noise, sizes, file = np.random.default_rng(0), [5, 6], tmp_path / "game.sgf"
    lines = [random_line(noise, file) for _ in range(10_000)]
    engine = Engine(RandomPlayer(0), RULES, sizes=sizes)
    output = served(io.BytesIO(b"\n".join(line for line, *_ in lines) + b"\n99 name\n"), engine)
    said = output.decode("utf-8", "surrogateescape").split("\n\n")
    assert said.pop() == "" and said.pop() == "=99 random"
    said, record, obeyed, refused = iter(said), Record(sizes), 0, 0
    for line, name, words in lines:
        if name is None and is_blank(line):
            continue
        answer = next(said)
        assert answer[0] in ("=?" if name else "?"), (line, answer)
        expected = record.expects(name, words)
        assert expected is None or expected == (answer[0] == "="), (line, answer, str(record.stones()))
        assert "failed" not in answer, (line, answer)
        if answer[0] == "=":
            record.obeyed(name, words, answer.lstrip("=0123456789")[1:])
            obeyed += 1
        else:
            refused += 1
    assert next(said, None) is None and obeyed > 4000 and refused > 2000
    np.testing.assert_array_equal(engine.board.stones, record.stones())
    assert engine.board.moves == record.moves and engine.board.rules.komi == record.komi
    assert engine.board.prisoners == tuple(record.board.prisoners[colour] for colour in (1, -1))


class Program:
    """A program that is spoken to by the protocol."""

    def __init__(self, process):
        self.process = process

    def ask(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        lines = []
        while (line := self.process.stdout.readline().decode()) != "\n":
            assert line, f"{command}: the program has ended"
            lines.append(line)
        answer = "".join(lines)
        assert answer.startswith("="), f"{command}: {answer}"
        return answer[1:].strip()

    def stones(self):
        """int8 [N, N], from the diagram of either."""
        rows = [line.split() for line in self.ask("showboard").splitlines()]
        return text.read("\n".join(" ".join(row[1:10]) for row in rows if row[0].isdigit()))


@pytest.mark.skipif(GNUGO is None, reason="gnugo is not installed")
def test_a_game_against_gnu_go():
    gnugo = subprocess.Popen([GNUGO, "--mode", "gtp", "--level", "1", "--seed", "1", "--chinese-rules"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    own, other = Program(start(9)), Program(gnugo)
    sides, passes, number = ((own, other), (other, own)), 0, 0
    for program in (own, other):
        for line in ("boardsize 9", "clear_board", "komi 7.5", "time_settings 0 1 0"):
            program.ask(line)
    assert own.ask("fixed_handicap 5").split() == ["C3", "G7", "C7", "G3", "E5"]
    assert sorted(other.ask("fixed_handicap 5").split()) == sorted(["C3", "G7", "C7", "G3", "E5"])
    while passes < 2 and number < 300:
        (mover, told), colour = sides[number % 2], "wb"[number % 2]
        move = mover.ask(f"genmove {colour}").lower()
        if move == "resign":
            break
        told.ask(f"play {colour} {move}")
        passes, number = passes + 1 if move == "pass" else 0, number + 1
        if number % 10 == 0:
            np.testing.assert_array_equal(own.stones(), other.stones())
    np.testing.assert_array_equal(own.stones(), other.stones())
    assert number > 20 and own.stones().any()
    for program in (own, other):
        program.ask("quit")
        assert program.process.wait(60) == 0
        for stream in (program.process.stdin, program.process.stdout, program.process.stderr):
            if stream:
                stream.close()


def test_the_longest_line_holds_all_stones_of_a_board():
    assert gtp.LONGEST_LINE > 10 * 19 * 19
