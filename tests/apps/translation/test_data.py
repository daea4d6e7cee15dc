"""Sentence pairs: files, what is left out, buckets, and that batches are a function of (seed, epoch, step)."""

import gzip
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from apps.common import tokens
from apps.translation import data, dates
from apps.translation.config import Config

PAIRS = [(" ".join(f"w{j % 7}" for j in range(i % 9 + 1)) + f" n{i}", " ".join(f"W{j % 5}" for j in range(i % 6 + 1)))
         for i in range(400)]


def write(path, pairs):
    text = "".join(f"{a}\t{b}\n" for a, b in pairs).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs")
    write(path / "train.tsv.gz", PAIRS[:300])
    write(path / "val.tsv", PAIRS[300:340])
    write(path / "test.tsv", PAIRS[340:])
    return path


def load(folder, **flags):
    flags = {"data": "tsv", "data_dir": str(folder), "tokens": "words", "batch_size": 16, "max_length": 12,
             "workdir": "unused", **flags}
    return data.load(Config(**flags))


def taken(stream, count, **options):
    return [tf.nest.map_structure(lambda tensor: tensor.numpy(), batch) for batch in stream(**options).take(count)]


def texts(splits, inputs, targets):
    spec = splits.spec
    return [(spec.source.decode(a), spec.target.decode(b)) for a, b in zip(inputs["source"], targets)]


def test_batches_are_pairs_shifted_by_one(folder):
    splits = load(folder)
    for inputs, targets in taken(splits.train, splits.train.steps_per_epoch):
        assert set(texts(splits, inputs, targets)) <= set(PAIRS[:300])
        assert (inputs["target"][:, 0] == tokens.BEGIN).all()
        ends = targets == tokens.END
        assert (ends.sum(axis=1) == 1).all() and not (inputs["target"] == tokens.END).any()
        np.testing.assert_array_equal(inputs["target"][:, 1:], np.where(ends, 0, targets)[:, :-1])


def test_a_batch_is_of_one_bucket_and_an_epoch_has_each_pair_once_at_most(folder):
    splits = load(folder, buckets=4)
    batches = taken(splits.train, splits.train.steps_per_epoch)
    seen = [pair for inputs, targets in batches for pair in texts(splits, inputs, targets)]
    assert len(seen) == len(set(seen)) >= 300 - 4 * 15
    sizes = {(inputs["source"].shape[1], targets.shape[1]) for inputs, targets in batches}
    assert 2 <= len(sizes) <= 4
    padding = np.mean([np.mean(inputs["source"] == 0) for inputs, _ in batches])
    assert padding < 0.7 * np.mean([np.mean(x["source"] == 0) for x, _ in taken(load(folder, buckets=1).train, 18)])


def test_every_pair_is_met_in_a_few_epochs(folder):
    splits = load(folder, buckets=4)
    batches = taken(splits.train, 6 * splits.train.steps_per_epoch)
    assert {pair for inputs, targets in batches for pair in texts(splits, inputs, targets)} == set(PAIRS[:300])


def test_a_run_may_begin_at_any_step(folder):
    splits = load(folder)
    count = splits.train.steps_per_epoch
    whole = taken(splits.train, count + 3)
    for start in (2, count, count + 1):
        for (a, b), (c, d) in zip(whole[start:], taken(splits.train, 3, start_step=start)):
            np.testing.assert_array_equal(a["source"], c["source"])
            np.testing.assert_array_equal(b, d)


def test_two_workers_share_a_batch(folder):
    splits = load(folder)
    (whole, _), = taken(splits.train, 1)
    parts = [taken(splits.train, 1, input_context=tf.distribute.InputContext(2, i, 2))[0][0] for i in range(2)]
    np.testing.assert_array_equal(whole["source"], np.concatenate([part["source"] for part in parts]))


def test_the_test_part_is_whole_and_cut_and_training_leaves_long_pairs_out(folder):
    splits = load(folder, max_length=7)
    long = [len(a.split()) >= 7 or len(b.split()) >= 7 for a, b in PAIRS]
    assert splits.spec.num_left_out == sum(long[:300])
    assert splits.spec.num_left_out_validation == sum(long[300:340]) and splits.spec.num_cut_test == sum(long[340:])
    # The last word of each source, its number, stands in one pair only.
    words = sum(len(side.split()) for pair in PAIRS[340:] for side in pair)
    assert splits.spec.test_unknown_share == pytest.approx(60 / words)
    assert splits.test.num_examples == 60 and splits.spec.test_pairs == PAIRS[340:]
    (inputs, _), *_ = taken(splits.test, 1)
    assert inputs["source"].shape[1] <= 7


def test_the_mean_length_counts_ends(folder):
    lengths = [len(b.split()) + 1 for _, b in PAIRS[:300]]
    assert load(folder).spec.mean_length == pytest.approx(np.mean(lengths))


def test_the_other_direction(folder):
    splits = load(folder, reverse=True)
    assert splits.spec.test_pairs == [(b, a) for a, b in PAIRS[340:]]


