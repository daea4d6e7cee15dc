"""Learning from games that there are: what is read of them, and a run from records to a file that plays."""

import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from apps.alphago import game_data, loading, networks, replay, train_games
from apps.alphago.config import GamesConfig, ZeroConfig
from apps.alphago.go import features, sgf
from apps.alphago.go import rules as go
from apps.common import config as config_lib
from tests.apps.alphago.test_replay import random_games

SIZE = 5
RULES = go.Rules(size=SIZE)
SMALL = {"size": SIZE, "model": "zero_1x8", "hidden": 8, "epochs": 1, "batch_size": 32, "verbose": 0,
         "deterministic": False, "export": "none"}


def random_record(seed, moves=24):
    noise, state, record = np.random.default_rng(seed), go.new(RULES, 1), []
    for number in range(moves):
        legal = np.flatnonzero(go.program(RULES, "legal")(state).numpy()[0])
        move = int(noise.choice(legal))
        record.append(((go.BLACK, go.WHITE)[number % 2], move))
        state = go.program(RULES, "play")(state, np.array([move], np.int32))
        if state.passes.numpy()[0] == 2:
            break
    return sgf.Record(SIZE, 7.0, tuple(record), margin=float(noise.choice([3.5, -2.5, sgf.RESIGNATION])))


@pytest.fixture(scope="module")
def records():
    return {f"{part}/{number}.sgf": random_record(number + 100 * len(part))
            for part, count in (("train", 12), ("test", 3)) for number in range(count)}


@pytest.fixture(scope="module")
def folder(records, tmp_path_factory):
    path = tmp_path_factory.mktemp("records")
    for name, record in records.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(sgf.write(record))
    return path


def config(data_dir, **flags):
    return GamesConfig(**{"workdir": "unused", "data_dir": str(data_dir), **SMALL, **flags})


def test_every_position_of_the_records(records, folder):
    splits = game_data.load(config(folder))
    assert splits.spec.num_games == {"train": 11, "validation": 1, "test": 3}
    expected = []
    for name, record in records.items():
        if name.startswith("test"):
            states = sgf.replay(RULES, record, name)
            for state, (colour, move) in zip(states, record.moves):
                planes = np.asarray(features.zero_planes(RULES, state)[0], np.float32)
                expected.append((planes, move, np.sign(record.margin) * colour))
    found = [(planes, policy.argmax(), value[0]) for batch, targets in splits.test() for planes, policy, value in zip(
        batch.numpy(), targets["policy"].numpy(), targets["value"].numpy())]
    assert len(found) == len(expected) == splits.test.num_examples
    for (planes, move, value), (other, played, result) in zip(found, expected):
        np.testing.assert_array_equal(planes, other)
        assert (move, value) == (played, result)


