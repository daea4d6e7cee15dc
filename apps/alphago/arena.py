"""Matches: who is stronger, and how sure that is.

    python -m apps.alphago.arena --a=random --b="gtp:gnugo --mode gtp --level 1 --chinese-rules --capture-all-dead
        --play-out-aftermath --seed {seed}" --games=20 --size=9 --komi=7 --workdir=runs/match

In the workdir: `games/0001.sgf`, ..., each written as its game ends; `results.jsonl`, a line each; `metrics.json` and
`report.md` at the end. The same command goes on with a match that was interrupted; with more --games it plays more.
Boards are scored by area as they stand when both have passed: players must take dead stones off before.

With --others="SPEC; SPEC" each two of all players have a match of so many games, in `1-2/`, `1-3/`, ..., and the report
has their ratings (Bradley & Terry 1952), A's being 0.
"""

import dataclasses
import itertools
import math
import pathlib

from apps.alphago import elo
from apps.alphago.go import rules as go
from apps.alphago.go import sgf
from apps.alphago.match import check_opening, play_games
from apps.alphago.opponents import player_of
from apps.alphago.results import MatchResult, ResultsFile
from apps.common import config as config_lib
from apps.common import flagging, reporting, workdir
from apps.common.config import field

_HEADER = ("player", "wins", "draws", "losses", "score", "low", "high", "Elo", "low", "high", "seconds a move")


@dataclasses.dataclass(frozen=True)
class ArenaConfig:
    """Options of this program."""

    a: str = field("random", "Player A: random[:SEED], gtp:COMMAND ({seed} in it is the game's seed) or "
                             "network:PATH[,simulations=NUMBER], a run of train_zero, .keras or .tflite.")
    b: str = field("random", "Player B, likewise.")
    others: str = field("", "More players, separated by semicolons: each two of all have a match.")
    games: int = field(20, "Number of games of a match; even, for A and B to have each opening with both colours.",
                       minimum=1, volatile=True)
    size: int = field(9, "Points a side.", minimum=5, maximum=19)
    komi: float = field(7.0, "Points for white.")
    superko: bool = field(False, "No position may come again, and not only the last but one (simple ko).")
    suicide: bool = field(False, "A move may take its own chain of two or more stones.")
    max_moves: int = field(0, "A game ends after so many moves. 0: twice the number of points.", minimum=0)
    opening_moves: int = field(4, "Random moves at the beginning of a game.", minimum=0)
    seed: int = field(0, "Seed of openings and players.", minimum=0)
    parallel_games: int = field(1, "Games that go on side by side, so that a network sees positions of all of them at "
                                   "once. What is interrupted loses as many.", minimum=1, volatile=True)
    seconds: float = field(0.0, "Seconds that a player may take for a move. 0: as it likes.", minimum=0)
    timeout: float = field(60.0, "Seconds beyond those, after which a GTP program counts as hung.", above=0,
                           volatile=True)
    workdir: str = field("", "Folder of this match. The same command with the same workdir goes on with it.",
                         volatile=True)

    def __post_init__(self):
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            config_lib.check_value(item, value)
            if item.type is float and not math.isfinite(value):
                raise ValueError(f"--{item.name} must be a finite number; received {value}.")
        if self.seconds and self.parallel_games > 1:
            raise ValueError(f"--seconds limits the time of a move, which --parallel_games={self.parallel_games} games "
                             "would share. Give one of the two.")
        if not self.workdir:
            raise ValueError("--workdir is missing: expected a folder for the games, such as --workdir=runs/match.")
        check_opening(self.rules, self.opening_moves)

    @property
    def rules(self):
        """`go.Rules`."""
        return go.Rules(self.size, self.komi, self.superko, self.suicide, self.max_moves)


