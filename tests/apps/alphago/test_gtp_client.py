"""GTP programs, good and bad ones: what they are told, and what becomes of them."""

import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from apps.alphago.go import rules as go
from apps.alphago.go import text
from apps.alphago.go.board import Board
from apps.alphago.gtp_client import GtpPlayer
from apps.alphago.gtp_process import GtpError, Program, Refused, words_of
from apps.alphago.players import RESIGN, RandomPlayer

FAKE = pathlib.Path(__file__).with_name("fake_gtp.py")
GNUGO = shutil.which("gnugo") or shutil.which("/usr/games/gnugo")
RULES = go.Rules(size=5, komi=2.5)
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells a process that its parent has died.")


def fake(**plan):
    return [sys.executable, "-S", str(FAKE), json.dumps(plan)]


@pytest.fixture
def told(tmp_path):
    """(player, its next commands): a player of the fake program, and a function that says what it was told since."""
    players, seen = [], [0]

    def make(**plan):
        players.append(GtpPlayer(fake(log=str(tmp_path / "log"), **plan), timeout=20))
        return players[-1], read

    def read():
        lines = (tmp_path / "log").read_text().splitlines()[seen[0]:]
        seen[0] += len(lines)
        return lines

    yield make
    for player in players:
        player.close()


def board_of(*names, rules=RULES, **options):
    board = Board(rules, **options)
    for name in names:
        board.play(text.move_of(name, rules.size))
    return board


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition, seconds=15):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def test_only_what_is_new_is_sent(told):
    player, commands = told(moves=["C3", "a1", "PASS"])
    assert player.name == "Fake 1.0"
    player.begin(RULES)
    assert commands() == ["name", "version", "boardsize 5", "komi 2.5", "clear_board"]
    board = board_of()
    assert player.choose(board).move == 12
    assert commands() == ["genmove b"]
    board.play(12)
    board.play(25)
    board.play(3)
    assert player.choose(board).move == 20
    assert commands() == ["play w pass", "play b D5", "genmove w"]
    assert player.choose(board).move == 25  # asked again without having played: the program takes its own move back
    assert commands() == ["undo", "genmove w"]


def test_back_and_to_other_games(told):
    player, commands = told(moves=["A1", "B1", "C1", "D1"])
    player.begin(RULES)
    player.choose(board_of("C3", "D3", "C4", "D4"))
    commands()
    player.choose(board_of("C3", "D3", "B3"))
    assert commands() == ["clear_board", "play b C3", "play w D3", "play b B3", "genmove w"]
    player.choose(board_of("C3", "D3", "B3", "E5"))
    assert commands() == ["undo", "play w E5", "genmove b"]
    player.choose(board_of("D2", rules=go.Rules(size=9, komi=7)))
    assert commands() == ["boardsize 9", "komi 7", "clear_board", "play b D2", "genmove w"]


def test_a_side_may_move_twice(told):
    player, commands = told(moves=["A1"])
    board = board_of("C3")
    board.play(0, go.BLACK)
    player.begin(RULES)
    player.choose(board)
    assert commands()[-3:] == ["play b C3", "play b A5", "genmove w"]


def test_without_undo_it_begins_anew(told):
    player, commands = told(undo="refuse", moves=["A1", "B1"])
    player.begin(RULES)
    player.choose(board_of("C3", "D3"))
    commands()
    player.choose(board_of("C3", "D3", "E3"))
    assert commands() == ["undo", "clear_board", "play b C3", "play w D3", "play b E3", "genmove w"]


def test_handicap(told):
    player, commands = told(moves=["A1", "A2", "A3"])
    stones = np.zeros([5, 5], np.int8)
    stones[0, 1] = stones[3, 4] = 1
    player.begin(RULES)
    commands()
    board = Board(RULES, stones, go.WHITE)
    player.choose(board)
    assert commands() == ["clear_board", "set_free_handicap B5 E2", "genmove w"]
    player.choose(board)
    assert commands() == ["clear_board", "set_free_handicap B5 E2", "genmove w"]  # nothing is left after an undo
    player.choose(board_of("C3"))
    assert commands() == ["clear_board", "play b C3", "genmove w"]


