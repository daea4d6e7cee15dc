"""Translation models: {"source": int [B, S], "target": int [B, T]} -> logits [B, T, V], float32.

`seq2seq` (Sutskever et al. 2014): the encoder's last state is all that the decoder gets. `additive` (Bahdanau et al.
2015), `multiplicative` (Luong et al. 2015): the decoder also looks at the encoder's outputs. `transformer_*`: Vaswani
et al. 2017. Layers have fixed names, by which `steps` finds them in a model read from a file.

B batch, S and T lengths, V vocabulary of the target, D features.
"""

import dataclasses

import numpy as np
import tf_keras as keras

from apps.common.text import read_text
from layers.attention import AdditiveAttention, MultiplicativeAttention
from layers.checking import unknown_name
from layers.embedding import PaddingMask, TokenEmbedding
from layers.regularization import StatelessDropout
from layers.transformer import DecoderLayer, EncoderLayer, PositionalEncoding


@dataclasses.dataclass(frozen=True)
class Size:
    """Layers of encoder and decoder each, D, D of the feed-forward part, heads, dropout."""

    num_layers: int
    d_model: int
    d_ff: int
    num_heads: int
    dropout: float


# base and big are those of the paper's table 3; the others are for small data.
TRANSFORMERS = {"transformer_tiny": Size(2, 128, 512, 4, 0.1), "transformer_small": Size(3, 256, 1024, 4, 0.3),
                "transformer_base": Size(6, 512, 2048, 8, 0.1), "transformer_big": Size(6, 1024, 4096, 16, 0.3)}
# Scores of the attention; None has none.
RECURRENT = {"seq2seq": None, "additive": AdditiveAttention, "multiplicative": MultiplicativeAttention}
MODELS = {**RECURRENT, **TRANSFORMERS}
RECURRENT_DROPOUT = 0.2


def build(config, spec):
    """The model that a configuration describes, in the current precision.

    Args:
        config: `Config`.
        spec: `data.PairSpec`.

    Returns:
        an uncompiled functional `keras.Model`.

    Raises:
        ValueError: unknown model, or an option that it does not have.
    """
    if config.model not in MODELS:
        raise unknown_name("model", config.model, MODELS)
    seeds = map(int, np.random.SeedSequence([config.seed, 2]).generate_state(4 + 2 * max(config.num_layers, 6)))
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    make = _recurrent if config.model in RECURRENT else _transformer
    logits = make(config, spec, source, target, seeds)
    if keras.mixed_precision.global_policy().compute_dtype in ("float16", "bfloat16"):
        logits = keras.layers.Activation("linear", dtype="float32", name="logits_float32")(logits)
    model = keras.Model({"source": source, "target": target}, logits, name=config.model)
    if config.embeddings:
        load_embeddings(model, config, spec)
    return model


def _transformer(config, spec, source, target, seeds):
    size = TRANSFORMERS[config.model]
    rate = size.dropout if config.dropout == -1 else config.dropout
    count = config.num_layers or size.num_layers
    options = {"num_heads": size.num_heads, "d_ff": size.d_ff, "dropout": rate, "norm_first": config.norm_first}
    mask = PaddingMask(name="mask")(source)
    embedding = TokenEmbedding(len(spec.target), size.d_model, name="target_embedding")
    read = embedding if config.share_vocabulary else TokenEmbedding(len(spec.source), size.d_model,
                                                                    name="source_embedding")
    x = read(source)
    x = _placed(x, spec.max_length, "source", rate, seeds)
    for number in range(count):
        x = EncoderLayer(**options, seed=next(seeds), name=f"encoder_{number}")(x, mask=mask)
    memory = keras.layers.LayerNormalization(epsilon=1e-6, name="encoder_norm")(x) if config.norm_first else x
    y = _placed(embedding(target), spec.max_length, "target", rate, seeds)
    for number in range(count):
        y = DecoderLayer(**options, seed=next(seeds), name=f"decoder_{number}")(y, memory, memory_mask=mask)
    if config.norm_first:
        y = keras.layers.LayerNormalization(epsilon=1e-6, name="decoder_norm")(y)
    return embedding(y, as_logits=True) if config.tie_embeddings else keras.layers.Dense(
        len(spec.target), name="logits")(y)


def _placed(x, length, side, rate, seeds):
    """Embedded tokens with their positions."""
    x = PositionalEncoding("sinusoidal", length, name=f"{side}_positions")(x)
    return _dropped(x, rate, seeds, f"{side}_dropout")


