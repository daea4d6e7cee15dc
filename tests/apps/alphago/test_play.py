"""The program that plays, in the terminal and as an engine."""

import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from apps.alphago import play
from apps.alphago.go import rules as go
from apps.alphago.go import sgf
from apps.alphago.players import RESIGN, Analysis, Choice
from apps.alphago.terminal import Terminal

RULES = go.Rules(size=5, komi=0.5)
PLAY = [sys.executable, "-m", "apps.alphago.play", "--player=random", "--size=5"]


class Scripted:
    """A player whose moves are known beforehand."""

    name = "scripted"

    def __init__(self, *moves):
        self._moves = list(moves)

    def begin(self, rules):
        assert rules == RULES

    def choose(self, board, seconds=None):
        assert seconds == 2
        return Choice(self._moves.pop(0), Analysis(10, 0.25, ()))


def played(player, *lines, person=go.BLACK):
    lines, shown = list(lines), []

    def read():
        if not lines:
            raise EOFError
        return lines.pop(0)

    terminal = Terminal(player, RULES, person, seconds=2, read=read, write=shown.append)
    terminal.run()
    assert not lines
    return terminal, "\n".join(shown)


def test_a_game_to_its_end(tmp_path):
    terminal, shown = played(Scripted(0, 25), "C3", "A5", "Z9", f"save {tmp_path / 'game.sgf'}", "pass")
    assert terminal.board.moves == [(1, 12), (-1, 0), (1, 25), (-1, 25)]
    assert "White plays A5 (25% for white, 10 visits)" in shown and " 5(O). . . . 5" in shown
    assert "Move 3, black A5, is illegal here" in shown and "'Z9' is no point of a board of 5" in shown
    assert "wins by 0.5 points" in shown
    assert sgf.read(tmp_path / "game.sgf").moves == ((1, 12), (-1, 0))


def test_second_thoughts():
    terminal, shown = played(Scripted(0, 1, 2), "C3", "undo", "undo", "help", "hint", "save", "B2", "quit")
    assert terminal.board.moves == [(1, 16), (-1, 2)]
    assert "You have made no move yet." in shown and "scripted would play B5" in shown
    assert "takes your last move back" in shown and "save needs a file's name" in shown


def test_the_first_move_of_a_player_that_begins_is_not_taken_back():
    terminal, shown = played(Scripted(12, 1), "undo", "A1", "undo", "undo", "quit", person=go.WHITE)
    assert terminal.board.moves == [(1, 12)] and shown.count("You have made no move yet.") == 2


def test_who_gives_up():
    assert played(Scripted(), "resign")[1].endswith("White wins: black resigned.")
    terminal, shown = played(Scripted(12, RESIGN), "A1", person=go.WHITE)
    assert shown.endswith("White wins: black resigned.") and "You are white." in shown and "(X)" in shown


def test_an_engine_keeps_its_output_to_itself():
    commands = "boardsize 5\nplay b C3\ngenmove w\nshowboard\nname\nquit\n"
    done = subprocess.run([*PLAY, "--mode=gtp"], input=commands, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = done.stdout.split("\n\n")
    assert [answer[:1] for answer in answers] == ["="] * 6 + [""] and answers[4] == "= random"


def test_a_killed_engine_goes_on_from_its_file(tmp_path):
    """Killed between two commands, and begun anew with what it had written."""
    path, boards = tmp_path / "game.sgf", []
    for lines, is_killed in ((["play b C3", "genmove w", "play b A1", f"printsgf {path}", "showboard"], True),
                             ([f"loadsgf {path}", "showboard", "undo", "play b A1", "genmove w", "quit"], False)):
        engine = subprocess.Popen([*PLAY, "--mode=gtp"], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL)
        with engine:
            answers = []
            for line in lines:
                engine.stdin.write(line + "\n")
                engine.stdin.flush()
                answers.append("".join(iter(engine.stdout.readline, "\n")))
            if is_killed:
                engine.kill()
        assert all(answer.startswith("=") for answer in answers)
        boards.append(answers[lines.index("showboard")])
    assert boards[0] == boards[1] and "X" in boards[0] and engine.returncode == 0


def test_a_page_until_it_is_interrupted():
    process = subprocess.Popen([*PLAY, "--mode=browser"], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    url = re.search(r"http://127.0.0.1:\d+/", process.stdout.readline())[0]
    with urllib.request.urlopen(url, timeout=60) as page:
        assert b"<title>" in page.read()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, process.stderr.read()[-2000:]


@pytest.mark.parametrize("options, words", [
    ({"player": "nobody"}, "Unknown player 'nobody'"), ({"komi": "much"}, "--komi must be a number; received 'much'"),
    ({"size": 3}, "A board has 5 to 19 points a side; received 3"), ({"mode": "chess"}, "Unknown value of --mode"),
    ({"player": "network:/nowhere"}, "/nowhere has no network.*suite: go9"),
    ({"size": 13}, "network:go9 plays on boards of 9; received --size=13. Leave it out, or choose another --player")])
def test_bad_input(options, words):
    with pytest.raises(ValueError, match=words):
        play.main(play.PlayConfig(**{"mode": "gtp", **options}))
