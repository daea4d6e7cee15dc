"""Decoding against exhaustive search, and the compiled form against the plain one."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from apps.common import compiled_decoding, decoding, tokens

SIZE, LENGTH = 8, 4
RNG = np.random.default_rng(0)


class Chain:
    """A model whose next token depends on the two before: logits from a random table, another for each sentence."""

    def __init__(self, seed, end=0.0):
        self.table = np.random.default_rng(seed).normal(scale=2.0, size=(SIZE, SIZE, SIZE)).astype(np.float32)
        self.table[..., tokens.END] += end

    def step(self, number, state):
        return self.table[state, number], number

    def score(self, numbers):
        total, before, last = 0.0, 0, tokens.BEGIN
        for number in numbers:
            total += decoding.log_softmax(decoding.allowed(self.table[before, last]))[number]
            before, last = last, number
        return total


def exhaustive(chain, alpha):
    """All sentences that end within LENGTH, best first."""
    inner = range(len(tokens.SPECIALS), SIZE)
    found = []
    for count in range(LENGTH):
        for numbers in itertools.product(inner, repeat=count):
            # Wu et al. 2016, equation 14: lp = (5 + |Y|)^alpha / (5 + 1)^alpha.
            score = chain.score([*numbers, tokens.END]) / ((5 + count + 1) / 6) ** alpha
            found.append((score, list(numbers)))
    return sorted(found, key=lambda f: -f[0])


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_that_keeps_everything_is_exhaustive_search(seed, alpha):
    chain = Chain(seed)
    wanted = exhaustive(chain, alpha)[:5]
    found = decoding.beam(chain.step, 0, LENGTH, width=5 ** LENGTH, alpha=alpha)[:5]
    assert [numbers for numbers, _ in found] == [numbers for _, numbers in wanted]
    np.testing.assert_allclose([score for _, score in found], [score for score, _ in wanted])


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_one_without_penalty_is_greedy(seed):
    chain = Chain(seed, end=1.0)
    (numbers, _), = decoding.beam(chain.step, 0, LENGTH, width=1, alpha=0.0)
    found = decoding.greedy(chain.step, 0, LENGTH)
    assert chain.score([*numbers, tokens.END]) >= chain.score([*found, tokens.END]) - 1e-9
    chain = Chain(seed, end=-100.0)  # nothing ends before its time, which would be another sentence to choose
    (numbers, _), = decoding.beam(chain.step, 0, LENGTH, width=1, alpha=0.0)
    assert numbers == decoding.greedy(chain.step, 0, LENGTH)[:len(numbers)] and len(numbers) >= LENGTH - 1


def compiled(chains, function, jit_compile=False):
    tables = tf.constant(np.stack([chain.table for chain in chains]))

    def step(numbers, state):
        sentence, before = state
        return tf.gather_nd(tables, tf.stack([sentence, before, numbers], axis=1)), (sentence, numbers)

    state = tf.range(len(chains)), tf.zeros([len(chains)], tf.int32)
    run = tf.function(lambda: function(step, state, batch_size=len(chains)), jit_compile=jit_compile)
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), run())


def row(numbers, length):
    full = [*numbers, tokens.END][:length]
    return full + [tokens.PADDING] * (length - len(full))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("end", [-3.0, 0.0, 3.0])
def test_compiled_greedy_is_the_plain_one(end, jit_compile):
    chains = [Chain(seed, end) for seed in range(6)]
    found = compiled(chains, lambda *a, **k: compiled_decoding.decode(*a, **k, length=8), jit_compile)
    np.testing.assert_array_equal(found, [row(decoding.greedy(chain.step, 0, 8), 8) for chain in chains])


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("width", "alpha", "end"), [(1, 0.6, 0.0), (3, 0.6, 0.0), (4, 0.0, 2.0), (3, 1.0, -30.0),
                                                     (3, 0.6, -2.0)])
def test_a_compiled_beam_is_the_plain_one(width, alpha, end, jit_compile):
    chains = [Chain(seed, end) for seed in range(6)]
    found, scores = compiled(chains, lambda *a, **k: compiled_decoding.beam(
        *a, **k, length=8, width=width, alpha=alpha), jit_compile)
    for chain, numbers, score in zip(chains, found, scores):
        wanted = decoding.beam(chain.step, 0, 8, width=width, alpha=alpha)
        for k, (expected, value) in enumerate(wanted):
            np.testing.assert_array_equal(numbers[k], row(expected, 8))
            np.testing.assert_allclose(score[k], value, rtol=1e-4)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_one_sentence_alone(jit_compile):
    chain = Chain(1)
    found = compiled([chain], lambda *a, **k: compiled_decoding.decode(*a, **k, length=8), jit_compile)
    np.testing.assert_array_equal(found, [row(decoding.greedy(chain.step, 0, 8), 8)])


def test_draws_follow_the_softmax():
    chains = [Chain(0)] * 4000
    found = compiled(chains, lambda *a, **k: compiled_decoding.decode(*a, **k, length=1, temperature=0.7, seed=(1, 2)))
    expected = np.exp(decoding.log_softmax(decoding.allowed(Chain(0).table[0, tokens.BEGIN] / 0.7)))
    np.testing.assert_allclose(np.bincount(found[:, 0], minlength=SIZE) / 4000, expected, atol=0.03)
    again = compiled(chains, lambda *a, **k: compiled_decoding.decode(*a, **k, length=1, temperature=0.7, seed=(1, 2)))
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("options", [{"top_k": 2}, {"top_p": 0.6}, {"top_k": 4, "top_p": 0.9}])
def test_compiled_draws_are_among_those_of_the_plain_ones(options):
    chains = [Chain(0)] * 4000
    found = compiled(chains, lambda *a, **k: compiled_decoding.decode(*a, **k, length=1, temperature=1.5, **options))
    logits, chance = decoding.allowed(Chain(0).table[0, tokens.BEGIN]), np.random.default_rng(0)
    plain = [decoding.choose(logits, chance, temperature=1.5, **options) for _ in range(4000)]
    counts = [np.bincount(numbers, minlength=SIZE) / 4000 for numbers in (found[:, 0], plain)]
    np.testing.assert_array_equal(counts[0] > 0, counts[1] > 0)
    np.testing.assert_allclose(*counts, atol=0.04)
    assert 1 < (counts[0] > 0).sum() < SIZE - 3


def test_choices_follow_the_softmax():
    logits, chance = np.log([1, 1, 1, 1, 0.5, 0.3, 0.2]), np.random.default_rng(0)
    logits = decoding.allowed(logits)
    counts = np.bincount([decoding.choose(logits, chance) for _ in range(4000)], minlength=7)
    assert not counts[:3].any()  # padding, unknown and begin never
    np.testing.assert_allclose(counts[3:] / 4000, [0.5, 0.25, 0.15, 0.1], atol=0.03)
    assert decoding.allowed(np.zeros(7), unknown=True)[tokens.UNKNOWN] == 0


@pytest.mark.parametrize(("options", "allowed"), [
    ({"temperature": 0}, {4}), ({"top_k": 2}, {4, 5}), ({"top_p": 0.6}, {4, 5}), ({"top_p": 0.45}, {4}),
    ({"temperature": 0.01}, {4})])
def test_what_can_be_drawn(options, allowed):
    logits, chance = np.log([1e-9, 1e-9, 1e-9, 1e-9, 0.5, 0.3, 0.2]), np.random.default_rng(0)
    assert {decoding.choose(logits, chance, **options) for _ in range(300)} == allowed


def test_temperature_flattens():
    logits, chance = np.log([1e-9, 1e-9, 1e-9, 1e-9, 0.5, 0.3, 0.2]), np.random.default_rng(0)
    drawn = [decoding.choose(logits, chance, temperature=2) for _ in range(4000)]
    expected = np.sqrt([0.5, 0.3, 0.2]) / np.sqrt([0.5, 0.3, 0.2]).sum()
    np.testing.assert_allclose(np.bincount(drawn)[4:] / 4000, expected, atol=0.03)
