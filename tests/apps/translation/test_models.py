"""Translation models taken apart give what they give as a whole, in batches and sentence by sentence."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from apps.common import tokens
from apps.translation import models, scheduled, steps, translating
from apps.translation.config import Config
from apps.translation.data import PairSpec, as_inputs
from layers.counting import count_parameters
from layers.token_loss import TokenCrossentropy

LENGTH = 8
VOCABULARY = tokens.Pieces("characters", "abcdefgh")
SPEC = PairSpec(VOCABULARY, tokens.Pieces("characters", "ABCDEF"), LENGTH, 5.0, 0, [("abc", "ABC")])
SENTENCES = [[4, 5, 6, 7, 8], [9, 4], [11, 10, 9, 8, 7, 6, 5]]
KINDS = {"transformer": {"model": "transformer_tiny", "num_layers": 2},
         "pre_norm": {"model": "transformer_tiny", "num_layers": 1, "norm_first": True, "tie_embeddings": False},
         "seq2seq": {"model": "seq2seq"}, "additive": {"model": "additive", "num_layers": 2, "cell": "gru"},
         "multiplicative": {"model": "multiplicative", "bidirectional": False, "num_layers": 2}}


def build(kind, **flags):
    keras.utils.set_random_seed(0)
    model = models.build(Config(**{"units": 16, "dropout": 0.1, "workdir": "unused", **KINDS[kind], **flags}), SPEC)
    noise = np.random.default_rng(0)  # new ones say the same whatever they read
    scale = 0.3 if "transformer" in KINDS[kind]["model"] else 1.0
    model.set_weights([w + noise.normal(0, scale, w.shape) if w.ndim > 1 else w for w in model.get_weights()])
    return model


def batch(sentences=SENTENCES):
    rows = np.zeros((len(sentences), LENGTH), np.int32)
    for row, numbers in enumerate(sentences):
        rows[row, :len(numbers) + 1] = [*numbers, tokens.END]
    return rows


@pytest.fixture(scope="module", params=[pytest.param(kind, marks=pytest.mark.conformance) if kind == "multiplicative"
                                        else kind for kind in KINDS])
def model(request):
    return build(request.param)


def test_steps_give_what_the_whole_gives(model):
    source = batch()
    target = np.random.default_rng(1).integers(4, 10, (3, LENGTH)).astype(np.int32)
    inputs = as_inputs(source, target)
    whole = model(inputs, training=False).numpy()
    begin, step = steps.decoder(model, LENGTH, 3)
    state = begin(tf.constant(source))
    for t in range(LENGTH):
        logits, state = step(inputs["target"][:, t], state)
        np.testing.assert_allclose(logits, whole[:, t], atol=2e-5 * np.abs(whole).max(), err_msg=str(t))
    assert np.abs(whole[:, 1:] - whole[:, :-1]).max() > 0.01  # not a model that says the same everywhere


def test_padding_and_neighbours_change_nothing(model):
    target = np.random.default_rng(1).integers(4, 10, (3, 5)).astype(np.int32)
    whole = model(as_inputs(batch(), target), training=False).numpy()
    alone = model(as_inputs(batch()[1:2, :3], target[1:2]), training=False).numpy()
    np.testing.assert_allclose(whole[1:2], alone, atol=1e-5 * np.abs(whole).max())


def test_what_comes_later_changes_nothing_before(model):
    target = np.random.default_rng(1).integers(4, 10, (3, LENGTH)).astype(np.int32)
    changed = target.copy()
    changed[:, 4] = 4 + (target[:, 4] - 3) % 6
    before, after = (model(as_inputs(batch(), t), training=False).numpy() for t in (target, changed))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])  # target 4 is read at 5
    assert not np.array_equal(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("width", [pytest.param(0, marks=pytest.mark.conformance), 3])
def test_sentence_by_sentence_is_the_batch(model, width):
    texts = [VOCABULARY.decode(numbers) for numbers in SENTENCES]
    config = Config(workdir="unused", decoding="beam" if width else "greedy", beam_width=max(width, 1))
    together = translating.translate(model, SPEC, texts, config, batch_size=2)
    translator = translating.keras_translator(model, LENGTH)
    alone = [SPEC.target.decode(translator.translate(numbers, width=width)) for numbers in SENTENCES]
    assert together == alone and (width or len(set(together)) > 1)


@pytest.mark.parametrize("model", ["seq2seq", "transformer"], indirect=True)
def test_long_sentences_are_cut(model):
    text = "abcdefgh" * 3
    (found,) = translating.translate(model, SPEC, [text], Config(workdir="unused"), batch_size=1)
    translator = translating.keras_translator(model, LENGTH)
    assert SPEC.target.decode(translator.translate(VOCABULARY.encode(text))) == found
    assert translating.translate(model, SPEC, [], Config(workdir="unused")) == []


@pytest.mark.parametrize("kind", ["transformer", "additive"])
def test_samples_for_calibration_are_all_that_passes_or_as_many_as_fit(kind):
    parts = steps.file_models(build(kind), LENGTH)
    whole = translating.representative(parts, SPEC, batch())["step"]
    size = sum(array[0].nbytes for array in whole.values())
    few = translating.representative(parts, SPEC, batch(), most=4 * size)["step"]
    again = translating.representative(parts, SPEC, [[*row, tokens.END] for row in SENTENCES], most=4 * size)["step"]
    known = {tuple(array[i].tobytes() for array in whole.values()) for i in range(len(whole["token"]))}
    assert len(whole["token"]) > len(few["token"]) == 4
    assert {tuple(array[i].tobytes() for array in few.values()) for i in range(4)} < known
    for name, array in few.items():
        np.testing.assert_array_equal(array, again[name])


def test_tied_weights_are_one_table():
    tied, loose = build("transformer"), build("transformer", tie_embeddings=False)
    assert loose.count_params() == tied.count_params() + 128 * len(SPEC.target) + len(SPEC.target)


def test_one_embedding_for_both_languages():
    spec = PairSpec(VOCABULARY, VOCABULARY, LENGTH, 5.0, 0, [])
    options = {"model": "transformer_tiny", "num_layers": 1, "workdir": "unused"}
    apart, shared = (models.build(Config(**options, share_vocabulary=both), spec) for both in (False, True))
    assert apart.count_params() == shared.count_params() + 128 * len(VOCABULARY)
    inputs = as_inputs(batch(), np.random.default_rng(1).integers(4, 12, (3, LENGTH)).astype(np.int32))
    before = shared(inputs, training=False).numpy()
    begin, step = steps.decoder(shared, LENGTH, 3)
    state = begin(tf.constant(batch()))
    for t in range(LENGTH):
        logits, state = step(inputs["target"][:, t], state)
        np.testing.assert_allclose(logits, before[:, t], atol=2e-5 * np.abs(before).max(), err_msg=str(t))


@pytest.mark.parametrize("name, layers, d_model, d_ff, heads", [
    ("transformer_base", 6, 512, 2048, 8),
    pytest.param("transformer_big", 6, 1024, 4096, 16, marks=pytest.mark.conformance)])
def test_sizes_are_the_paper_s(name, layers, d_model, d_ff, heads):
    """Vaswani et al. 2017, table 3, but for the vocabulary, of which the paper's 65 and 213 million are a part."""
    model = models.build(Config(model=name, workdir="unused", share_vocabulary=True),
                         PairSpec(VOCABULARY, VOCABULARY, LENGTH, 5.0, 0, []))
    attention, norm = 4 * (d_model ** 2 + d_model), 2 * d_model
    feed_forward = 2 * d_model * d_ff + d_ff + d_model
    expected = layers * (attention + feed_forward + 2 * norm) + layers * (2 * attention + feed_forward + 3 * norm)
    assert count_parameters(model) == expected + len(VOCABULARY) * d_model
    assert model.get_layer("decoder_5").num_heads == heads


