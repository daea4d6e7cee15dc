"""Every command of the Go Text Protocol, and every answer to what cannot be obeyed."""

import io
import re

import numpy as np
import pytest

from apps.alphago.go import rules as go
from apps.alphago.go import sgf, text
from apps.alphago.gtp import Engine
from apps.alphago.players import RandomPlayer
from tests.apps.alphago.gtp_fakes import ANALYSIS, Fake

RULES = go.Rules(size=5, komi=0.5)
STANDARD = """protocol_version name version known_command list_commands quit boardsize clear_board komi play genmove
    undo showboard time_settings time_left final_score final_status_list loadsgf fixed_handicap place_free_handicap
    set_free_handicap reg_genmove printsgf get_komi kgs-time_settings lz-analyze kata-analyze lz-genmove_analyze
    kata-genmove_analyze""".split()


def engine_of(*moves, player=None, **options):
    return Engine(player or Fake(*moves), RULES, **options)


def answers(engine, *lines):
    """What follows "= "; a line that is refused fails the test."""
    found = [engine.respond(line) for line in lines]
    for line, answer in zip(lines, found):
        assert answer.startswith("=") and answer.endswith("\n\n"), f"{line}: {answer}"
    return [answer[1:].strip() for answer in found]


def state_of(board):
    return [part.numpy().tolist() for part in board.state], board.moves, board.rules, str(board)


def test_who_it_is():
    engine = engine_of(version="3.1")
    assert answers(engine, "protocol_version", "name", "version") == ["2", "fake", "3.1"]
    assert sorted(answers(engine, "list_commands")[0].split("\n")) == sorted(STANDARD)
    for name in STANDARD:
        assert answers(engine, f"known_command {name}") == ["true"]
    assert answers(engine, "known_command no", "known_command PLAY") == ["false", "false"]
    assert not engine.finished and answers(engine, "quit") == [""] and engine.finished


@pytest.mark.parametrize("line, response", [
    ("1 name", "=1 fake\n\n"), ("007\tname\r\n", "=007 fake\n\n"), ("name\nquit", "= fake\n\n"),
    ("  2147483647   name  # who?", "=2147483647 fake\n\n"),
    ("name", "= fake\n\n"), ("na\x01\x7fme\x00", "= fake\n\n"), ("5name", "=5 fake\n\n"), ("3 quit", "=3\n\n"),
    ("", ""), ("\n", ""), (" \t \r\n", ""), ("# 1 name", ""), ("\x02\x03", ""),
    ("#" * 10**6, ""), ("12", "?12 unknown command\n\n"), ("2147483648 name", "? syntax error\n\n"),
    ("9" * 5000 + " name", "? syntax error\n\n"), (" " * 2**16 + "name", "? line too long\n\n"),
    ("4 play b A1" + " " * 2**16, "?4 line too long\n\n"), ("-1 name", "? unknown command\n\n"),
    ("７ name", "? unknown command\n\n"), ("name\u2028x", "? unknown command\n\n"), ("6 é", "?6 unknown command\n\n")])
def test_lines_are_read_as_the_protocol_says(line, response):
    assert engine_of().respond(line) == response


