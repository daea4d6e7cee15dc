"""Language models: from tokens to logits of the next token, or of the hidden ones.

    tokens int [B, T] -> embedding -> layers -> logits [B, T, V], float32

Every model but the masked ones has a *step*, a model of one token with its state outside, which is what writes text and
what goes to the phone (`step_model`). B batch, T window, V vocabulary, D units, L length of a cache.
"""

import numpy as np
import tensorflow as tf
import tf_keras as keras

from layers.attention import Stepwise
from layers.checking import unknown_name
from layers.recurrent import LayerNormLSTMCell, PeepholeLSTMCell
from layers.regularization import StatelessDropout
from layers.transformer import EncoderLayer, PositionalEncoding
from strategies import export

# name -> a recurrent layer of some units
RECURRENT = {
    "rnn": lambda units, name: keras.layers.SimpleRNN(units, return_sequences=True, name=name),
    "lstm": lambda units, name: keras.layers.LSTM(units, return_sequences=True, name=name),
    "peephole_lstm": lambda units, name: keras.layers.RNN(PeepholeLSTMCell(units), return_sequences=True, name=name),
    "layer_norm_lstm": lambda units, name: keras.layers.RNN(LayerNormLSTMCell(units), return_sequences=True, name=name),
    "gru": lambda units, name: keras.layers.GRU(units, return_sequences=True, name=name)}
# name -> (layers, whether it is a masked model: it sees both sides of a hidden token)
MODELS = {**{name: (name, False) for name in RECURRENT}, "transformer": ("transformer", False),
          "masked_lstm": ("lstm", True), "masked_gru": ("gru", True), "masked_transformer": ("transformer", True)}
_POSITION = "position"


def is_masked(name):
    """Whether a model finds hidden tokens.

    Raises:
        ValueError: there is no such model.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name][1]


def build(config, spec):
    """The model that a configuration describes, in the current precision.

    Args:
        config: `Config`.
        spec: `data.TextSpec`.

    Returns:
        an uncompiled functional `keras.Model`, int [B, T] -> [B, T, V].

    Raises:
        ValueError: unknown model, or an option that it does not have.
    """
    masked, kind = is_masked(config.model), MODELS[config.model][0]
    if config.carry_state and (masked or kind not in RECURRENT):
        raise ValueError(f"--carry_state is for models that read from left to right step by step "
                         f"({', '.join(RECURRENT)}); received --model={config.model}.")
    size = len(spec.vocabulary)
    seeds = map(int, np.random.SeedSequence([config.seed, 1]).generate_state(config.num_layers + 1))
    tokens = keras.Input((spec.length,), dtype="int32", name="tokens")
    # A masked model has one more token: what stands in the place of a hidden one.
    x = keras.layers.Embedding(size + masked, config.units, name="embedding")(tokens)
    if kind == "transformer":
        x = _transformer(config, x, masked, seeds)
    else:
        x = _dropped(config, x, seeds, "dropout")
        for number in range(config.num_layers):
            layer = RECURRENT[kind](config.units, f"layer_{number}")
            layer = keras.layers.Bidirectional(layer, name=f"both_ways_{number}") if masked else layer
            x = _dropped(config, layer(x), seeds, f"dropout_{number}")
    x = keras.layers.Dense(size, name="logits")(x)
    if keras.mixed_precision.global_policy().compute_dtype in ("float16", "bfloat16"):
        x = keras.layers.Activation("linear", dtype="float32", name="logits_float32")(x)
    return keras.Model(tokens, x, name=config.model)


def _transformer(config, x, masked, seeds):
    """Pre-norm layers between positions and a last norm, as in GPT-2 (Radford et al. 2019, section 2.3)."""
    x = PositionalEncoding(config.positions, config.length, name="positions")(x)
    x = _dropped(config, x, seeds, "dropout")
    for number in range(config.num_layers):
        layer = EncoderLayer(config.num_heads, config.feed_forward or 4 * config.units, config.dropout, norm_first=True,
                             activation="gelu", seed=next(seeds), name=f"layer_{number}")
        x = layer(x, use_causal_mask=not masked)
    return keras.layers.LayerNormalization(epsilon=1e-6, name="norm")(x)


def _dropped(config, x, seeds, name):
    return StatelessDropout(config.dropout, seed=next(seeds), name=name)(x) if config.dropout else x


def step_model(model):
    """A model of one token, with the state as inputs and outputs; weights are shared with `model` or copied.

    Args:
        model: what `build` returned, trained or not; not a masked one.

    Returns:
        functional `keras.Model`: inputs {"tokens": int [B, 1], <state>: ...}, outputs {<layer>: logits [B, 1, V],
        <state>: ...}. Zeros are the state before the first token. A Transformer's state are the keys and values of the
        positions so far and their number; it ends after T tokens.
    """
    names = [layer.name for layer in model.layers]
    if "positions" not in names:
        return export.step_model(model)
    token = keras.Input((1,), dtype="int32", name="tokens")
    position = keras.Input((1,), dtype="int32", name=_POSITION)
    inputs, outputs = {"tokens": token, _POSITION: position}, {_POSITION: position + 1}
    x = model.get_layer("positions")(model.get_layer("embedding")(token), position=position)
    for layer in (layer for layer in model.layers if isinstance(layer, EncoderLayer)):
        cache = [keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=f"{layer.name}_{what}")
                 for tensor, what in zip(layer.cache(1, model.input_shape[1]), ("keys", "values"))]
        x, *new = Stepwise(layer, name=f"{layer.name}_step")(x, *cache, position)
        for tensor, value in zip(cache, new):
            inputs[tensor.name], outputs[tensor.name] = tensor, value
    logits = model.get_layer("logits")(model.get_layer("norm")(x))
    return keras.Model(inputs, {"logits": logits, **outputs}, name=f"{model.name}_step")


def logits_name(step):
    """The output of a step model that is no state."""
    return next(name for name in step.output if name not in step.input)


def zero_state(step, batch_size=1):
    """The state before the first token, {name: array [B, ...]}."""
    return {name: np.zeros((batch_size, *tensor.shape[1:]), tensor.dtype.as_numpy_dtype)
            for name, tensor in step.input.items() if name in step.output}


def stepper(step):
    """`step(number, state) -> (logits [V], state)` of a step model, for `writing.write`."""
    name = logits_name(step)
    run = tf.function(lambda inputs: step(inputs, training=False))

    def take(number, state):
        outputs = run({"tokens": tf.constant([[number]], tf.int32), **{k: tf.constant(v) for k, v in state.items()}})
        outputs = {key: value.numpy() for key, value in outputs.items()}
        return outputs.pop(name)[0, 0], outputs

    return take