def test_one_vocabulary_for_both(folder):
    spec = load(folder, share_vocabulary=True).spec
    assert spec.source is spec.target
    apart = load(folder).spec
    pieces = [{side.piece(i) for i in range(len(side))} for side in (apart.source, apart.target, spec.source)]
    assert pieces[2] == pieces[0] | pieces[1]


def test_parts_are_set_aside_where_there_are_none(tmp_path):
    write(tmp_path / "pairs.tsv", PAIRS)
    splits = load(tmp_path / "pairs.tsv")
    assert splits.test.num_examples == 40 and splits.validation.num_examples == 20
    test = set(splits.spec.test_pairs)
    assert not test & {pair for inputs, targets in taken(splits.train, 40) for pair in texts(splits, inputs, targets)}
    assert splits.spec.test_pairs == load(tmp_path / "pairs.tsv", seed=5).spec.test_pairs


def test_pairs_of_one_source_are_all_tested_or_all_learned(tmp_path):
    write(tmp_path / "pairs.tsv", [(f"w{i % 60}", f"W{i}") for i in range(300)])
    parts = data.read_parts(Config(data="tsv", data_dir=str(tmp_path / "pairs.tsv"), workdir="unused"))
    sources = [{source for source, _ in pairs} for pairs in parts.values()]
    assert [len(pairs) for pairs in parts.values()] == [255, 15, 30] and len(set().union(*sources)) == 60
    assert sum(map(len, sources)) == 60


def test_two_files_line_by_line(tmp_path):
    for part, pairs in (("train", PAIRS[:300]), ("test", PAIRS[300:])):
        for side, name in enumerate((f"{part}.en", f"{part}.de")):
            (tmp_path / name).write_text("".join(pair[side] + "\n" for pair in pairs))
    splits = load(tmp_path, data="parallel", languages="en,de")
    assert splits.spec.test_pairs == PAIRS[300:]
    (tmp_path / "test.de").write_text("one line\n")
    with pytest.raises(ValueError, match="test.en has 100 lines and test.de 1"):
        load(tmp_path, data="parallel", languages="en,de")
    (tmp_path / "test.de").unlink()
    with pytest.raises(ValueError, match="test.en has no test.de beside it"):
        load(tmp_path, data="parallel", languages="en,de")
    (tmp_path / "test.en").rename(tmp_path / "test.de")
    with pytest.raises(ValueError, match="test.de has no test.en beside it"):
        load(tmp_path, data="parallel", languages="en, de")


def test_parts_are_words_of_the_names_of_files(tmp_path):
    for name, pairs in (("Train", PAIRS[:300]), ("europarl.Test", PAIRS[300:350]), ("protest", PAIRS[350:])):
        for side, code in enumerate(("en", "de")):
            with gzip.open(tmp_path / f"{name}.{code}.gz", "wt") as file:
                file.write("".join(pair[side] + "\n" for pair in pairs))
    parts = data.read_parts(Config(data="parallel", languages="en,de", data_dir=str(tmp_path), workdir="unused"))
    assert parts["test"] == PAIRS[300:350]
    assert {*parts["train"], *parts["validation"]} == {*PAIRS[:300], *PAIRS[350:]}


def test_what_a_batch_costs_is_known(tmp_path):
    """The relative costs are those of the batches that come: their padded lengths, on average 1."""
    write(tmp_path / "train.tsv", [("a " * (1 + i % 9), "b " * (1 + i % 9)) for i in range(2000)])
    stream = load(tmp_path, buckets=6, batch_size=32).train
    batches = [sum(part.shape[1] for part in tf.nest.flatten(inputs)) for inputs, _ in stream().take(
        2 * stream.steps_per_epoch)]
    costs = stream.relative_costs(len(batches))
    assert costs[:stream.steps_per_epoch].mean() == pytest.approx(1) and len(set(costs)) > 3
    np.testing.assert_allclose(costs * np.mean(batches), batches, rtol=0.05)


def test_bad_lines_are_counted_and_left_out(tmp_path, capsys):
    write(tmp_path / "train.tsv", PAIRS)
    with open(tmp_path / "train.tsv", "a") as file:
        file.write("no tab\n\tonly one side\na\tb\tc\n")
    load(tmp_path)
    assert "3 of 403 lines are no pair" in capsys.readouterr().err
    with pytest.raises(ValueError, match="line 401: 1 columns, expected source, tab, target, line 402: an empty side"):
        load(tmp_path, strict_data=True)


