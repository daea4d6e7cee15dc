import os
import pathlib
import zipfile

import numpy as np
import pytest

from apps.alphago import game_data
from apps.alphago.go import rules as go
from apps.alphago.go import sgf

DATA = pathlib.Path(os.environ.get("USAGI_DATA", pathlib.Path(__file__).parents[5] / "shared" / "data"))

FULL = rb"""(;FF[4]GM[1]CA[Shift_JIS]SZ[9]KM[6.5]PB[\x8a\x7d\x8c\xb4]PW[a\]b\\c]RE[W+R]C[one
two\
three]AP[x\:y:1]
(;B[ee];W[](;B[cc]C[\:\]\\]N[main])(;B[gg]LB[aa:1][bb:2]))
(;B[dd]))""".replace(rb"\x8a\x7d\x8c\xb4", b"\x8a\x7d\x8c\xb4")


def test_the_whole_grammar():
    tree = sgf.tree_of(FULL, "full.sgf")
    record = sgf.record_of(tree, "full.sgf")
    assert record.names == ("笠原", "a]b\\c") and record.komi == 6.5 and record.margin == -sgf.RESIGNATION
    assert record.moves == ((1, 40), (-1, 81), (1, 20))
    assert record.comments == {0: "one\ntwothree", 3: ":]\\"}
    first = tree.get_root()[0]
    assert [len(node) for node in (tree.get_root(), first, first[0])] == [2, 1, 2]
    assert first[0][1].get("LB") == [((8, 0), "1"), ((7, 1), "2")]
    again = sgf.tree_of(tree.serialise(), "again.sgf")  # nothing is lost, variations neither
    assert again.serialise() == tree.serialise()
    assert again.get_root()[1].get_move() == ("b", (5, 3))


@pytest.mark.parametrize("margin, text", [(3.5, b"B+3.5"), (-10, b"W+10"), (0, b"RE[0]"), (sgf.RESIGNATION, b"B+R"),
                                          (None, b"")])
def test_written_and_read_again(tmp_path, margin, text):
    setup = np.zeros([13, 13], np.int8)
    setup[3, 9], setup[9, 3], setup[0, 12] = 1, 1, -1
    record = sgf.Record(13, 0.5, ((-1, 0), (1, 169), (-1, 14)), setup, margin, ("A [1]", "白"), {0: "x]", 2: "y\\z"})
    (tmp_path / "game.sgf").write_bytes(sgf.write(record))
    found = sgf.read(tmp_path / "game.sgf")
    np.testing.assert_array_equal(found.setup, setup)
    assert text in sgf.write(record)
    for name in ("size", "komi", "moves", "margin", "names", "comments", "first"):
        assert getattr(found, name) == getattr(record, name), name


@pytest.mark.parametrize("result, margin", [
    (b"B+3.5", 3.5), (b"W+", -sgf.RESIGNATION), (b"W+Time", -sgf.RESIGNATION), (b"jigo", 0), (b"B+nan", None),
    (b"B+inf", None), (b"Void", None), (b"?", None)])
def test_results(result, margin):
    assert sgf.record_of(sgf.tree_of(b"(;SZ[5]RE[%s])" % result, "x.sgf"), "x.sgf").margin == margin


@pytest.mark.parametrize("content, first", [
    (b"(;SZ[5])", 1), (b"(;SZ[5];W[aa])", -1), (b"(;SZ[5]PL[W])", -1), (b"(;SZ[5]PL[B];W[aa])", 1),
    (b"(;SZ[5]HA[2]AB[aa][bb])", -1), (b"(;SZ[5]HA[2]AB[aa][bb]PL[B])", 1), (b"(;SZ[5]HA[2]AB[aa][bb];B[cc])", 1),
    (b"(;SZ[5]HA[0]AB[aa][bb])", 1), (b"(;SZ[5]AB[aa][bb])", 1), (b"(;SZ[5]HA[2]AB[aa][bb]AW[cc])", 1)])
def test_who_moves_first(content, first):
    record = sgf.record_of(sgf.tree_of(content, "x"), "x")
    assert record.first == first
    assert sgf.replay(go.Rules(size=5), record, "x")[0].turn.numpy()[0] == first


def test_replay():
    rules = go.Rules(size=9)
    states = sgf.replay(rules, sgf.record_of(sgf.tree_of(FULL, "full.sgf"), "full.sgf"), "full.sgf")
    assert [np.count_nonzero(state.stones) for state in states] == [0, 1, 1, 2]
    twice = sgf.record_of(sgf.tree_of(b"(;SZ[9];B[aa];B[ba];W[bb])", "x"), "x")
    assert sgf.replay(rules, twice, "x")[-1].stones.numpy()[0, [0, 1, 10]].tolist() == [1, 1, -1]


@pytest.mark.parametrize("content, message", [
    (b"", "x.sgf is not a game of Go in SGF"),
    (b"(;SZ[9];B[ee", "x.sgf is not a game of Go in SGF"),
    (b"(;SZ[9];B[ee]", "x.sgf is not a game of Go in SGF"),
    (b"(;SZ[nine];B[ee])", "x.sgf is not a game of Go in SGF"),
    (b"(;SZ[25];B[ee])", "x.sgf: the board has 25 points a side; expected 5 to 19"),
    (b"(;SZ[9]KM[x];B[ee])", "x.sgf: .*KM|x.sgf: "),
    (b"(;SZ[9]KM[nan];B[ee])", "x.sgf: "),
    (b"(;SZ[9]CA[UTF-8]PB[\xff\xfe];B[ee])", "x.sgf: .*can't decode byte"),
    (b"(;SZ[9];B[ee];W[zz])", "x.sgf: damaged after move 1"),
    (b"(;SZ[9];B[ee];AB[aa])", "x.sgf: damaged after move 1: stones are set up in the middle"),
    (b"(;SZ[9];B[ee];W[ee])", "x.sgf: move 2, white E5, is illegal here:\n"),
    (b"(;SZ[13];B[ee])", "x.sgf: the board has 13 points a side; expected 9"),
    (b"\x00\xff\xfe" * 20, "x.sgf is not a game of Go in SGF")])
def test_bad_files(tmp_path, content, message):
    (tmp_path / "x.sgf").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        sgf.replay(go.Rules(size=9), sgf.read(tmp_path / "x.sgf"), "x.sgf")


@pytest.mark.parametrize("step", [100, pytest.param(1, marks=[pytest.mark.conformance, pytest.mark.timeout(1800)])])
@pytest.mark.parametrize("name, size, total", [("go9/ogs_9x9.zip", 9, 2700), ("go19/fox_pro_19x19.zip", 19, 3400)])
def test_real_games(name, size, total, step):
    """Every game is read, is legal, and comes back the same when it was written; conformance takes all of them."""
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not there; USAGI_DATA names the folder of real data sets")
    records = []
    with zipfile.ZipFile(DATA / name) as archive:
        names = sorted(each for each in archive.namelist() if each.endswith(".sgf"))
        assert len(names) == total
        for each in names[::step]:
            record = sgf.record_of(sgf.tree_of(archive.read(each), each), each)
            again = sgf.record_of(sgf.tree_of(sgf.write(record), each), each)
            assert again == record and record.size == size and record.setup is None
            records.append((each, record))
    kept, illegal = game_data.without_illegal(go.Rules(size=size), records)
    assert not illegal and [each for each, _ in kept] == names[::step]