def _recurrent(config, spec, source, target, seeds):
    rate = RECURRENT_DROPOUT if config.dropout == -1 else config.dropout
    count, units = config.num_layers or 1, config.units
    if config.bidirectional and units % 2:
        raise ValueError(f"--bidirectional halves --units between the directions: expected an even number; received "
                         f"{units}.")
    mask = PaddingMask(name="mask")(source)
    x = keras.layers.Embedding(len(spec.source), units, name="source_embedding")(source)
    states = []
    for number in range(count):
        x = _dropped(x, rate, seeds, f"encoder_dropout_{number}")
        both = config.bidirectional and not number
        layer = _layer(config, units // 2 if both else units, f"encoder_{number}", return_state=True)
        if both:
            layer = keras.layers.Bidirectional(layer, name=f"encoder_{number}_both")
        x, *state = layer(x, mask=mask)
        if both:  # states of one direction, then of the other
            half = len(state) // 2
            state = [keras.layers.Concatenate(name=f"state_{i}")([state[i], state[half + i]]) for i in range(half)]
        states.append(state)
    y = keras.layers.Embedding(len(spec.target), units, name="target_embedding")(target)
    for number in range(count):
        y = _dropped(y, rate, seeds, f"decoder_dropout_{number}")
        y = _layer(config, units, f"decoder_{number}")(y, initial_state=states[number])
    score = RECURRENT[config.model]
    if score is not None:
        attention = score(units, name="attention") if score is AdditiveAttention else score("general", name="attention")
        context = attention(y, x, mask=mask)
        y = keras.layers.Concatenate(name="with_context")([context, y])
        y = keras.layers.Dense(units, "tanh", use_bias=False, name="attentional")(y)
    y = _dropped(y, rate, seeds, "last_dropout")
    return keras.layers.Dense(len(spec.target), name="logits")(y)


def _layer(config, units, name, **options):
    cls = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[config.cell]
    return cls(units, return_sequences=True, name=name, **options)


def _dropped(x, rate, seeds, name):
    return StatelessDropout(rate, seed=next(seeds), name=name)(x) if rate else x


def load_embeddings(model, config, spec):
    """Puts word vectors from files into the embeddings; words without one keep their first, random vector.

    Raises:
        ValueError: a file cannot be read, or its vectors have another size.
    """
    names = [name.strip() for name in config.embeddings.split(",")]
    for name, side, vocabulary in zip(names, ("source", "target"), (spec.source, spec.target)):
        if name:
            variable = model.get_layer(f"{side}_embedding").embeddings
            words = {vocabulary.piece(i) for i in range(len(vocabulary))}
            variable.assign(with_vectors(variable.numpy(), read_vectors(name, variable.shape[1], words), vocabulary,
                                         name))


def with_vectors(table, vectors, vocabulary, name):
    """A table [V, D] with the vectors {word: [D]} in the rows of their words; says how many there were."""
    rows = [i for i in range(len(vocabulary)) if vocabulary.piece(i) in vectors]
    if not rows:
        raise ValueError(f"--embeddings: {name} has a vector for none of the {len(vocabulary)} words of the data. Give "
                         "vectors of this language, of words as the data write them.")
    table = table.copy()
    found = np.stack([vectors[vocabulary.piece(i)] for i in rows])
    if not np.isfinite(found).all() or not found.std():
        raise ValueError(f"--embeddings: {name} holds numbers that are not finite, or all the same. Train the vectors "
                         "anew.")
    table[rows] = found * (table.std() / found.std())  # at the scale that the layers were made for
    print(f"{name}: vectors for {len(rows)} of {len(vocabulary)} words")
    return table


def read_vectors(path, size, words):
    """{word: float32 [size]} of the words that are wanted, from a text file with a word and its numbers a line, as
    word2vec and GloVe write them.

    Raises:
        ValueError: a line has another number of them, or something else.
    """
    vectors = {}
    for number, line in enumerate(read_text(path, flag="--embeddings").split("\n"), 1):
        line = line.rstrip(" ")
        if not line or number == 1 and line.count(" ") == 1:
            continue  # word2vec's head: how many, how long
        word, *values = line.rsplit(" ", size)  # some words of GloVe have blanks in them
        try:
            values = np.array(values, np.float32)
        except ValueError:
            values = np.zeros(0)
        if len(values) != size:
            raise ValueError(f"--embeddings: {path}, line {number} is no word with {size} numbers, of which the "
                             "model's embedding has so many. Set --units (or the Transformer) to the size of the "
                             "vectors.")
        if word in words:
            vectors[word] = values
    return vectors
