"""Matches: what is fair about them, what is kept, and what is counted."""

import json
import math
import pathlib
import shutil
import subprocess
import sys

import pytest

from apps.alphago import arena, elo
from apps.alphago.go import rules as go
from apps.alphago.go import sgf, text
from apps.alphago.go.board import Board
from apps.alphago.gtp_process import GtpError
from apps.alphago.match import GameAborted, check_opening, play_games, random_opening
from apps.alphago.players import RESIGN, Choice, RandomPlayer
from apps.alphago.results import Game, MatchResult, ResultsFile

RULES = go.Rules(size=5, komi=0.5, max_moves=30)
LONG = go.Rules(size=5, komi=0.5, max_moves=400)  # so many that all games end by passes
PASS = RULES.num_points
GNUGO = shutil.which("gnugo") or shutil.which("/usr/games/gnugo")
ROOT = pathlib.Path(__file__).parents[3]


class Scripted:
    """Plays what a function of the board says; closing is noted in a list."""

    def __init__(self, choose, name="scripted", closed=None):
        self.name, self._choose, self._closed = name, choose, closed

    def begin(self, rules):
        self.rules = rules

    def choose(self, board, seconds=None):
        return Choice(self._choose(board))

    def close(self):
        if self._closed is not None:
            self._closed.append(self.name)


def passing(seed):
    return Scripted(lambda board: board.rules.num_points)


def never_passing(seed):
    return Scripted(lambda board: int(board.legal().argmax()))


def match(folder, games=4, make_a=RandomPlayer, make_b=RandomPlayer, rules=RULES, **options):
    lines = []
    options = {"seed": 3, "opening_moves": 3, "report": lines.append} | options
    return arena.play_match(make_a, make_b, rules=rules, games=games, folder=folder, **options), lines


def outcomes(result):
    return [(game.number, game.black, game.score, game.margin, game.digest, game.opening) for game in result.games]


def game_of(number=1, score=1.0, **changes):
    values = {"number": number, "names": ("x", "y"), "black": "A", "score": score, "margin": 3.5, "ended": "passes",
              "opening": (), "length": 10, "digest": str(number), "chosen": (4, 4), "seconds": (1.0, 2.0)}
    return Game(**values | changes)


def test_games_are_fair_and_their_files_agree(tmp_path):
    result, lines = match(tmp_path, names=("one", "two"), rules=LONG)
    assert [game.black for game in result.games] == ["A", "B", "A", "B"] and len(lines) == 4
    records = [sgf.read(tmp_path / "games" / f"{number:04d}.sgf") for number in range(1, 5)]
    openings = [record.moves[:3] for record in records]
    assert openings[0] == openings[1] != openings[2] == openings[3]
    for game, record in zip(result.games, records):
        board = Board.from_record(LONG, record)
        assert game.ended == "passes" and board.is_over and board.score() == game.margin == record.margin
        assert record.names == (("one", "two") if game.black == "A" else ("two", "one")) and record.komi == 0.5
        assert game.score == float((game.margin > 0) == (game.black == "A"))
        assert tuple(text.name_of(move, 5) for _, move in record.moves[:3]) == game.opening
        assert len(record.moves) == game.length == 3 + sum(game.chosen) and min(game.seconds) > 0
        assert f"Game {game.number} of" in record.comments[0] and " ".join(game.opening) in record.comments[0]
        assert record.comments[3] == "End of the opening." and record.comments[game.length].endswith("both passed.")
    wins = sum(game.score for game in result.games)
    assert (result.wins, result.losses, result.draws) == (wins, 4 - wins, 0) and result.distinct == 4
    assert lines[-1].endswith(f"; A {wins:g}, B {4 - wins:g}")