@pytest.mark.parametrize(("flags", "message"), [
    ({"data": "novel"}, "data set 'novel'"), ({"data_dir": "/nowhere"}, "does not exist"),
    ({"max_length": 3, "batch_size": 64}, "expected at least a batch of"),
    ({"data": "parallel"}, "needs --languages=source,target"),
    ({"data": "tfds:x", "languages": "en"}, "needs --languages=source,target"),
    ({"data": "tfds:x"}, "needs --languages=source,target"),
    ({"data": "dates"}, "takes no --data_dir"), ({"encoding": "utf-16"}, "is not utf-16"),
    ({"embeddings": "a", "tokens": "subwords"}, "are vectors of words; .* Give --tokens=words"),
    ({"embeddings": "a", "tokens": "auto"}, "received --tokens=auto, by which --data=tsv is cut into subwords"),
    ({"embeddings": "a,b,c"}, "one file for the source and one for the target"),
    ({"embeddings": "a", "share_vocabulary": True}, "do not go with --share_vocabulary"),
    ({"dropout": -0.5}, "--dropout must be at least 0"),
    ({"scheduled_sampling": 0.5, "time_budget": 1.0}, "leaves their number open"),
    ({"scheduled_sampling": 0.5, "distribution": "sync"}, "training step of its own")])
def test_bad_input(folder, flags, message):
    with pytest.raises(ValueError, match=message):
        load(folder, **flags)


def test_what_is_too_long_is_said(folder, tmp_path, capsys):
    load(folder, max_length=7)
    long = [sum(len(a.split()) >= 7 or len(b.split()) >= 7 for a, b in part)
            for part in (PAIRS[:300], PAIRS[300:340], PAIRS[340:])]
    assert (f"longer than --max_length=7 tokens: {long[0]} of 300 train pairs are left out, {long[1]} of 40 validation "
            f"pairs are left out, {long[2]} of 60 test pairs are cut") in capsys.readouterr().err
    load(folder)
    assert "longer" not in capsys.readouterr().err
    write(tmp_path / "train.tsv", PAIRS)
    write(tmp_path / "val.tsv", [("a " * 20, "b " * 20)] * 5)
    with pytest.raises(ValueError, match="none of 5 validation pairs has at most --max_length=12 tokens"):
        load(tmp_path)


class FakeBuilder:
    """Stands for a `tfds.core.DatasetBuilder` of pairs."""

    def __init__(self, rows, features=("de", "en")):
        self.rows, self.is_prepared = rows, False
        self.info = types.SimpleNamespace(features=dict.fromkeys(features), splits=dict.fromkeys(rows))

    def download_and_prepare(self):
        self.is_prepared = True

    def as_dataset(self, split):
        assert self.is_prepared
        return [dict(zip(self.info.features, row)) for row in self.rows[split]]


def load_fake_tfds(monkeypatch, builder, **flags):
    def builder_of(name, data_dir):
        if builder is None:
            raise FileNotFoundError(name)
        return builder

    module = types.SimpleNamespace(builder=builder_of, as_numpy=lambda dataset: dataset)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return load("", data="tfds:pairs", **{"languages": "en,de", **flags}).spec


def rows(pairs):
    return [(b.encode(), a.encode()) for a, b in pairs]  # features stand in the order of their names


def test_pairs_of_tensorflow_datasets(monkeypatch, capsys):
    builder = FakeBuilder({"train": rows(PAIRS[:300]), "test": rows([*PAIRS[300:], ("only one", "")])})
    assert load_fake_tfds(monkeypatch, builder).test_pairs == PAIRS[300:]
    assert "part test: 1 of 101 lines are no pair (line 101: an empty side)" in capsys.readouterr().err
    turned = load_fake_tfds(monkeypatch, builder, languages="de,en").test_pairs
    assert turned == [(b, a) for a, b in PAIRS[300:]]
    with pytest.raises(ValueError, match="--data=tfds:pairs: part test: 1 of 101 lines"):
        load_fake_tfds(monkeypatch, builder, strict_data=True)


@pytest.mark.parametrize(("builder", "flags", "message"), [
    (FakeBuilder({"train": rows(PAIRS)}), {"languages": "en,fr"}, "=en,fr are no features of .* two of de, en"),
    (FakeBuilder({"train": [(b"a", 3)]}), {}, "features en and de are not both text"),
    (None, {}, "could not be prepared .*Check the name")])
def test_other_sets_of_tensorflow_datasets(monkeypatch, builder, flags, message):
    with pytest.raises(ValueError, match=message):
        load_fake_tfds(monkeypatch, builder, **flags)
    assert builder is None or builder.is_prepared == (not flags)  # features are known before anything is downloaded


def test_dates_are_right_and_not_ambiguous():
    pairs = dates.generate(2000)
    assert len({a for a, _ in pairs}) == 2000 == len(pairs)
    for text, iso in pairs:
        year, _, day = iso.split("-")
        assert year in text and str(int(day)) in text
    assert pairs == dates.generate(2000) != dates.generate(2000, seed=1)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_groups_have_a_batch_each(count):
    lengths = np.random.default_rng(0).poisson(6, 500)
    group = data.groups_of(lengths, count, 40)
    sizes = np.bincount(group)
    assert sizes.min() >= 40 and len(sizes) <= count
    assert all(lengths[group == g].max() <= lengths[group == g + 1].min() for g in range(len(sizes) - 1))
