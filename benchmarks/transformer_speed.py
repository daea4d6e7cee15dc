"""How fast the Transformer trains and decodes, beside Keras' own attention and PyTorch.

    python3 -m venv peers && peers/bin/pip install torch
    python -m benchmarks.transformer_speed [--peers_python=peers/bin/python] [--rounds=15]

Training: tokens a second of an encoder and decoder of the same shape (the `transformer_small` of translation, pre-norm,
tied embedding, dropout 0.1), of `keras.layers.MultiHeadAttention` and of PyTorch's `scaled_dot_product_attention`.
Decoding: greedy, to a length of 64, with and without cache, and of one sentence in LiteRT. All in turn, in one run.
"""

import argparse
import pathlib
import tempfile

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.common import compiled_decoding, tokens
from apps.translation import models, steps, translating
from apps.translation.config import Config
from apps.translation.data import PairSpec
from benchmarks import common, peers
from layers.embedding import PaddingMask, TokenEmbedding
from layers.token_loss import TokenCrossentropy
from layers.transformer import PositionalEncoding
from strategies import export
from strategies.signature import Signature

VOCABULARY, LENGTH, BATCH, DROPOUT = 4000, 64, 32, 0.1
SIZE = models.TRANSFORMERS["transformer_small"]
SHAPE = {"vocabulary": VOCABULARY, "length": LENGTH, "layers": SIZE.num_layers, "features": SIZE.d_model,
         "inner": SIZE.d_ff, "heads": SIZE.num_heads, "dropout": DROPOUT}
TORCH_WORKER = pathlib.Path(__file__).parent / "sequence" / "torch_worker.py"


def specification():
    """Data of one character a token, as far as a model must know them."""
    pieces = tokens.Pieces("characters", "".join(map(chr, range(0x4e00, 0x4e00 + VOCABULARY - len(tokens.SPECIALS)))))
    return PairSpec(pieces, pieces, LENGTH, float(LENGTH), 0, [])


def ours():
    """The suite's Transformer."""
    keras.utils.set_random_seed(0)
    return models.build(Config(workdir="unused", model="transformer_small", norm_first=True, dropout=DROPOUT),
                        specification())