def test_each_player_moves_for_its_colour(tmp_path):
    asked = {"a": [], "b": []}

    def make(name):
        def choose(board):
            asked[name].append((len(board.moves), board.turn))
            return PASS
        return lambda seed: Scripted(choose, name)

    result, _ = match(tmp_path, 2, make("a"), make("b"), opening_moves=1)
    assert asked == {"a": [(2, 1), (1, -1)], "b": [(1, -1), (2, 1)]}
    assert [game.score for game in result.games] == [1, 0]  # one stone owns the board


def test_an_interrupted_match_goes_on(tmp_path):
    made = []

    def make(seed):
        made.append(seed)
        if len(made) == 4:  # of game 4
            raise KeyboardInterrupt
        return RandomPlayer(seed)

    whole, _ = match(tmp_path / "whole", 6)
    with pytest.raises(KeyboardInterrupt):
        match(tmp_path / "parts", 6, make)
    kept = (tmp_path / "parts" / "results.jsonl").read_text()
    assert len(kept.splitlines()) == 1 + 3 and not (tmp_path / "parts" / "games" / "0004.sgf").exists()
    resumed, lines = match(tmp_path / "parts", 6, make)
    assert outcomes(resumed) == outcomes(whole) and len(made) == 4 + 3
    assert made[3] == made[4] and len(set(made)) == 6  # each game has its seed
    assert lines[0].startswith("3 games are in") and len(lines) == 1 + 3
    assert (tmp_path / "parts" / "results.jsonl").read_text().startswith(kept)
    for number in range(1, 7):
        first, second = (tmp_path / name / "games" / f"{number:04d}.sgf" for name in ("whole", "parts"))
        assert first.read_bytes() == second.read_bytes()
    longer, _ = match(tmp_path / "parts", 7, make)
    assert outcomes(longer)[:6] == outcomes(whole) and len(made) == 4 + 3 + 1
    assert outcomes(match(tmp_path / "parts", 2, make)[0]) == outcomes(whole)[:2] and len(made) == 8


@pytest.mark.parametrize("cut", [1, 30, None])
def test_a_damaged_last_line_is_played_again(tmp_path, cut):
    whole, _ = match(tmp_path, 3)
    path = tmp_path / "results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = b"\0" * 40 if cut is None else lines[-1][:cut]
    path.write_bytes(b"".join(lines[:-1]) + damaged)
    again, said = match(tmp_path, 3)
    assert outcomes(again) == outcomes(whole)
    assert "line 4, the last, is damaged: what it held is played again" in said[0]
    assert sum("game 3/3" in line for line in said) == 1 and not any("game 2/3" in line for line in said)
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 4


def test_a_last_line_without_its_end_is_whole(tmp_path):
    whole, _ = match(tmp_path, 2)
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    longer, said = match(tmp_path, 3)
    assert outcomes(longer)[:2] == outcomes(whole) and not any("damaged" in line for line in said)
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 4