@pytest.mark.parametrize("lines, refusal", [
    ("foo", "unknown command"), ("Play b A1", "unknown command"), ("name x", "syntax error"),
    ("known_command", "syntax error"), ("boardsize", "syntax error"), ("boardsize five", "syntax error"),
    ("boardsize 4", "unacceptable size"), ("boardsize 19", "unacceptable size"), ("boardsize -5", "syntax error"),
    ("boardsize 99999999999999999999", "syntax error"), ("boardsize 5 5", "syntax error"), ("komi", "syntax error"),
    ("komi x", "syntax error"), ("komi nan", "syntax error"), ("komi inf", "syntax error"),
    ("komi 1e9", "syntax error"),
    ("komi 0.3", "unacceptable komi: expected a multiple of 0.5"), ("play b", "syntax error"),
    ("play b A1 A2", "syntax error"), ("play red A1", "invalid color"), ("play b A6", "invalid vertex"),
    ("play b I1", "invalid vertex"), ("play b resign", "invalid vertex"), ("play b A99999999999", "invalid vertex"),
    ("play b C3|play w C3", "illegal move"), ("undo", "cannot undo"), ("play b A1|undo|undo", "cannot undo"),
    ("genmove", "syntax error"), ("genmove green", "invalid color"), ("reg_genmove", "syntax error"),
    ("time_settings 1 2", "syntax error"), ("time_settings 1 2 -3", "syntax error"), ("time_left b 1", "syntax error"),
    ("time_left x 1 1", "invalid color"), ("time_left b 1.5 1", "syntax error"), ("kgs-time_settings", "syntax error"),
    ("kgs-time_settings absolute", "syntax error"), ("kgs-time_settings fischer 1 2", "syntax error"),
    ("final_status_list", "syntax error"), ("final_status_list happy", "syntax error"),
    ("loadsgf", "syntax error"), ("loadsgf a.sgf x", "syntax error"),
    ("loadsgf no.sgf", "cannot load file: .*no.sgf.*"),
    ("fixed_handicap", "syntax error"), ("fixed_handicap 2", "invalid number of stones"),
    ("place_free_handicap 1", "invalid number of stones"), ("place_free_handicap 25", "invalid number of stones"),
    ("play b A1|place_free_handicap 2", "board not empty"), ("play b A1|set_free_handicap B1 C1", "board not empty"),
    ("play b A1|fixed_handicap 2", "board not empty"), ("play w pass|fixed_handicap 2", "board not empty"),
    ("set_free_handicap", "bad vertex list"), ("set_free_handicap A1", "bad vertex list"),
    ("set_free_handicap A1 A1", "bad vertex list"), ("set_free_handicap A1 pass", "bad vertex list"),
    ("set_free_handicap A1 Z9", "invalid vertex"),
    ("set_free_handicap A1 B1|set_free_handicap C1 D1", "board not empty"),
    ("set_free_handicap " + " ".join(f"{c}{n}" for c in "ABCDE" for n in range(1, 6)), "bad vertex list"),
    ("lz-analyze interval", "syntax error"), ("lz-analyze avoid b A1 3", "invalid color"),
    ("lz-analyze 99999999999", "syntax error"), ("kata-analyze maxmoves -1", "syntax error")])
def test_refusals_change_nothing(lines, refusal):
    engine = engine_of(sizes=[5, 7])
    *before, line = lines.split("|")
    answers(engine, *before)
    state, setup, limited = state_of(engine.board), engine.board.setup, engine.clock.limited
    assert re.fullmatch(rf"\?8 {refusal}\n\n", engine.respond(f"8 {line}"))
    assert state_of(engine.board) == state and engine.board.setup is setup and engine.clock.limited == limited


def test_sizes_and_komi():
    player = Fake()
    with pytest.raises(ValueError, match=r"for a board of 5; expected one of \[9, 13\]"):
        engine_of(sizes=[9, 13])
    engine = engine_of(player=player, sizes=[5, 6])
    assert player.begun == [engine.board.rules] and engine.board.rules.last_move == 100
    answers(engine, "boardsize 5", "clear_board", "komi 0.5", "name")
    assert len(player.begun) == 1, "nothing has happened since"
    answers(engine, "play b C3", "komi 7.5")
    assert engine.board.moves == [(1, 12)] and answers(engine, "get_komi") == ["7.5"]
    assert answers(engine, "final_score", "komi 25", "final_score", "komi -1", "final_score") == \
        ["B+17.5", "", "0", "", "B+26"]
    assert [rules.komi for rules in player.begun] == [0.5, 7.5, 25, -1] and engine.board.moves == [(1, 12)]
    answers(engine, "boardsize 6")
    assert engine.board.rules == go.Rules(size=6, komi=-1, max_moves=144) == player.begun[-1]
    assert not engine.board.moves and engine.board.stones.shape == (6, 6)
    kept = Engine(Fake(), go.Rules(size=5, superko=True, suicide=True, max_moves=30))
    answers(kept, "boardsize 5", "komi 3")
    assert kept.board.rules == go.Rules(size=5, komi=3, superko=True, suicide=True, max_moves=30)