def play_match(make_a, make_b, *, rules, games, folder, parallel=1, seed=0, opening_moves=4, seconds=None,
               names=None, report=print):
    """Plays a match between A and B, or what is missing of it.

    Args:
        make_a, make_b: make(seed) -> player for one game, as of `opponents.player_of`.
        rules: `Rules`.
        games: their number. A has black in the first, third, ...; each two have the same opening.
        folder: for `games/*.sgf` and `results.jsonl`; games that are there already are not played again.
        parallel: games that go on side by side.
        seed: of openings and players.
        opening_moves: random moves at the beginning of a game.
        seconds: that a player may take for a move, or None.
        names: of A and B; None: their own.
        report: function that gets lines for people.

    Returns:
        `MatchResult` of games 1 to `games`.

    Raises:
        ValueError: bad input, or the folder holds another match; before any game.
        match.GameAborted: a player failed. The games that had ended are kept.
    """
    if games < 1:
        raise ValueError(f"A match has at least one game; received {games}.")
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(f"Seconds for a move must be above 0 and finite, or None for no limit; received {seconds}.")
    check_opening(rules, opening_moves)
    folder = pathlib.Path(folder)
    try:
        (folder / "games").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"Games cannot be written to {folder} ({error.strerror}). Choose another folder.") from None
    settings = {"rules": dataclasses.asdict(rules), "seed": seed, "opening_moves": opening_moves, "seconds": seconds,
                "names": names}
    with ResultsFile(folder / "results.jsonl", settings, report) as results:
        if results.games:
            report(f"{len(results.games)} games are in {folder} already")
        missing = [number for number in range(1, games + 1) if number not in results.games]
        for game, record in play_games((make_a, make_b), rules=rules, numbers=missing, parallel=parallel, seed=seed,
                                       seconds=seconds, opening_moves=opening_moves, names=names):
            (folder / "games" / f"{game.number:04d}.sgf").write_bytes(sgf.write(record))
            results.add(game)
            report(_line(game, games, results.games.values()))
        return MatchResult(tuple(results.games[number] for number in range(1, games + 1)))


def round_robin(makes, *, rules, games, folder, anchor=None, **options):
    """A match between each two of several players.

    Args:
        makes: {name: make(seed) -> player for one game}, two or more.
        rules: `Rules`.
        games: number of games of each match.
        folder: for the matches, in `1-2/`, `1-3/`, ... by the order of `makes`.
        anchor: name of the player whose rating is 0; None: the first.
        options: parallel, seed, opening_moves, seconds and report of `play_match`.

    Returns:
        (ratings, matches): list of `elo.Rating`, the best first, and {(name, name): `MatchResult`}.

    Raises:
        ValueError: fewer than two players, an unknown anchor, or as from `play_match`.
        match.GameAborted: as from `play_match`.
    """
    names = list(makes)
    if len(names) < 2:
        raise ValueError(f"A round robin needs two players at least; received {names}.")
    anchor = names[0] if anchor is None else anchor
    if anchor not in names:
        raise ValueError(f"Unknown anchor {anchor!r}: expected one of {', '.join(names)}.")
    matches = {}
    for (i, a), (j, b) in itertools.combinations(enumerate(names, 1), 2):
        matches[a, b] = play_match(makes[a], makes[b], rules=rules, games=games, names=(a, b),
                                   folder=pathlib.Path(folder) / f"{i}-{j}", **options)
    outcomes = [(*pair, game.score) for pair, match in matches.items() for game in match.games]
    return elo.ratings(outcomes, anchor), matches


def table(result):
    """Markdown of a `MatchResult`: a row for A, a row for B."""
    (low, high), (elo_low, elo_high) = result.score_interval, result.elo_interval
    seconds = [f"{value:.3f}" for value in result.seconds]
    rows = [(result.names[0], result.wins, result.draws, result.losses, *_shares(result.score, low, high),
             *_points(result.elo, elo_low, elo_high), seconds[0]),
            (result.names[1], result.losses, result.draws, result.wins,
             *_shares(1 - result.score, 1 - high, 1 - low), *_points(-result.elo, -elo_high, -elo_low), seconds[1])]
    return reporting.markdown_table(_HEADER, rows)