@pytest.mark.parametrize("black, white", [(1, 0), (2, 1), (0, 2)])
def test_other_stones_are_refused(told, black, white):
    player, commands = told()
    stones = np.zeros(25, np.int8)
    stones[:black], stones[10:10 + white] = 1, -1
    commands()
    with pytest.raises(ValueError, match=f"two or more black stones, a handicap; received a board set up with {black} "
                                         f"black and {white} white"):
        player.choose(Board(RULES, stones))
    assert commands() == []


def test_times(told):
    player, commands = told(moves=["A1", "B1", "C1", "D1", "E1"])
    player.begin(RULES)
    player.choose(board_of(), 2.9)
    assert commands()[-3:] == ["time_settings 0 2 1", "time_left b 2 1", "genmove b"]
    player.choose(board_of("A1"), 2)
    assert commands() == ["time_left w 2 1", "genmove w"]
    player.choose(board_of("A1", "B1"), 0.1)
    assert commands() == ["time_settings 0 1 1", "time_left b 1 1", "genmove b"]
    player.choose(board_of("A1", "B1", "C1"))
    assert commands() == ["time_settings 0 1 0", "genmove w"]  # no limit any more
    player.choose(board_of("A1", "B1", "C1", "D1"))
    assert commands() == ["genmove b"]


def test_times_of_a_game(tmp_path):
    log = tmp_path / "log"
    with GtpPlayer(fake(log=str(log)), time_settings=(60, 5, 1)) as player:
        player.begin(RULES)
        player.choose(board_of())
        player.begin(RULES)
    assert log.read_text().split("\n")[5:-1] == ["time_settings 60 5 1", "genmove b", "boardsize 5", "komi 2.5",
                                                "clear_board", "time_settings 60 5 1"]


def test_resignation_and_analysis(told):
    player, _ = told(moves=["resign"])
    player.begin(RULES)
    assert player.choose(board_of()).move == RESIGN
    with pytest.raises(GtpError, match="Fake 1.0 cannot analyse: GTP has no command"):
        player.analyse(board_of(), 0.1)


@pytest.mark.parametrize("does, message", [
    ("die", r"fake_gtp.* ended before it answered 'genmove b' \(exit code 3\).*first line \| out of ideas"),
    ("kill", r"ended before it answered 'genmove b' \(killed by signal 9\)\. It wrote no errors"),
    ("hang", r"did not answer 'genmove b' within 1 s\. Its last lines of standard error: still thinking"),
    ("close", "ended before it answered 'genmove b'. It wrote"),
    ("garbage", r"answered 'genmove b' with 'Segmentation fault', which is not GTP: expected = or \?"),
    ("half", r"did not answer 'genmove b' within 1 s, but for '=6 E5' without an empty line"),
    ("number", "answered 'genmove b', its command number 6, with '=7 E5', which has another number"),
    ("flood", "which is not GTP"),
])
def test_programs_that_fail(does, message):
    player = GtpPlayer(fake(genmove=does), timeout=1 if does in ("hang", "half") else 10)
    player.begin(RULES)
    began = time.monotonic()
    with pytest.raises(GtpError, match=message) as caught:
        player.choose(board_of())
    assert time.monotonic() - began < 8 and shlex.join(fake(genmove=does)) in str(caught.value)
    with pytest.raises(GtpError, match="was asked 'boardsize 5' after its end"):
        player.begin(RULES)
    player.close()


@pytest.mark.parametrize("answer, message", [
    ("C3", r"proposes an illegal move, C3 as move 2\. Does it play by the same rules\? It wrote"),
    ("K9", "answered genmove with what is no move: 'K9' is no point of a board of 5"),
    ("", "answered genmove with what is no move: '' is no point"),
])
def test_wrong_moves(told, answer, message):
    player, commands = told(moves=[answer, "D3"])
    player.begin(RULES)
    with pytest.raises(GtpError, match=message):
        player.choose(board_of("C3"))
    commands()
    assert player.choose(board_of("C3")).move == 13  # it goes on, from a position that is known
    assert commands() == ["clear_board", "play b C3", "genmove w"]


def test_refusals(told):
    player, _ = told(boardsize="refuse")
    with pytest.raises(Refused, match="refused 'boardsize 5': not today. It wrote no errors"):
        player.begin(RULES)


def test_slow_starts():
    with GtpPlayer(fake(start=1), timeout=10) as player:
        assert player.name == "Fake 1.0"
    with pytest.raises(GtpError, match="did not answer 'name' within 0.5 s"):
        GtpPlayer(fake(start=30), timeout=0.5)