def test_moves():
    engine = engine_of("d3", "resign", "pass", "B2")
    assert answers(engine, "play black c3", "genmove W", "play w PASS", "reg_genmove b", "genmove b") == \
        ["", "D3", "", "resign", "pass"]
    assert engine.board.moves == [(1, 12), (-1, 13), (-1, 25), (1, 25)], "resigning is no move"
    assert answers(engine, "undo", "undo", "undo", "genmove b") == ["", "", "", "B2"]
    assert engine.board.moves == [(1, 12), (1, 16)]
    shown = answers(engine, "showboard")[0]
    np.testing.assert_array_equal(text.read(shown.rsplit("\n", 1)[0]), engine.board.stones)
    assert "White to move" in shown
    answers(engine, "clear_board")
    assert not engine.board.moves and not engine.board.stones.any()


def test_what_the_player_sees():
    player = Fake("A1", "B1", "C1", "D1")
    engine = engine_of(player=player)
    answers(engine, "play b C3", "genmove b", "play w pass", "play b pass", "genmove w")
    other, ended = player.boards
    assert other.turn == go.BLACK and other.moves == [(1, 12)] and (ended.turn, ended.is_over) == (go.WHITE, False)
    other.play(0)
    other.undo()
    other.undo()
    assert engine.board.moves == [(1, 12), (1, 20), (-1, 25), (1, 25), (-1, 21)], "its board is its own"
    answers(engine, "play b C4", "play w B4", "play b D3", "play w A3", "play b C2", "play w B2", "play b A5", "undo")
    assert answers(engine, "reg_genmove w") == ["C1"] and player.boards[-1].turn == go.WHITE


@pytest.mark.parametrize("move", [RuntimeError("no\n\nmemory"), StopIteration(), MemoryError(), AttributeError("x")])
def test_a_player_that_fails(move, caplog):
    engine = engine_of(move, "A1")
    answers(engine, "play b C3")
    state = state_of(engine.board)
    assert engine.respond("3 genmove w").startswith(f"?3 failed: {type(move).__name__}:")
    assert state_of(engine.board) == state and "genmove failed" in caplog.text
    assert answers(engine, "genmove w") == ["A1"]


def test_a_player_that_plays_what_is_illegal():
    engine = engine_of("C3", "A1")
    answers(engine, "play b C3")
    assert engine.respond("genmove w") == "? failed: ValueError: The player chose 12, which is no legal move.\n\n"
    assert answers(engine, "genmove w") == ["A1"]


def test_a_player_that_refuses_rules():
    player = Fake("A1")
    engine = engine_of(player=player)
    answers(engine, "play b C3")

    def begin(rules, before=player.begin):
        before(rules)
        if rules.komi == 3:
            raise ValueError("not with 3")
    player.begin = begin
    assert engine.respond("komi 3") == "? failed: ValueError: not with 3\n\n"
    assert engine.board.rules.komi == 0.5 and engine.board.moves
    assert answers(engine, "genmove w") == ["A1"] and player.begun[-1].komi == 0.5, "it is told again"


def test_games_do_not_end_too_early():
    engine = engine_of("pass", "pass", player=None)
    answers(engine, *["play b pass"] * 99, "genmove b")
    assert engine.respond("genmove b") == "? too many moves\n\n"
    assert engine.respond("play w A1") == "? illegal move\n\n"
    assert answers(engine, "undo", "genmove w") == ["", "pass"]