def metrics_of(result):
    """Flat dictionary of a `MatchResult`, all of A; None for what is infinite or was not measured."""
    (low, high), (elo_low, elo_high) = result.score_interval, result.elo_interval
    metrics = {"games": len(result.games), "wins": result.wins, "draws": result.draws, "losses": result.losses,
               "score": result.score, "score_low": low, "score_high": high, "elo": result.elo, "elo_low": elo_low,
               "elo_high": elo_high, "distinct_games": result.distinct, "mean_length": result.mean_length,
               "seconds_a": result.seconds[0], "seconds_b": result.seconds[1],
               **{f"ended_by_{end}": number for end, number in result.ends.items()}}
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def run_match(config):
    """Plays the match of an `ArenaConfig`, and leaves `metrics.json` and `report.md`.

    Returns:
        `MatchResult`.

    Raises:
        ValueError: bad input; before any game.
        match.GameAborted: a player failed; the same call goes on with the games that are missing.
    """
    make_a, make_b = (player_of(spec, timeout=config.timeout) for spec in (config.a, config.b))
    run = workdir.Run(config)
    run.begin()
    try:
        result = play_match(make_a, make_b, folder=run.path, **_options(config))
        metrics = reporting.write_metrics(run, metrics_of(result))
        path = reporting.write_report(run, f"{result.names[0]} against {result.names[1]}", metrics, _sections(result),
                                      {})
    finally:
        run.end()
    print(f"\n{table(result)}\n\n{distinctness(result)}\nreport: {path}")
    return result


def run_round_robin(config):
    """Plays the matches of an `ArenaConfig` with `others`, and leaves `metrics.json` and `report.md`.

    Returns:
        (ratings, matches) of `round_robin`.

    Raises:
        ValueError: bad input, two players of one specification among it; before any game.
        match.GameAborted: a player failed; the same call goes on with the games that are missing.
    """
    specs = [spec.strip() for spec in (config.a, config.b, *config.others.split(";"))]
    if len(set(specs)) < len(specs):
        raise ValueError(f"Each player of --a, --b and --others plays the others, not itself; received {specs}.")
    makes = {spec: player_of(spec, timeout=config.timeout) for spec in specs}
    run = workdir.Run(config)
    run.begin()
    try:
        ratings, matches = round_robin(makes, folder=run.path, **_options(config))
        rows = [(row.player, row.games, f"{row.score:.1%}", *_points(row.elo, row.low, row.high)) for row in ratings]
        told = reporting.markdown_table(("player", "games", "score", "Elo", "low", "high"), rows)
        metrics = reporting.write_metrics(run, {f"elo_{specs.index(row.player) + 1}": row.elo for row in ratings})
        path = reporting.write_report(run, f"{len(specs)} players", metrics, {
            "Ratings": f"{told}\n\nElo are above the first player's, with 95 % intervals of that difference.",
            **{f"{a} against {b}": f"{table(found)}\n\n{distinctness(found)}"
               for (a, b), found in matches.items()}}, {})
    finally:
        run.end()
    print(f"\n{told}\n\nreport: {path}")
    return ratings, matches


def _options(config):
    return {"rules": config.rules, "games": config.games, "parallel": config.parallel_games, "seed": config.seed,
            "opening_moves": config.opening_moves, "seconds": config.seconds or None}


def distinctness(result):
    """A sentence about how many games were different."""
    number, total = result.distinct, len(result.games)
    if number == total:
        return f"All {total} games are different."
    return (f"Only {number} of {total} games are different: the intervals, which count all games as independent, are "
            "too narrow. Give longer openings, or players that vary.")


def _line(game, games, so_far):
    total = sum(each.score for each in so_far)
    return (f"game {game.number}/{games}: {game.outcome} after {game.length} moves ({game.black} black, "
            f"{game.ended.replace('_', ' ')}); A {total:g}, B {len(so_far) - total:g}")


def _shares(*values):
    return [f"{value:.1%}" for value in values]


def _points(*values):
    return [f"{value:+.0f}" for value in values]


def _sections(result):
    rows = [(game.number, result.names[0 if game.black == "A" else 1], game.outcome, game.length,
             game.ended.replace("_", " "), " ".join(game.opening)) for game in result.games]
    explained = ("low and high bound a 95 % interval: Wilson's for the score, and what its ends mean in Elo. A player "
                 "that won all games has no upper bound. Boards are scored by area as they stood at the end, dead "
                 "stones alive, also those of games cut off after as many moves as the rules allow.")
    return {"Result": f"{table(result)}\n\n{explained}\n\n{distinctness(result)}",
            "Games": reporting.markdown_table(["game", "black", "outcome", "moves", "ended by", "opening"], rows)}


def main(config):
    (run_round_robin if config.others else run_match)(config)


if __name__ == "__main__":
    from apps.alphago import arena  # config.json names the module of the configuration: this one, not __main__

    flagging.run_app(arena.ArenaConfig, arena.main)