def of_keras():
    """The same of `keras.layers.MultiHeadAttention`, Keras' own dropout and normalisation."""
    keras.utils.set_random_seed(0)
    source, target = (keras.Input((None,), dtype="int32", name=name) for name in ("source", "target"))
    mask = PaddingMask()(source)[:, None]

    def placed(x):
        return keras.layers.Dropout(DROPOUT)(PositionalEncoding("sinusoidal", LENGTH)(x))

    def attention(x, memory=None, **options):
        y = keras.layers.LayerNormalization(epsilon=1e-6)(x)
        attend = keras.layers.MultiHeadAttention(SIZE.num_heads, SIZE.d_model // SIZE.num_heads)
        return x + keras.layers.Dropout(DROPOUT)(attend(y, y if memory is None else memory, **options))

    def feed_forward(x):
        y = keras.layers.Dense(SIZE.d_ff, "relu")(keras.layers.LayerNormalization(epsilon=1e-6)(x))
        return x + keras.layers.Dropout(DROPOUT)(keras.layers.Dense(SIZE.d_model)(y))

    x = placed(TokenEmbedding(VOCABULARY, SIZE.d_model)(source))
    for _ in range(SIZE.num_layers):
        x = feed_forward(attention(x, attention_mask=mask))
    memory = keras.layers.LayerNormalization(epsilon=1e-6)(x)
    embedding = TokenEmbedding(VOCABULARY, SIZE.d_model)
    y = placed(embedding(target))
    for _ in range(SIZE.num_layers):
        y = feed_forward(attention(attention(y, use_causal_mask=True), memory, attention_mask=mask))
    y = keras.layers.LayerNormalization(epsilon=1e-6)(y)
    return keras.Model({"source": source, "target": target}, embedding(y, as_logits=True))


def check_same_size(model, other):
    """Raises RuntimeError unless two models have as many trainable parameters."""
    sizes = [sum(w.shape.num_elements() for w in m.trainable_weights) for m in (model, other)]
    if sizes[0] != sizes[1]:
        raise RuntimeError(f"The models to compare have {sizes[0]} and {sizes[1]} parameters.")


def random_tokens(rows, seed=0):
    """int32 [rows, LENGTH] of ordinary tokens: no padding, no end."""
    return np.random.default_rng(seed).integers(len(tokens.SPECIALS), VOCABULARY, (rows, LENGTH)).astype(np.int32)


def training_step(model):
    """() -> loss after one step with Adam."""
    model.compile(keras.optimizers.Adam(1e-4), TokenCrossentropy(float(LENGTH), label_smoothing=0.1))
    inputs = {"source": random_tokens(BATCH), "target": random_tokens(BATCH, 1)}
    return common.training_step(model, inputs, random_tokens(BATCH, 2))


def without_end(step):
    """A decoder's step that never says that a sentence has ended, so that all take the same number of tokens."""

    def take(numbers, state):
        logits, state = step(numbers, state)
        return logits - 1e9 * tf.one_hot([tokens.END], VOCABULARY), state

    return take


def cached_decoding(model, batch):
    """() -> int32 [batch, LENGTH], with keys and values kept."""
    begin, step = steps.decoder(model, LENGTH, batch)
    run = tf.function(lambda source: compiled_decoding.decode(without_end(step), begin(source), batch_size=batch,
                                                              length=LENGTH), jit_compile=True)
    source = tf.constant(random_tokens(batch))
    return lambda: run(source).numpy()


def uncached_decoding(model, batch, *, jit_compile=False):
    """The same without: for each token the decoder reads again all that is there; the encoder reads once.

    Compiled by XLA it reads its whole length at every token, since XLA has no shapes that grow; otherwise no more than
    what is there.
    """
    source = model.input["source"]
    memory = model.get_layer("encoder_norm").output
    encoder = keras.Model(source, memory)
    given, mask = keras.Input(memory.shape[1:]), keras.Input((None,), dtype="bool")
    target = keras.Input((None,), dtype="int32")
    y = model.get_layer("target_positions")(model.get_layer("target_embedding")(target))
    for layer in steps.layers_of(model, "decoder"):
        y = layer(y, given, memory_mask=mask)
    decoder = keras.Model([given, mask, target], y)
    norm, embedding = model.get_layer("decoder_norm"), model.get_layer("target_embedding")
    specials = tf.reduce_sum(tf.one_hot(range(len(tokens.SPECIALS)), VOCABULARY), axis=0)

    @tf.function(jit_compile=jit_compile)
    def run(source):
        memory = encoder(source, training=False)
        mask = tf.not_equal(source, tokens.PADDING)

        def body(place, written):
            y = decoder([memory, mask, written[:, :LENGTH]], training=False)[:, place:place + 1]
            logits = embedding(norm(y), as_logits=True)[:, 0] - 1e9 * specials
            number = tf.argmax(logits, axis=-1, output_type=tf.int32)[:, None]
            if jit_compile:
                return place + 1, tf.where(tf.range(LENGTH + 1) == place + 1, number, written)
            return place + 1, tf.concat([written, number], axis=1)

        begin = tf.fill([batch, LENGTH + 1 if jit_compile else 1], tokens.BEGIN)
        return tf.while_loop(lambda place, _: place < LENGTH, body, (0, begin), shape_invariants=(
            tf.TensorShape([]), tf.TensorShape([batch, LENGTH + 1 if jit_compile else None])))[1][:, 1:]

    tensor = tf.constant(random_tokens(batch))
    return lambda: run(tensor).numpy()


def file_decodings(model, folder):
    """{format: () -> tokens of one sentence} in LiteRT, with files of the model, written into a folder."""
    spec, parts = specification(), steps.file_models(model, LENGTH)
    samples, found = translating.representative(parts, spec, random_tokens(4)[:, :LENGTH // 2]), {}
    for form in ("float32", "int8"):
        path = pathlib.Path(folder) / f"{form}.tflite"
        export.convert_signatures(parts, path, form, representative=samples)
        runs = {name: Signature(path, name) for name in parts}
        found[form] = sentence_decoding(translating.file_translator(parts, runs, LENGTH))
    return found


def sentence_decoding(translator):
    """() -> LENGTH tokens by a `Translator`, of which none is the end."""
    source = list(random_tokens(1)[0, :LENGTH - 1])

    def run():
        state, number, written = translator.begin([*source, tokens.END]), tokens.BEGIN, []
        for _ in range(LENGTH):
            logits, state = translator.step(number, state)
            logits[tokens.END] = -np.inf
            written.append(number := int(logits.argmax()))
        return written

    return run


def compared(name, functions, questions, per_call, rounds):
    """Rows of functions that were timed in turn: tokens a second of one side over another's."""
    seconds, rows = common.paired_seconds(functions, rounds=rounds), []
    for side, other in questions:
        if side in seconds and other in seconds:
            low, ratio, high = common.ratio_interval(seconds[other], seconds[side])
            rates = {key: per_call / float(np.median(seconds[value])) for key, value in (
                ("tokens_s", side), ("other_tokens_s", other))}
            rows.append({"case": f"{name}: {side} over {other}", **rates, "ratio": ratio, "low_95": low,
                         "high_95": high, "rounds": rounds})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers_python", default="", help="Python with torch; without it PyTorch is left out.")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch = peers.Worker(options.peers_python, [str(TORCH_WORKER)]) if options.peers_python else None

    def of_torch(kind, batch):
        case = {"kind": kind, "batch": batch, "repeats": 1, **SHAPE}
        return {"PyTorch": lambda: torch.measure(case)} if torch else {}

    model, other = ours(), of_keras()
    check_same_size(model, other)
    record(compared("training", {"Keras": training_step(other), "usagi": training_step(model),
                                 **of_torch("training", BATCH)}, [("usagi", "Keras"), ("usagi", "PyTorch")],
                    BATCH * LENGTH, options.rounds))
    for batch in (1, BATCH):
        ways = {"uncached": uncached_decoding(model, batch), "cached": cached_decoding(model, batch),
                "uncached by XLA": uncached_decoding(model, batch, jit_compile=True)}
        same = min(np.mean(ways["cached"]() == run()) for run in ways.values())
        print(f"{same:.2%} of the tokens are the same by all ways to decode")
        if same < 0.98:  # a tie of a model that has learned nothing changes all that follow in its sentence
            raise RuntimeError("The ways to decode do not give the same tokens.")
        record(compared(f"greedy decoding of {batch}", {**ways, **of_torch("decoding", batch)}, [
            ("cached", "uncached"), ("cached", "uncached by XLA"), ("cached", "PyTorch")], batch * LENGTH,
            options.rounds))
    if torch:
        with tempfile.TemporaryDirectory() as folder:
            files = {f"LiteRT {form}": run for form, run in file_decodings(model, folder).items()}
            record(compared("one sentence", {**files, **of_torch("decoding", 1)}, [(name, "PyTorch") for name in files],
                            LENGTH, options.rounds))
        torch.close()


def record(rows):
    """Keeps rows as soon as there are some."""
    common.write("transformer_speed", rows, key="case")


if __name__ == "__main__":
    main()