def test_final_score():
    class Judge(Fake):
        def dead_stones(self, board):
            assert board.turn == go.WHITE
            return self.verdict

    player = Judge()
    engine = engine_of(player=player)
    answers(engine, *(f"play {side}{row}" for row in range(1, 6) for side in ("b B", "w C")), "play b E5")
    player.verdict = np.zeros([5, 5], bool)
    assert answers(engine, "final_score", "final_status_list dead", "final_status_list seki") == ["B+5.5", "", ""]
    assert answers(engine, "final_status_list alive") == ["B5 B4 B3 B2 B1\nC5 C4 C3 C2 C1\nE5"]
    player.verdict[0, 4] = player.verdict[0, 0] = True  # a stone, and a point without one
    assert answers(engine, "final_score", "final_status_list dead") == ["W+5.5", "E5"]
    assert answers(engine, "final_status_list alive") == ["B5 B4 B3 B2 B1\nC5 C4 C3 C2 C1"]
    player.verdict = np.zeros(25)
    assert "dead_stones of the player returned shape (25,); expected (5, 5)" in engine.respond("final_score")
    plain = engine_of()
    assert answers(plain, "play b E5", "final_status_list dead", "final_score") == ["", "", "B+24.5"]


@pytest.mark.parametrize("size, stones, points", [
    (19, 2, "D4 Q16"), (19, 3, "D4 Q16 D16"), (19, 4, "D4 Q16 D16 Q4"), (19, 5, "D4 Q16 D16 Q4 K10"),
    (19, 6, "D4 Q16 D16 Q4 D10 Q10"), (19, 7, "D4 Q16 D16 Q4 D10 Q10 K10"), (19, 8, "D4 Q16 D16 Q4 D10 Q10 K4 K16"),
    (19, 9, "D4 Q16 D16 Q4 D10 Q10 K4 K16 K10"), (9, 9, "C3 G7 C7 G3 C5 G5 E3 E7 E5"), (13, 3, "D4 K10 D10"),
    (8, 4, "C3 F6 C6 F3"), (7, 4, "C3 E5 C5 E3"), (5, 4, "B2 D4 B4 D2")])
def test_where_handicap_stones_go(size, stones, points):
    assert [text.name_of(point, size) for point in text.handicap_points(size, stones)] == points.split()


@pytest.mark.parametrize("size, most", [(19, 9), (9, 9), (8, 4), (7, 4), (6, 4)])
def test_how_many_there_are(size, most):
    for stones in (0, 1, most + 1):
        with pytest.raises(ValueError, match=f"A board of {size} has 2 to {most} handicap stones; received {stones}"):
            text.handicap_points(size, stones)


def test_handicap():
    engine = engine_of("B2", sizes=[5, 7])
    assert answers(engine, "place_free_handicap 3") == ["B2 D4 B4"]
    assert engine.board.turn == go.WHITE and engine.board.rules.komi == 0.5 and not engine.board.moves
    assert engine.respond("undo") == "? cannot undo\n\n" and engine.respond("genmove w").startswith("? failed")
    answers(engine, "clear_board", "place_free_handicap 20", "clear_board", "set_free_handicap c3 A1")
    assert engine.board.stones[2, 2] == engine.board.stones[4, 0] == 1 and engine.board.stones.sum() == 2
    assert answers(engine, "printsgf")[0].count("AB[ae][cc]") == 1 and "HA[2]" in answers(engine, "printsgf")[0]
    assert "PL[W]" in answers(engine, "printsgf")[0]
    assert answers(engine, "boardsize 7", "fixed_handicap 4", "clear_board")[1] == "C3 E5 C5 E3"
    assert engine.respond("fixed_handicap 5") == "? invalid number of stones\n\n"


