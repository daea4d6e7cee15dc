"""Sentence pairs as a pure function of (seed, epoch, step).

Inputs are {"source": int32 [B, S], "target": int32 [B, T]}, targets int32 [B, T]: the decoder reads BEGIN and the
sentence and is to say the sentence and END; the source ends with END; 0 is padding. B batch, S and T lengths of a
bucket, N pairs.
"""

import dataclasses
import sys

import numpy as np
import tensorflow as tf

from apps.common import tokens
from apps.common.config import unknown_name
from apps.common.splits import Splits, bucketed_stream, evaluation_stream
from apps.translation import dates, pairs

SUBWORDS = 8000  # vocabulary where --vocabulary_size is 0


@dataclasses.dataclass(frozen=True)
class PairSpec:
    """What a model must know of its data.

    Attributes:
        source, target: vocabularies.
        max_length: S and T at most.
        mean_length: targets of a training pair in the mean, ends included.
        num_left_out: training pairs that are longer.
        test_pairs: [(source text, target text)].
        num_left_out_validation: validation pairs that are longer.
        num_cut_test: test pairs of which a side is longer, and cut.
        test_unknown_share: of the tokens of the test's sources and references.
    """

    source: object
    target: object
    max_length: int
    mean_length: float
    num_left_out: int
    test_pairs: list
    num_left_out_validation: int = 0
    num_cut_test: int = 0
    test_unknown_share: float = 0.0


@dataclasses.dataclass(frozen=True)
class PairSplits(Splits):
    """`representative(count)`: that many training pairs as a model's inputs, all of max_length."""

    representative: object = None


def load(config, targets=None):
    """Reads the pairs that `config` names, and learns the vocabularies of their training part.

    Args:
        config: `Config`.
        targets: texts to learn in the place of the training part's own, one for each pair.

    Returns:
        `PairSplits` whose spec is a `PairSpec`.

    Raises:
        ValueError: the name, the files or the flags are wrong; nothing is trained then.
    """
    texts = read_parts(config)
    sides = [[pair[side] for pair in texts["train"]] for side in (0, 1)]
    kind = config.token_kind
    size = config.vocabulary_size or (SUBWORDS if kind == "subwords" else 0)
    learned = [tokens.learn(kind, lines, size, minimum_count=config.minimum_count)
               for lines in ([sides[0] + sides[1]] if config.share_vocabulary else sides)]
    source, target = learned[0], learned[-1]
    if targets is not None:
        texts["train"] = [(pair[0], text) for pair, text in zip(texts["train"], targets, strict=True)]
    arrays = {part: _encode(found, source, target, config.max_length, keep_long=part == "test")
              for part, found in texts.items()}
    num_pairs = len(arrays["train"][0])
    if num_pairs < config.batch_size:
        raise ValueError(f"--data={config.data} has {num_pairs} training pairs of at most --max_length="
                         f"{config.max_length} tokens: expected at least a batch of {config.batch_size}. Use more "
                         "data, a smaller --batch_size or a larger --max_length.")
    lengths = (arrays["train"][1] > 0).sum(axis=1)
    test = [vocabulary.encode(text) for pair in texts["test"] for vocabulary, text in zip((source, target), pair)]
    spec = PairSpec(
        source, target, config.max_length, float(lengths.mean()), len(texts["train"]) - num_pairs, texts["test"],
        num_left_out_validation=len(texts["validation"]) - len(arrays["validation"][0]),
        num_cut_test=sum(max(map(len, pair)) >= config.max_length for pair in zip(test[::2], test[1::2])),
        test_unknown_share=sum(row.count(tokens.UNKNOWN) for row in test) / max(1, sum(map(len, test))))
    _report_long(spec, texts)
    if texts["validation"] and not len(arrays["validation"][0]):
        raise ValueError(f"--data={config.data}: none of {len(texts['validation'])} validation pairs has at most "
                         f"--max_length={config.max_length} tokens. Use a larger one.")
    validation = _evaluation(arrays["validation"], config) if texts["validation"] else None
    chosen = np.random.default_rng(config.seed).permutation(num_pairs)
    return PairSplits(_training(arrays["train"], config), validation, _evaluation(arrays["test"], config), spec,
                      lambda count: as_inputs(*(side[chosen[:count]] for side in arrays["train"])))


def _report_long(spec, texts):
    """Says how many pairs are longer than the model reads."""
    told = [f"{count} of {len(texts[part])} {part} pairs are {what}" for part, count, what in (
        ("train", spec.num_left_out, "left out"), ("validation", spec.num_left_out_validation, "left out"),
        ("test", spec.num_cut_test, "cut")) if count]
    if told:
        print(f"warning: longer than --max_length={spec.max_length} tokens: {', '.join(told)}", file=sys.stderr)


def read_parts(config):
    """{"train": [(source, target)], "validation": [...], "test": [...]} of texts; errors as of `load`."""
    return _split(_read(config), config)


