"""A game between a person and a player: taking back, what is known of positions, and words for people."""

import json

import numpy as np
import pytest

from apps.alphago.browser_game import Match
from apps.alphago.go import rules as go
from apps.alphago.go import sgf, text
from apps.alphago.players import Analysis, Candidate

RULES = go.Rules(size=5, komi=0.5)
RARE = go.Rules(size=5, komi=0.5, superko=True, suicide=True, max_moves=4)  # in one, to compile their programs once
NOTHING = Analysis(1, 0.5, ())


def played(*names, person=go.BLACK, rules=RULES):
    match = Match(rules, person)
    for name in names:
        match.play(text.move_of(name, 5))
    return match


def moves(match):
    return [text.name_of(move, 5) for _, move in match.board.moves]


@pytest.mark.parametrize("person, names, left", [
    (go.BLACK, ["C3", "B2"], []), (go.BLACK, ["C3", "B2", "D4"], ["C3", "B2"]),
    (go.WHITE, ["C3", "B2", "D4"], ["C3"]), (go.WHITE, ["C3", "B2"], ["C3"]), (0, ["C3", "B2"], ["C3"]),
    (go.BLACK, ["pass", "pass"], [])])
def test_undo_takes_back_the_persons_move_and_the_answer(person, names, left):
    match = played(*names, person=person)
    match.undo()
    assert moves(match) == left and len(match.positions) == len(left) + 1


@pytest.mark.parametrize("person, names", [(go.BLACK, []), (go.WHITE, ["C3"]), (0, [])])
def test_nothing_to_take_back(person, names):
    with pytest.raises(ValueError, match="You have not made a move"):
        played(*names, person=person).undo()


def test_giving_up_is_taken_back():
    match = played("C3", "B2")
    match.given_up = go.BLACK
    assert match.margin == -np.inf and match.describe()["result"] == {"winner": "white", "points": None, "text": "W+R"}
    match.undo()
    assert match.margin is None and moves(match) == ["C3", "B2"]
    match.play(12 + 6)
    match.given_up = go.WHITE  # the player, which would do so again
    match.undo()
    assert match.margin is None and moves(match) == ["C3", "B2"]


def test_positions_are_not_taken_for_others():
    match = played("C3", "B2", "D4")
    kept = match.positions[:2]
    match.note(match.positions[1], go.WHITE, NOTHING)
    gone = match.positions[2]
    match.note(gone, go.BLACK, NOTHING)
    match.back(1)
    match.play(0)
    assert match.positions[:2] == kept and gone not in match.positions
    assert "0.5" in match.analysis(kept[1]) and match.analysis(gone) == "null" and match.rates == {1: 0.5}
    with pytest.raises(ValueError):
        match.note(gone, go.BLACK, NOTHING)
    assert match.copy(kept[1]).moves == [(go.BLACK, 12)]
    with pytest.raises(ValueError, match="has 2 moves; received 3"):
        match.back(3)


def test_notes_tell_blacks_rate_and_names():
    match = played("C3")
    found = Analysis(np.int32(40), np.float32(0.75), (
        Candidate(np.int64(0), np.int32(30), np.float32(0.8), np.float32(0.25), (0, 25, 1)),
        Candidate(25, 10, 0.6, 0.1, ())))
    told = json.loads(match.note(match.positions[1], go.WHITE, found))
    assert told == {"position": match.positions[1], "turn": "white", "visits": 40, "rate": 0.25, "candidates": [
        {"move": "A5", "visits": 30, "rate": 0.8, "prior": 0.25, "line": ["A5", "pass", "B5"]},
        {"move": "pass", "visits": 10, "rate": 0.6, "prior": 0.1, "line": []}]}
    assert json.loads(match.analysis(match.positions[1])) == told
    assert match.rates == {1: 0.25}


@pytest.mark.parametrize("found, words", [
    (Analysis(1, float("nan"), ()), "0 to 1; received nan"), (Analysis(1, 1.5, ()), "received 1.5"),
    (Analysis(1, 0.5, (Candidate(26, 1, 0.5, 0.5, ()),)), "candidate 26"),
    (Analysis(1, 0.5, (Candidate(1, 1, 0.5, 0.5, (1, -1)),)), r"line \(1, -1\)"),
    (Analysis(1, 0.5, (Candidate(1, 1, 0.5, float("inf"), ()),)), "received inf")])