@pytest.mark.parametrize("lines", [
    [], ["play b C3", "play w D3", "play w pass"], ["play w A1"], ["set_free_handicap A1 C3"],
    ["set_free_handicap A1 C3", "play w B1", "play b pass"], ["set_free_handicap A1 C3", "play b B1"],
    [f"play {'bw'[k % 2]} {name}" for k, name in enumerate("C4 B4 D3 A3 C2 B2 A5 C3 B3".split())]])
def test_a_game_goes_on_after_a_restart(lines, tmp_path):
    first, second = engine_of(sizes=[5, 6]), Engine(Fake("E5"), go.Rules(size=6, komi=3), sizes=[5, 6])
    answers(first, "komi -3.5", *lines, f"printsgf {tmp_path / 'x.sgf'}")
    assert (tmp_path / "x.sgf").read_text().split() == answers(first, "printsgf")[0].split()
    answers(second, f"loadsgf {tmp_path / 'x.sgf'}")
    assert state_of(second.board) == state_of(first.board)
    for _ in first.board.moves:
        answers(first, "undo")
        answers(second, "undo")
        assert state_of(second.board) == state_of(first.board)
    assert answers(second, f"genmove {'b' if second.board.turn == 1 else 'w'}") == ["E5"]


def test_loadsgf(tmp_path):
    path = tmp_path / "x.sgf"
    path.write_text("(;SZ[5]KM[6.5];B[cc];W[dc](;B[aa])(;B[bb]))")
    player = Fake()
    engine = engine_of(player=player, sizes=[5])
    for number, moves in ((0, 0), (1, 0), (3, 2), (4, 3), (99, 3)):
        answers(engine, f"loadsgf {path} {number}")
        assert len(engine.board.moves) == moves and engine.board.turn == (-1) ** moves
    assert answers(engine, f"loadsgf {path}", "get_komi") == ["", "6.5"] and engine.board.moves[-1] == (1, 0)
    assert player.begun[-1] == engine.board.rules
    path.write_text("(;SZ[5]HA[2]AB[aa][bb])")
    assert answers(engine, f"loadsgf {path}", "get_komi") == ["", "6.5"] and engine.board.turn == go.WHITE
    state = state_of(engine.board)
    for content, words in ((b"(;SZ[5];B[aa];W[aa])", "move 2, white A5, is illegal here:"), (b"\xff\x00", "not a game"),
                           (b"(;SZ[6])", "6 points a side"), (b"(;SZ[5]KM[3.75])", "multiple of one half"),
                           (b"(;SZ[5]KM[inf])", "infinite"), (b"(;SZ[5]PL[x])", "damaged"),
                           (b"(;CA[no]SZ[5])", "CA|no"),
                           (b"(;SZ[5]" + b";B[];W[]" * 51 + b")", "102 moves; expected at most 100")):
        path.write_bytes(content)
        found = engine.respond(f"loadsgf {path}")
        assert found.startswith("? cannot load file: ") and found.count("\n") == 2
        assert any(word in found for word in words.split("|")), found
        assert state_of(engine.board) == state
    assert engine.respond(f"loadsgf {tmp_path}").startswith("? cannot load file: ")
    assert engine.respond(f"printsgf {tmp_path / 'x.sgf' / 'y'}").startswith("? cannot write file: ")


def test_analysis_without_a_stream():
    player = Fake()
    engine = engine_of(player=player)
    answers(engine, "play b C3")
    line = "info move A5 visits {} winrate {} prior {} order 0 pv A5 B5\n\n"
    assert engine.respond("4 lz-analyze") == "=4\n" + line.format(1, 5000, 10000)
    assert engine.respond("kata-analyze B 20 rootInfo true") == "=\n" + line.format(2, "0.500000", "1.000000")
    assert [board.turn for board in player.boards] == [go.WHITE, go.BLACK] and player.closed
    assert engine.board.moves == [(1, 12)]
    answers(engine, "lz-analyze w interval 3")
    assert player.intervals == [0.1, 0.1, 0.03]


