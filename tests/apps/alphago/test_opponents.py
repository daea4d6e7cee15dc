"""Specifications of players."""

import json
import pathlib
import shlex
import sys

import pytest

from apps.alphago.go import rules as go
from apps.alphago.go.board import Board
from apps.alphago.opponents import player_of
from apps.alphago.players import RandomPlayer

RULES = go.Rules(size=5)
FAKE = pathlib.Path(__file__).with_name("fake_gtp.py")


def first_moves(make, seed):
    player = make(seed)
    assert isinstance(player, RandomPlayer) and player.name == "random"
    return [player.choose(Board(RULES)).move for _ in range(8)]


def test_random():
    usual, third = player_of("random"), player_of("random:3")
    assert first_moves(usual, 5) == first_moves(usual, 5) == first_moves(player_of(" random:0 "), 5)
    assert len({tuple(first_moves(make, seed)) for make in (usual, third) for seed in (5, 6)}) == 4


def test_gtp():
    command = [sys.executable, "-S", str(FAKE), json.dumps({"name": "Fake of {seed}", "start": 0.1, "genmove": "hang"})]
    make = player_of(f"gtp:{shlex.join(command)}", timeout=3)
    for seed in (4, 77):
        player = make(seed)
        try:
            assert player.name == f"Fake of {seed} 1.0"
        finally:
            player.close()


@pytest.mark.parametrize("spec, message", [
    ("nobody", "Unknown player 'nobody': expected one of random, random:SEED, gtp:COMMAND"),
    ("", "Unknown player '': expected"),
    ("randon", "Did you mean 'random'"),
    ("gnugo --mode gtp", "Unknown player 'gnugo --mode gtp': expected one of"),
    ("random:x", "a whole number from 0, as in random:3; received 'x'"),
    ("random:-1", "received '-1'"),
    ("gtp:", "The GTP command is empty"),
    ("gtp:no_such_program -x", "The program 'no_such_program' of the GTP command"),
])
def test_bad_specifications(spec, message):
    with pytest.raises(ValueError, match=message):
        player_of(spec)