def as_inputs(source, target):
    """What a model takes, of source int [N, S] and target int [N, T] without BEGIN."""
    begin = np.full((len(target), 1), tokens.BEGIN, target.dtype)
    shifted = np.concatenate([begin, target[:, :-1]], axis=1)
    return {"source": source, "target": np.where(shifted == tokens.END, tokens.PADDING, shifted)}


def prepare(text, config):
    """A sentence as it is before it is cut into tokens."""
    text = " ".join(text.split())
    return text.lower() if config.lower_case else text


def _read(config):
    """{part: [(source, target)]}"""
    if config.data == "dates":
        found = {"train": dates.generate(), "validation": [], "test": []}
    elif config.data == "tsv":
        found = pairs.read_tsv(config)
    elif config.data == "parallel":
        found = pairs.read_parallel(config)
    elif config.data.startswith("tfds:"):
        found = pairs.read_tfds(config)
    else:
        raise unknown_name("data set", config.data, ("dates", "tsv", "parallel", "tfds:<name>"))
    order = (1, 0) if config.reverse else (0, 1)
    return {part: [tuple(prepare(pair[side], config) for side in order) for pair in part_pairs]
            for part, part_pairs in found.items()}


def _split(found, config):
    """Sets pairs of the training part aside for the parts that are missing: by a seed of their own, not the run's.

    Pairs of one source stay together: what is tested has not been learned.
    """
    train, parts, places = list(found["train"]), dict(found), {}
    for i, (source, _) in enumerate(train):
        places.setdefault(source, []).append(i)
    groups = list(places.values())
    waiting = [groups[i] for i in np.random.default_rng(0).permutation(len(groups))[::-1]]
    for part, fraction in (("test", config.test_fraction), ("validation", config.validation_fraction)):
        if not parts[part] and fraction:
            chosen, count = [], max(1, round(fraction * len(train)))
            while waiting and len(chosen) < count:
                chosen += waiting.pop()
            parts[part] = [train[i] for i in chosen]
    parts["train"] = [train[i] for i in sorted(i for group in waiting for i in group)]
    if not parts["train"]:
        raise ValueError(f"--data={config.data} leaves no pair for training: received {len(train)} pairs.")
    return parts


def _encode(found, source, target, max_length, keep_long=False):
    """(source, target) int32 [N, max_length], each ended by END; pairs that are longer are left out, or cut."""
    rows = []
    for texts in found:
        numbers = [vocabulary.encode(text) for vocabulary, text in zip((source, target), texts)]
        if keep_long or max(map(len, numbers)) < max_length:
            rows.append([[*side[:max_length - 1], tokens.END] for side in numbers])
    arrays = np.zeros((2, len(rows), max_length), np.int32)
    for i, row in enumerate(rows):
        for side, numbers in enumerate(row):
            arrays[side, i, :len(numbers)] = numbers
    return arrays[0], arrays[1]


def _training(arrays, config):
    source, target = arrays
    lengths = np.stack([(side > 0).sum(axis=1) for side in arrays])  # [2, N]
    group = groups_of(lengths.max(axis=0), config.buckets, config.batch_size)
    longest = np.array([lengths[:, group == g].max(axis=1) for g in range(group.max() + 1)], np.int32)  # [G, 2]
    gather = _gatherer(source, target)

    def fetch(index, number):
        size = tf.gather(tf.constant(longest), number)
        return gather(index, size[0], size[1])

    return bucketed_stream(group, config.batch_size, config.seed, fetch, costs=longest.sum(axis=1))


def groups_of(lengths, count, batch_size):
    """Number of the bucket of each length, int [N]: about as many examples in each, at least a batch, none empty."""
    count = max(1, min(count, len(lengths) // batch_size))
    edges = np.unique(np.quantile(lengths, np.arange(1, count) / count, method="higher"))
    group = np.searchsorted(edges, lengths, side="left")
    while (sizes := np.bincount(group)).min() < batch_size and len(sizes) > 1:
        small = int(sizes.argmin())
        group = np.where(group > max(small - 1, 0), group - 1, group)  # joins the one below, or the first the second
    return group


def _evaluation(arrays, config):
    gather = _gatherer(*arrays)
    longest = [int((side > 0).sum(axis=1).max()) for side in arrays]
    return evaluation_stream(len(arrays[0]), config.batch_size, lambda index: gather(index, *longest))


def _gatherer(source, target):
    with tf.device("CPU:0"):  # where tf.data runs
        inputs = {name: tf.constant(array) for name, array in as_inputs(source, target).items()}
        targets = tf.constant(target)

    def gather(index, source_length, target_length):
        return ({"source": tf.gather(inputs["source"], index)[:, :source_length],
                 "target": tf.gather(inputs["target"], index)[:, :target_length]},
                tf.gather(targets, index)[:, :target_length])

    return gather