def test_notes_that_mean_nothing(found, words):
    match = played("C3")
    with pytest.raises(ValueError, match=words):
        match.note(match.positions[1], go.WHITE, found)
    assert match.rates == {} and match.analysis(match.positions[1]) == "null"


@pytest.mark.parametrize("names, move, words", [
    (["C3"], "C3", "There is a stone on C3 already."),
    (["B1", "A5", "A2"], "A1", "A stone on A1 would have no liberty"),
    (["C4", "B4", "D3", "A3", "C2", "B2", "A5", "C3", "B3"], "C3", "Ko: you may take back on C3"),
])
def test_words_for_illegal_moves(names, move, words):
    match = played(*names)
    before = match.describe()
    with pytest.raises(ValueError, match=words):
        match.play(text.move_of(move, 5))
    assert match.describe() == before and move not in before["legal"]


def test_words_for_superko():
    match = Match(RARE, 0, text.read("""
        . X O . .
        X O . O .
        . X O . .
        . . . . .
        . . . . ."""))
    match.play(text.move_of("C4", 5))
    with pytest.raises(ValueError, match="Ko"):
        match.play(text.move_of("B4", 5))
    match.play(25)
    match.play(25)  # now simple ko allows what brings the first position back
    with pytest.raises(ValueError, match="A stone on B4 would bring back an earlier position of the whole board"):
        match.play(text.move_of("B4", 5))
    with pytest.raises(ValueError, match="no liberty"):
        match.play(text.move_of("A5", 5))


def test_prisoners_and_suicide_are_told():
    match = played("B1", "A1", "A2")
    assert match.describe()["moves"][-1] == {"colour": "black", "move": "A2", "taken": ["A1"]}
    match = Match(RARE, 0, text.read("""
        . . . . .
        . . . . .
        X X . . .
        O O X . .
        . O X . ."""), go.WHITE)
    match.play(text.move_of("A1", 5))
    assert sorted(match.describe()["moves"][-1]["taken"]) == ["A1", "A2", "B1", "B2"]
    assert not (match.board.stones == go.WHITE).any()


def test_the_end_and_whose_points_they_are():
    match = played("C3", "pass", "pass")
    told = match.describe()
    assert told["result"] == {"winner": "black", "points": 24.5, "text": "B+24.5"} and told["owner"] == [1] * 25
    assert told["legal"] == []
    record = sgf.record_of(sgf.tree_of(sgf.write(match.record("engine")), "x"), "x")
    assert record.margin == 24.5 and record.names == ("person", "engine") and len(record.moves) == 3


def test_records_keep_names_comments_and_set_up_stones():
    record = sgf.Record(5, 0.5, ((go.WHITE, 3), (go.BLACK, 25)), np.eye(5, dtype=np.int8), sgf.RESIGNATION,
                        ("Lee", "Alpha"), {0: "Hello", 2: "Hm"})
    match = Match.from_record(RULES, record)
    assert match.person == 0 and match.given_up == go.WHITE and match.comments == {0: "Hello", 2: "Hm"}
    again = match.record("engine")
    assert (again.setup == record.setup).all() and (again.moves, again.names, again.margin, again.comments) == (
        record.moves, record.names, record.margin, record.comments)
    assert match.describe()["setup"] == {"black": ["A5", "B4", "C3", "D2", "E1"], "white": []}
    match.undo()
    match.back(1)
    assert match.comments == {0: "Hello"} and match.margin is None


def test_records_that_break_the_rules():
    record = sgf.Record(5, 0.5, ((go.BLACK, 12), (go.WHITE, 12)))
    with pytest.raises(ValueError, match="Move 2 of the file, white: There is a stone on C3 already"):
        Match.from_record(RULES, record)


def test_a_game_has_as_many_moves_as_its_rules_allow():
    match = Match(RARE, 0)
    for point in range(4):
        assert match.margin is None
        match.play(point)
    assert match.margin is not None
    with pytest.raises(ValueError, match="has 4 moves, as many as"):
        match.play(4)
    with pytest.raises(ValueError, match="0 to 25; received 26"):
        played().play(26)