def test_scheduled_sampling_puts_predictions_in_the_place_of_inputs():
    plain = build("additive", dropout=0.0)
    model = scheduled.ScheduledSampling(plain, 1.0, 10, seed=0)
    target = np.random.default_rng(1).integers(4, 10, (3, LENGTH)).astype(np.int32)
    target[1, 4:] = [tokens.END, *[tokens.PADDING] * (LENGTH - 5)]
    inputs = {name: tf.constant(value) for name, value in as_inputs(batch(), target).items()}
    said = np.argmax(plain(inputs, training=False), axis=-1)
    np.testing.assert_array_equal(model.mixed(inputs, tf.constant(0, tf.int64)), inputs["target"])
    always = model.mixed(inputs, tf.constant(10, tf.int64)).numpy()
    np.testing.assert_array_equal(always[:, 0], tokens.BEGIN)
    is_text = ~np.isin(said, (tokens.PADDING, tokens.END)) & ~np.isin(target, (tokens.PADDING, tokens.END))
    assert is_text[:, :-1].any() and not always[1, 5:].any()
    np.testing.assert_array_equal(always[:, 1:], np.where(is_text[:, :-1], said[:, :-1], inputs["target"][:, 1:]))
    half = model.mixed(inputs, tf.constant(5, tf.int64)).numpy()
    assert ((half == always) | (half == inputs["target"].numpy())).all() and 0.2 < (half == always).mean() < 0.9
    model.compile("sgd", TokenCrossentropy(5.0))
    assert np.isfinite(model.train_on_batch(inputs, target))
    assert [w.name for w in scheduled.plain(model).weights] == [w.name for w in plain.weights]