def test_seconds_of_a_move_come_on_top():
    script = r"""
import sys, time
for line in sys.stdin:
    if "genmove" in line:
        time.sleep(2.5)
    print("=" + line.split()[0], "pass" if "genmove" in line else "x", end="\n\n", flush=True)"""
    with GtpPlayer([sys.executable, "-S", "-c", script], timeout=2) as player:
        player.begin(RULES)
        assert player.choose(board_of(), 3).move == 25
        with pytest.raises(GtpError, match="within 2 s"):
            player.choose(board_of())


def test_forms_of_answers():
    script = r"""
import sys
answers = ["=1 one\r\n\r\n", "=2\n\n", "\n\n=3 two\nlines\n\n", "= 4 x\n\n"]
for line, answer in zip(sys.stdin, answers):
    print(answer, end="", flush=True)"""
    program = Program([sys.executable, "-S", "-c", script], 10)
    assert [program.ask(word) for word in "abc"] == ["one", "", "two\nlines"]
    with pytest.raises(GtpError, match="another number"):
        program.ask("d")


def test_nothing_is_left_after_closing(tmp_path):
    pids = tmp_path / "pids"
    player = GtpPlayer(fake(pids=str(pids), stubborn=True))
    numbers = [int(pid) for pid in pids.read_text().split()]
    assert all(is_running(pid) for pid in numbers)
    began = time.monotonic()
    player.close()
    player.close()
    assert time.monotonic() - began < 6
    wait_for(lambda: not any(is_running(pid) for pid in numbers))


@ON_LINUX
def test_it_ends_with_a_caller_that_is_killed(tmp_path):
    pids = tmp_path / "pids"
    script = ("import sys, time\nfrom apps.alphago.gtp_process import Program\nprogram = Program(sys.argv[1:], 20)\n"
              "program.ask('name')\nprint('ready', flush=True)\ntime.sleep(1000)")
    caller = subprocess.Popen([sys.executable, "-c", script, *fake(pids=str(pids), stubborn=True)],
                              stdout=subprocess.PIPE, cwd=pathlib.Path(__file__).parents[3])
    child = None
    try:
        assert caller.stdout.readline() == b"ready\n"
        program, child = (int(pid) for pid in pids.read_text().split())
        assert is_running(program)
        caller.kill()
        caller.wait()
        wait_for(lambda: not is_running(program))
    finally:
        caller.kill()
        caller.stdout.close()
        if child is not None:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("command, message", [
    ("", "The GTP command is empty"),
    ([], "The GTP command is empty"),
    ("gnugo 'x", "cannot be split into words: No closing quotation"),
    ("no_such_program --mode gtp", "The program 'no_such_program' of the GTP command 'no_such_program --mode gtp' is"),
])
def test_bad_commands(command, message):
    with pytest.raises(ValueError, match=message):
        words_of(command)


def test_bad_options():
    with pytest.raises(ValueError, match="above 0 seconds; received 0"):
        GtpPlayer(fake(), timeout=0)
    with pytest.raises(ValueError, match=r"three whole numbers.*received \(1, 2\)"):
        GtpPlayer(fake(), time_settings=(1, 2))


@pytest.mark.skipif(GNUGO is None, reason="GNU Go is not installed.")
def test_gnu_go():
    command = [GNUGO, *"--mode gtp --level 1 --chinese-rules --capture-all-dead --play-out-aftermath --seed 7".split()]
    with GtpPlayer(command, timeout=30) as player:
        assert player.name.startswith("GNU Go 3")
        opponent, board = RandomPlayer(1), Board(RULES)

        def agree():
            player._bring_to(board)
            for word, colour in (("black", go.BLACK), ("white", go.WHITE)):
                found = {text.move_of(name, 5) for name in player._program.ask(f"list_stones {word}").split()}
                assert found == set(np.flatnonzero(board.stones == colour))

        player.begin(RULES)
        while not board.is_over and len(board.moves) < 30:
            move = (player if board.turn == go.BLACK else opponent).choose(board).move
            if move == RESIGN:
                break
            board.play(move)
            agree()
        assert len(board.moves) >= 4
        for _ in range(3):
            board.undo()
            agree()