def test_a_file_that_was_cut_at_its_first_line(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"settings": {"ru')
    assert len(match(tmp_path, 1)[0].games) == 1 and len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("line, message", [(b"{}", "line 2 of 4, is damaged: expected an object with number, names"),
                                           (b"xx", "line 2 of 4, is damaged: Expecting value"),
                                           (b"[1]", "line 2 of 4, is damaged: expected an object")])
def test_damage_further_up_is_an_error(tmp_path, line, message):
    match(tmp_path, 3)
    path = tmp_path / "results.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], line, *lines[2:]]))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        match(tmp_path, 3)
    assert path.read_bytes() == before


def test_another_match_is_refused(tmp_path):
    match(tmp_path, 1)
    for change, words in (({"seed": 4}, "seed was 3, now 4"), ({"opening_moves": 2}, "opening_moves was 3, now 2"),
                          ({"rules": go.Rules(size=5, komi=1)}, "rules was"), ({"names": ("x", "y")}, "names was")):
        with pytest.raises(ValueError, match=f"holds a match with other settings: {words}"):
            match(tmp_path, 1, **change)
    with pytest.raises(ValueError, match="holds games between random .A. and random .B.; received one between script"):
        match(tmp_path, 2, passing, passing)
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2


def test_a_file_in_use_is_refused(tmp_path):
    with ResultsFile(tmp_path / "results.jsonl", {"a": (1, 2)}):
        with pytest.raises(ValueError, match="is in use by another match"):
            ResultsFile(tmp_path / "results.jsonl", {"a": (1, 2)})
    with ResultsFile(tmp_path / "results.jsonl", {"a": (1, 2)}) as again:
        assert again.games == {}


def test_a_player_that_fails_aborts_its_game_only(tmp_path):
    closed, is_broken = [], True

    def make(seed):
        random, number = RandomPlayer(seed), len(closed)

        def choose(board):
            if is_broken and number == 1 and len(board.moves) >= 7:
                raise GtpError("engine (engine --gtp) ended")
            return random.choose(board).move
        return Scripted(choose, "engine", closed)

    message = r"Game 2 was aborted at move 8, white, by A \(engine\): engine \(engine --gtp\) ended"
    with pytest.raises(GameAborted, match=message) as caught:
        match(tmp_path, 4, make)
    assert caught.value.exit_code == 1 and closed == ["engine"] * 2
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 1 + 1
    assert not (tmp_path / "games" / "0002.sgf").exists()
    is_broken = False
    assert len(match(tmp_path, 4, make)[0].games) == 4 and len(closed) == 5


def test_a_player_that_does_not_start(tmp_path):
    closed = []

    def broken(seed):
        raise GtpError("no licence")

    with pytest.raises(GameAborted, match="Game 1 was aborted at its beginning by B: no licence"):
        match(tmp_path, 2, lambda seed: Scripted(None, "first", closed), broken)
    assert closed == ["first"]


@pytest.mark.parametrize("move", [26, -2, "taken"])
def test_illegal_moves_abort(tmp_path, move):
    def choose(board):
        return board.moves[0][1] if move == "taken" else move

    with pytest.raises(GameAborted, match=r"move 4, white, by B \(cheat\): expected a legal move; received"):
        match(tmp_path, 1, make_b=lambda seed: Scripted(choose, "cheat"))


def test_resignations(tmp_path):
    result, _ = match(tmp_path, 2, make_b=lambda seed: Scripted(lambda board: RESIGN, "coward"))
    assert [(game.score, game.margin, game.ended) for game in result.games] == [(1, None, "resignation")] * 2
    assert [game.chosen for game in result.games] == [(0, 1), (1, 1)]
    records = [sgf.read(tmp_path / "games" / f"000{number}.sgf") for number in (1, 2)]
    assert [record.margin for record in records] == [math.inf, -math.inf]  # black, white
    assert "random wins by resignation: one resigned." in records[0].comments[3]
    assert result.elo == math.inf and 0 < result.score_interval[0] < 1 and math.isfinite(result.elo_interval[0])


def test_draws_and_equal_games(tmp_path):
    result, lines = match(tmp_path, 3, passing, passing, rules=go.Rules(size=5, komi=0), opening_moves=0)
    assert [(game.score, game.margin) for game in result.games] == [(0.5, 0)] * 3 and "a draw after 2 moves" in lines[0]
    assert (result.wins, result.draws, result.losses, result.score, result.elo) == (0, 3, 0, 0.5, 0)
    assert result.distinct == 1 and arena.distinctness(result).startswith("Only 1 of 3 games are different")
    assert sgf.read(tmp_path / "games" / "0001.sgf").margin == 0


def test_games_are_cut_off(tmp_path):
    result, _ = match(tmp_path, 2, make_b=never_passing)
    for game in result.games:
        board = Board.from_record(RULES, sgf.read(tmp_path / "games" / f"{game.number:04d}.sgf"))
        assert game.ended == "max_moves" and game.length == 30 and game.margin == board.score()
    assert result.ends == {"passes": 0, "resignation": 0, "max_moves": 2}


def test_openings():
    first, again, other = (random_opening(RULES, 12, seed) for seed in (1, 1, 2))
    assert first.moves == again.moves != other.moves and len(first.moves) == 12
    assert all(move < PASS for _, move in first.moves) and [colour for colour, _ in first.moves] == [1, -1] * 6
    assert len({random_opening(RULES, 1, seed).moves[0][1] for seed in range(200)}) == 25
    for number, most in ((-1, 12), (13, 12)):
        with pytest.raises(ValueError, match=f"An opening has 0 to {most} moves .*; received {number}"):
            check_opening(RULES, number)
    with pytest.raises(ValueError, match="0 to 3 moves"):
        check_opening(go.Rules(size=5, max_moves=4), 4)


def test_games_by_themselves():
    makes = RandomPlayer, RandomPlayer

    def play_one(**options):
        (game, record), = play_games(makes, rules=RULES, **{"numbers": [7], "seed": 1} | options)
        return game, record

    game, record = play_one()
    assert game.names == ("random (A)", "random (B)") == record.names and game.opening == ()
    again, same = play_one()
    assert again.digest == game.digest and same.moves == record.moves and len(record.moves) == game.length
    for changes in ({"numbers": [8]}, {"seed": 2}):
        assert play_one(**changes)[0].digest != game.digest


def test_games_side_by_side(tmp_path):
    asked, closed = [], []

    class Gregarious(RandomPlayer):
        kind = "gregarious"

        @staticmethod
        def choose_together(players, boards):
            asked.append([len(board.moves) for board in boards])
            return [player.choose(board) for player, board in zip(players, boards)]

        def close(self):
            closed.append(self)

    alone, _ = match(tmp_path / "alone", 6)
    beside, _ = match(tmp_path / "beside", 6, make_a=Gregarious, parallel=4)
    assert [game.digest for game in alone.games] == [game.digest for game in beside.games] and len(closed) == 6
    assert max(map(len, asked)) == 4 == len(asked[0]) and sum(map(len, asked)) == sum(g.chosen[0] for g in beside.games)
    assert set(asked[0]) == {3, 4}  # whoever plays against them has answered first
    asked.clear()
    both, _ = match(tmp_path / "both", 6, make_a=Gregarious, make_b=Gregarious, parallel=4)
    assert [game.digest for game in alone.games] == [game.digest for game in both.games]
    assert sorted(map(len, asked[:3])) == [4, 4, 4]  # all think at once, whatever their colour


def test_games_side_by_side_are_closed_and_go_on(tmp_path):
    closed, calls = [], []

    def fragile(board):
        calls.append(board)
        if len(calls) == 5:
            raise GtpError("gone")
        return PASS

    def matched():
        return match(tmp_path, 6, lambda seed: Scripted(lambda board: PASS, "steady", closed),
                     lambda seed: Scripted(fragile, "fragile", closed), parallel=3)

    with pytest.raises(GameAborted, match=r"Game \d was aborted at move \d, \w+, by B \(fragile\): gone"):
        matched()
    kept = len((tmp_path / "results.jsonl").read_text().splitlines()) - 1
    assert 0 < kept < 6 and closed.count("steady") == closed.count("fragile") == kept + 3
    result, lines = matched()
    assert [game.number for game in result.games] == [1, 2, 3, 4, 5, 6] and len(lines) == 1 + 6 - kept


def test_seconds_are_passed_on_and_measured(tmp_path):
    seen = []

    class Timed(RandomPlayer):
        def choose(self, board, seconds=None):
            seen.append(seconds)
            return super().choose(board, seconds)

    result, _ = match(tmp_path, 1, make_a=Timed, seconds=0.5)
    assert set(seen) == {0.5} and all(0 < value < 0.5 for value in result.seconds)


def test_what_games_add_up_to():
    games = [game_of(1), game_of(2, 1.0), game_of(3, 0.5), game_of(4, 0.0, ended="resignation", length=30),
             game_of(5, 1.0, digest="1", chosen=(0, 4), seconds=(0.0, 4.0))]
    result = MatchResult(tuple(games))
    assert (result.wins, result.draws, result.losses, result.score) == (3, 1, 1, 0.7)
    assert result.score_interval == elo.score_interval(3.5, 5)
    assert result.elo == pytest.approx(147.19, abs=0.01)
    assert result.elo_interval == tuple(map(elo.difference_of, result.score_interval))
    assert result.mean_length == 14 and result.seconds == (4 / 16, 12 / 20) and result.distinct == 4
    row_a, row_b = arena.table(result).splitlines()[2:]
    assert row_a.startswith("| x | 3 | 1 | 1 | 70.0% |") and row_b.startswith("| y | 1 | 1 | 3 | 30.0% |")
    assert "| +147 |" in row_a and "| -147 |" in row_b
    metrics = arena.metrics_of(result)
    assert metrics["ended_by_resignation"] == 1 and metrics["distinct_games"] == 4 and metrics["draws"] == 1


def test_endless_differences_are_null(tmp_path):
    result = MatchResult((game_of(1, 0.0, chosen=(0, 3)),))
    metrics = arena.metrics_of(result)
    assert metrics["elo"] is None and metrics["elo_low"] is None and metrics["seconds_a"] is None
    assert metrics["elo_high"] > 0 and "| -inf |" in arena.table(result)


def test_round_robin(tmp_path):
    makes = {"one": RandomPlayer, "two": lambda seed: RandomPlayer([9, seed]), "coward": lambda seed: Scripted(
        lambda board: RESIGN)}
    options = {"rules": RULES, "games": 4, "seed": 1, "opening_moves": 2, "report": lambda line: None}
    ratings, matches = arena.round_robin(makes, folder=tmp_path, anchor="two", **options)
    assert list(matches) == [("one", "two"), ("one", "coward"), ("two", "coward")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-2", "1-3", "2-3"]
    expected = elo.ratings([(*pair, game.score) for pair, match in matches.items() for game in match.games], "two")
    assert ratings == expected and ratings[-1].player == "coward" and ratings[-1].games == 8
    assert [row.elo for row in ratings if row.player == "two"] == [0] and ratings[-1].score == 0
    assert matches["one", "coward"].names == ("one", "coward")
    assert arena.round_robin(makes, folder=tmp_path, anchor="two", **options)[0] == ratings  # nothing played again
    for bad, message in (({"makes": {"one": RandomPlayer}}, r"needs two players at least; received \['one'\]"),
                         ({"makes": makes, "anchor": "x"}, "Unknown anchor 'x': expected one of one, two, coward")):
        with pytest.raises(ValueError, match=message):
            arena.round_robin(**{"folder": tmp_path, **options, **bad})


@pytest.mark.parametrize("change, message", [
    ({"games": 0}, "at least one game; received 0"), ({"opening_moves": 13}, "0 to 12 moves"),
    ({"seconds": 0}, "Seconds for a move must be above 0 and finite, or None for no limit; received 0"),
    ({"folder": "file"}, "Games cannot be written to .*file .*Choose another folder"),
])
def test_bad_matches(tmp_path, change, message):
    (tmp_path / "file").write_text("")
    change = {key: tmp_path / value if key == "folder" else value for key, value in change.items()}
    with pytest.raises(ValueError, match=message):
        match(**{"folder": tmp_path / "new", **change})
    assert not (tmp_path / "new").exists()


def config_of(folder, **changes):
    return arena.ArenaConfig(**{"a": "random", "b": "random:5", "games": 3, "size": 5, "komi": 0.5, "opening_moves": 3,
                                "max_moves": 30, "workdir": str(folder / "run")} | changes)


def test_reports(tmp_path, capsys):
    result = arena.run_match(config_of(tmp_path))
    folder = tmp_path / "run"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == arena.metrics_of(result) and metrics["games"] == 3
    report, printed = (folder / "report.md").read_text(), capsys.readouterr().out
    assert arena.table(result) in report and arena.table(result) in printed and str(folder / "report.md") in printed
    assert "# random (A) against random (B)" in report and "dead stones alive" in report and "Pictures" not in report
    assert report.count("wins by") == 3 and sum(line.startswith("game ") for line in printed.splitlines()) == 3
    longer = arena.run_match(config_of(tmp_path, games=4))
    assert outcomes(longer)[:3] == outcomes(result) and capsys.readouterr().out.count("\ngame 4/4") == 1
    with pytest.raises(ValueError, match="holds a run with another configuration: --b was 'random:5', now 'random:6'"):
        arena.run_match(config_of(tmp_path, b="random:6"))


@pytest.mark.parametrize("change, message", [
    ({"workdir": ""}, "--workdir is missing"), ({"size": 4}, "--size must be at least 5"),
    ({"komi": 0.3}, "multiple of one half; received 0.3"), ({"komi": math.inf}, "--komi must be a finite number"),
    ({"opening_moves": 13}, "0 to 12 moves"), ({"games": 0}, "--games must be at least 1"),
    ({"seconds": -1.0}, "--seconds must be at least 0"),
    ({"seconds": 1.0, "parallel_games": 2}, "which --parallel_games=2 games would share"),
    ({"b": "somebody"}, "Unknown player 'somebody': expected one"),
    ({"a": "gtp:no_such_program"}, "The program 'no_such_program'"),
])
def test_bad_flags(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        arena.run_match(config_of(tmp_path, **change))
    assert not (tmp_path / "run").exists()


def test_several_players(tmp_path, capsys):
    config = config_of(tmp_path, b="random:5", others="random:6; random:7", games=2, parallel_games=2)
    ratings, matches = arena.run_round_robin(config)
    assert len(ratings) == 4 and len(matches) == 6 and all(len(found.games) == 2 for found in matches.values())
    assert next(row for row in ratings if row.player == "random").elo == 0
    folder = pathlib.Path(config.workdir)
    assert sorted(path.name for path in folder.glob("?-?")) == ["1-2", "1-3", "1-4", "2-3", "2-4", "3-4"]
    metrics, report = json.loads((folder / "metrics.json").read_text()), (folder / "report.md").read_text()
    assert set(metrics) >= {"elo_1", "elo_2", "elo_3", "elo_4"} and metrics["elo_1"] == 0
    assert "random:5 against random:7" in report and "random:6" in capsys.readouterr().out
    with pytest.raises(ValueError, match="plays the others, not itself"):
        arena.run_round_robin(config_of(tmp_path / "twice", b="random:5", others="random:5"))


def test_the_program(tmp_path):
    command = [sys.executable, "-m", "apps.alphago.arena", "--a=random", "--b=random:5", "--games=2", "--size=5",
               "--komi=0.5", "--opening_moves=3", "--max_moves=30", f"--workdir={tmp_path / 'run'}"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-2000:]
    assert "game 2/2: " in found.stdout and "| random (A) | " in found.stdout
    longer = arena.run_match(config_of(tmp_path))  # the same match for a caller in Python
    assert len(longer.games) == 3 and (tmp_path / "run" / "games" / "0003.sgf").exists()


@pytest.mark.skipif(GNUGO is None, reason="GNU Go is not installed.")
def test_against_gnu_go(tmp_path):
    command = f"{GNUGO} --mode gtp --level 1 --chinese-rules --capture-all-dead --play-out-aftermath --never-resign"
    result = arena.run_match(config_of(tmp_path, b=f"gtp:{command} --seed {{seed}}", games=2, max_moves=400))
    assert result.names[1].startswith("GNU Go 3") and result.losses == 2
    for game in result.games:
        record = sgf.read(tmp_path / "run" / "games" / f"{game.number:04d}.sgf")
        board = Board.from_record(LONG, record)
        assert board.score() == record.margin == game.margin and record.names[game.black == "A"] == result.names[1]