def test_word_vectors_from_a_file(tmp_path, capsys):
    spec = PairSpec(tokens.Pieces("words", ["cat", "dog", "bird"]), SPEC.target, LENGTH, 5.0, 0, [])
    vectors = {"dog": np.arange(16.0), "cat": -np.arange(16.0), "zebra": np.ones(16)}
    vectors |= {". . .": np.ones(16), "a\u2028b": np.ones(16)}  # as in GloVe's files
    lines = ["5 16", *(f"{word} {' '.join(map(str, values))}" for word, values in vectors.items())]
    (tmp_path / "v.txt").write_text("\n".join(lines) + "\n")
    config = {"model": "additive", "units": 16, "workdir": "unused", "tokens": "words"}
    plain = models.build(Config(**config, seed=3), spec).get_layer("source_embedding").embeddings.numpy()
    table = models.build(Config(**config, embeddings=f"{tmp_path / 'v.txt'},"), spec).get_layer(
        "source_embedding").embeddings.numpy()
    assert "vectors for 2 of 7 words" in capsys.readouterr().out
    np.testing.assert_allclose(table[4], -table[5])
    np.testing.assert_allclose(np.corrcoef(table[5], np.arange(16.0))[0, 1], 1, rtol=1e-5)
    assert table.std() == pytest.approx(plain.std(), rel=0.5)
    for content, message in (("dog 1 2 3", "line 1 is no word with 16 numbers"),
                             (f"dog{' 1' * 16}", "not finite, or all the same"),
                             (f"cow{' 1 2' * 8}", "has a vector for none of the 7 words"),
                             (b"\xff", "--embeddings: .* is not utf-8.* Write it in utf-8"),
                             (None, "--embeddings: .* cannot be read")):
        (tmp_path / "v.txt").unlink()
        if content is not None:
            (tmp_path / "v.txt").write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())
        with pytest.raises(ValueError, match=message):
            models.build(Config(**config, embeddings=str(tmp_path / "v.txt")), spec)


@pytest.mark.parametrize(("flags", "message"), [
    ({"model": "transformer_tin"}, "model 'transformer_tin'.*transformer_tiny"),
    ({"model": "additive", "units": 15}, "expected an even number")])
def test_bad_flags(flags, message):
    with pytest.raises(ValueError, match=message):
        models.build(Config(workdir="unused", **flags), SPEC)