@pytest.mark.parametrize("name, info", [
    ("lz", "info move C3 visits 10 winrate 5123 prior 1200 order 0 pv C3 D3 "
           "info move pass visits 2 winrate 10000 prior 0 order 1 pv pass\n"),
    ("kata", "info move C3 visits 10 winrate 0.512340 prior 0.120000 order 0 pv C3 D3 "
             "info move pass visits 2 winrate 1.000000 prior 0.000040 order 1 pv pass\n")])
def test_moves_with_what_they_rest_on(name, info):
    engine = engine_of(player=Fake("C3", "resign", RuntimeError("x"), analysis=ANALYSIS))
    assert engine.respond(f"1 {name}-genmove_analyze b 50") == f"=1\n{info}play C3\n\n"
    assert engine.board.moves == [(1, 12)]
    first = info.partition(" info")[0] + "\n"
    assert engine.respond(f"{name}-genmove_analyze maxmoves 1") == f"=\n{first}play resign\n\n"
    assert engine.respond(f"{name}-genmove_analyze") == "? failed: RuntimeError: x\n\n"
    assert Engine(RandomPlayer(0), RULES).respond(f"{name}-genmove_analyze").startswith("=\nplay ")


def test_time():
    player = Fake(*["pass"] * 9, pause=0.3)
    engine = engine_of(player=player)
    answers(engine, "genmove b", "time_settings 100 0 0", "genmove b")
    assert player.seconds[0] is None and 1 < player.seconds[1] < 20
    left, to_play = engine.clock.left(go.BLACK)
    assert 95 < left <= 99.7 and to_play == 0 and engine.clock.left(go.WHITE) == (100, 0)
    answers(engine, "time_left w 4 0", "genmove w", "time_settings 0 1 0", "genmove w")
    assert player.seconds[2] < 0.4 and player.seconds[3] is None
    answers(engine, "kgs-time_settings byoyomi 0 10 5", "time_left b 10 5", "genmove b")
    assert 8 < player.seconds[4] < 10 and engine.clock.left(go.BLACK) == (10, 1)
    answers(engine, "kgs-time_settings canadian 0 100 10", "genmove b", "clear_board")
    assert 5 < player.seconds[5] < 10 and engine.clock.left(go.BLACK) == (100, 10), "a new game, a new clock"
    answers(engine, "kgs-time_settings absolute 60", "genmove b", "kgs-time_settings none", "genmove b")
    assert player.seconds[6] < 10 and player.seconds[7] is None
    player = Fake(*["pass"] * 2)
    answers(engine_of(player=player, seconds=3), "genmove b", "time_settings 100 0 0", "genmove b")
    assert player.seconds[0] == 3 != player.seconds[1], "the clock's limit comes first"


@pytest.mark.parametrize("seed", range(3))
def test_an_engine_against_itself(seed):
    """Both sides in one engine, as a stream; the record of what it said is the game that it has."""
    engine, output = Engine(RandomPlayer(seed), RULES), io.BytesIO()
    lines = [f"{2 * k} genmove b\n{2 * k + 1} genmove w\n" for k in range(40)]
    engine.serve(io.BytesIO("".join(lines).encode()), output)
    said = output.getvalue().decode().split("\n\n")[:-1]
    assert len(said) == 80 and all(answer.startswith(f"={number} ") for number, answer in enumerate(said))
    moves = [text.move_of(answer.split()[1], 5) for answer in said]
    record = sgf.Record(5, 0.5, tuple(((1, -1)[k % 2], move) for k, move in enumerate(moves)))
    states = sgf.replay(engine.board.rules, record, "what was said")
    np.testing.assert_array_equal(states[-1].stones.numpy()[0], engine.board.stones.ravel())
    assert len(set(moves)) > 10 and moves == [move for _, move in engine.board.moves]


def test_names_stay_inside_a_response():
    player = Fake()
    player.name = "a\n\n\n= b\x07\tc"
    assert engine_of(player=player).respond("name") == "= a\n= b c\n\n"