def test_training_positions_are_turned_with_their_moves(folder):
    splits = game_data.load(config(folder))
    planes, targets = next(iter(splits.train()))
    assert planes.shape == (32, SIZE, SIZE, features.NUM_ZERO_PLANES) and targets["policy"].shape == (32, SIZE**2 + 1)
    known = {}  # of all positions, under all symmetries: the move that belongs to it
    all_planes = splits.representative(10**6)
    for turn in range(8):
        turned = features.transform_planes(SIZE, all_planes, tf.fill([len(all_planes)], turn)).numpy()
        known |= {position.tobytes(): turn for position in turned}
    turns = [known.get(position.tobytes()) for position in planes.numpy()]
    assert None not in turns and len(set(turns)) > 3
    empty = planes.numpy()[..., 0] + planes.numpy()[..., features.NUM_ZERO_PLANES // 2] == 0
    moves = targets["policy"].numpy().argmax(axis=1)
    assert all(move == SIZE**2 or free.ravel()[move] for move, free in zip(moves, empty))


def test_an_archive_is_a_folder(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "games.zip", "w") as archive:
        for file in folder.rglob("*.sgf"):
            archive.write(file, file.relative_to(folder))
    a, b = (game_data.load(config(path)) for path in (folder, tmp_path / "games.zip"))
    assert a.train.num_examples == b.train.num_examples
    np.testing.assert_array_equal(a.representative(20), b.representative(20))


BAD = {"broken": (b"(;GM[1]SZ[5]", "not a game of Go in SGF"),
       "other_size": (b"(;GM[1]SZ[9]RE[B+1];B[aa])", "the board has 9 points a side; expected 5"),
       "handicap": (b"(;GM[1]SZ[5]RE[B+1]AB[aa][bb];W[cc])", "stones are set up before the first move"),
       "open": (b"(;GM[1]SZ[5];B[aa];W[bb])", "the file names no winner"),
       "twice": (b"(;GM[1]SZ[5]RE[B+1];B[aa];B[bb])", "black and white do not take turns"),
       "illegal": (b"(;GM[1]SZ[5]RE[B+1];B[aa];W[bb];B[aa])", "move 3 is illegal")}


@pytest.mark.parametrize("name", BAD)
def test_bad_records_are_counted_and_named(folder, tmp_path, capsys, name):
    content, message = BAD[name]
    for file in folder.rglob("*.sgf"):
        (tmp_path / file.parent.name).mkdir(exist_ok=True)
        (tmp_path / file.parent.name / file.name).write_bytes(file.read_bytes())
    (tmp_path / "train" / f"{name}.sgf").write_bytes(content)
    game_data.load(config(tmp_path))
    warning = capsys.readouterr().err
    assert f"1 of 16 games cannot be learned from (train/{name}.sgf" in warning and message in warning
    with pytest.raises(ValueError, match=f"train/{name}.sgf.*leave --strict_data out"):
        game_data.load(config(tmp_path, strict_data=True))


@pytest.mark.parametrize("flags, message", [
    ({"data": "sgg"}, "Unknown data set 'sgg'.*mean 'sgf'"), ({"data_dir": ""}, "--data=sgf needs --data_dir"),
    ({"data_dir": "/nonexistent"}, "is neither a folder nor a .zip"), ({"model": "resnet20"}, "Unknown model"),
    ({"batch_size": 4096}, "training positions: expected at least a batch of 4096"),
    ({"data": "replay", "data_dir": "/nonexistent"}, "is not the workdir of a run"),
    ({"size": 9}, "cannot be learned from .* expected 9.* Mend or remove them")])
def test_bad_flags(folder, flags, message):
    with pytest.raises(ValueError, match=message):
        game_data.load(config(**{"data_dir": folder, **flags}))


@pytest.mark.parametrize("flags, message", [({"size": 3}, "--size must be 5 to 19"),
                                            ({"value_weight": -2.0}, "--value_weight must be at least 0, or -1")])
def test_flags_out_of_range(flags, message):
    with pytest.raises(ValueError, match=message):
        config("unused", **flags)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """The workdir of a run of self-play on 5x5 with some games."""
    path = tmp_path_factory.mktemp("zero")
    zero = ZeroConfig(workdir=str(path), size=SIZE, model="zero_1x8", hidden=8, ownership=True)
    config_lib.save(zero, path)
    game, new_state, *_ = game_data.settings.setting_of(zero).game, game_data.settings.setting_of(zero).new_state
    replay.Replay(path / "replay", game, new_state, window=10**6).add(random_games("go", 12))
    return path


def test_a_replay_is_cut_by_age(played):
    splits = game_data.load(config(played, data="replay", size=0, model="", hidden=0, batch_size=8))
    total = splits.train.num_examples + splits.validation.num_examples + splits.test.num_examples
    assert splits.test.num_examples == pytest.approx(0.1 * total, abs=1)
    assert splits.spec.structure == networks.Structure(
        size=SIZE, num_actions=26, planes=21, blocks=1, filters=8, pooling_every=2, hidden=8, heads="pooled",
        ownership=True)
    _, targets = next(iter(splits.train()))
    assert set(targets) == {"policy", "value", "ownership"}
    with pytest.raises(ValueError, match="was played on 5 points a side; received --size=9"):
        game_data.load(config(played, data="replay", size=9))


def test_from_records_to_a_file_that_plays(folder, tmp_path):
    metrics = train_games.train(config(folder, workdir=str(tmp_path / "run"), export="int8"))
    assert 0 <= metrics["test_accuracy"] <= 1 and metrics["num_train_games"] == 11
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    assert "| float | int8 | " in (tmp_path / "run" / "report.md").read_text()
    found = loading.load(tmp_path / "run" / "export" / "int8.tflite")
    logits, value = found.network(game_data.load(config(folder)).representative(3))
    assert found.size == SIZE and logits.shape == (3, 26) and np.isfinite(value).all()


def test_distillation_is_refused(folder, tmp_path):
    teacher = tmp_path / "teacher.keras"
    networks.build(networks.Structure(size=SIZE, num_actions=26, blocks=1, filters=8, pooling_every=2, hidden=8,
                                      heads="pooled")).save(teacher)
    with pytest.raises(ValueError, match="'zero' has 2 outputs"):
        train_games.train(config(folder, workdir=str(tmp_path / "run"), compression="distill",
                                 distill_teacher=str(teacher)))
