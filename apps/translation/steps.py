"""A trained translation model taken apart: what reads a sentence, and what says one more token.

A *reader* gives the state in which the decoder begins, a dictionary of arrays; a *step* takes a token and the state and
gives logits and the next state. `reader` and `step_model` are Keras models for batches; `file_models` are those that go
into a file, for one sentence, with static shapes: a Transformer reads a padded sentence at once, a recurrent encoder a
token at a time, so that nothing in it has to be masked.

B batch, S source, L target at most, D features, V vocabulary.
"""

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.translation.names import MASK, MEMORY, POSITION, TOKEN
from layers.attention import Stepwise
from layers.embedding import TokenEmbedding
from layers.transformer import DecoderLayer


def is_transformer(model):
    """Whether a model is made of Transformer layers."""
    return any(isinstance(layer, DecoderLayer) for layer in model.layers)


def layers_of(model, kind):
    """The layers called `<kind>_0`, `<kind>_1`, … in this order; of a bidirectional one the wrapper."""
    names, found = {layer.name for layer in model.layers}, []
    while True:
        name = f"{kind}_{len(found)}"
        if f"{name}_both" in names:
            name = f"{name}_both"
        if name not in names:
            return found
        found.append(model.get_layer(name))


def source_embedding(model):
    """The layer that reads the source's tokens: where both languages share one, the target's."""
    names = {layer.name for layer in model.layers}
    return model.get_layer("source_embedding" if "source_embedding" in names else "target_embedding")


class Memory(keras.layers.Layer):
    """Keys and values of a decoder layer's attention to the encoder's output: [B, S, D] -> two of [B, S, H, d]."""

    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer

    def call(self, inputs):
        return self.layer.project(inputs)


def reader(model, length=None):
    """The encoder, with all that the decoder needs of a sentence.

    Args:
        model: what `models.build` returned, or the same read from a file.
        length: S, or None for any.

    Returns:
        functional `keras.Model`: int [B, S] -> {name: [B, ...]}, a part of the state.
    """
    source = keras.Input((length,), dtype="int32", name="source")
    mask = model.get_layer("mask")(source)
    state = {MASK: tf.cast(mask, tf.int32)}
    x = source_embedding(model)(source)
    if is_transformer(model):
        x = model.get_layer("source_positions")(x)
        for layer in layers_of(model, "encoder"):
            x = layer(x, mask=mask)
        if "encoder_norm" in {layer.name for layer in model.layers}:
            x = model.get_layer("encoder_norm")(x)
        for layer in layers_of(model, "decoder"):
            keys, values = Memory(layer, name=f"{layer.name}_memory")(x)
            state |= {f"{layer.name}_memory_keys": keys, f"{layer.name}_memory_values": values}
        return keras.Model(source, state, name="reader")
    for number, layer in enumerate(layers_of(model, "encoder")):
        x, *states = layer(x, mask=mask)
        if isinstance(layer, keras.layers.Bidirectional):
            half = len(states) // 2
            states = [tf.concat([states[i], states[half + i]], axis=-1) for i in range(half)]
        state |= {f"decoder_{number}_state_{i}": value for i, value in enumerate(states)}
    return keras.Model(source, state | {MEMORY: x} if looks_back(model) else
                       {name: value for name, value in state.items() if name != MASK}, name="reader")


def looks_back(model):
    """Whether a recurrent decoder has attention."""
    return any(layer.name == "attention" for layer in model.layers)


def zero_state(model, batch_size, length):
    """What the state holds beside that of the reader, {name: zeros [B, ...]}: an empty cache of L positions."""
    if not is_transformer(model):
        return {}
    state = {POSITION: np.zeros([batch_size, 1], np.int32)}
    for layer in layers_of(model, "decoder"):
        for what, value in zip(("keys", "values"), layer.cache(batch_size, length)):
            state[f"{layer.name}_{what}"] = value.numpy()
    return state


def step_model(model, source_length=None, length=None):
    """The decoder for one token.

    Args:
        model: as of `reader`.
        source_length: S, or None for any.
        length: L of a Transformer's cache.

    Returns:
        functional `keras.Model`: inputs {TOKEN: int [B, 1], <state>: ...}, outputs {"logits": [B, V], <state>: ...},
        the latter only of what changes.
    """
    make = _transformer_step if is_transformer(model) else _recurrent_step
    return make(model, source_length, length)


def _transformer_step(model, source_length, length):
    token, position, mask = (keras.Input(shape, dtype="int32", name=name) for name, shape in (
        (TOKEN, (1,)), (POSITION, (1,)), (MASK, (source_length,))))
    inputs, outputs = {TOKEN: token, POSITION: position, MASK: mask}, {POSITION: position + 1}
    embedding = model.get_layer("target_embedding")
    y = model.get_layer("target_positions")(embedding(token), position=position)
    for layer in layers_of(model, "decoder"):
        heads = (layer.num_heads, layer.self_attention.key_dim)
        for what, size in (("keys", length), ("values", length), ("memory_keys", source_length),
                           ("memory_values", source_length)):
            name = f"{layer.name}_{what}"
            inputs[name] = keras.Input((size, *heads), name=name)
        keys, values, memory_keys, memory_values = (inputs[f"{layer.name}_{what}"] for what in (
            "keys", "values", "memory_keys", "memory_values"))
        y, keys, values = Stepwise(layer, name=f"{layer.name}_step")(
            y, keys, values, position, memory_keys, memory_values, tf.cast(mask, tf.bool))
        outputs |= {f"{layer.name}_keys": keys, f"{layer.name}_values": values}
    names = {layer.name for layer in model.layers}
    y = model.get_layer("decoder_norm")(y) if "decoder_norm" in names else y
    tied = "logits" not in names and isinstance(embedding, TokenEmbedding)
    logits = embedding(y, as_logits=True) if tied else model.get_layer("logits")(y)
    return keras.Model(inputs, {"logits": logits[:, 0], **outputs}, name="step")


def _recurrent_step(model, source_length, length):
    token = keras.Input((1,), dtype="int32", name=TOKEN)
    inputs, outputs = {TOKEN: token}, {}
    y = model.get_layer("target_embedding")(token)[:, 0]
    for layer in layers_of(model, "decoder"):
        y, new = _cell_step(layer, y, f"{layer.name}_state", inputs)
        outputs |= new
    if looks_back(model):
        units = layers_of(model, "encoder")[-1].output[0].shape[-1]
        inputs[MEMORY] = keras.Input((source_length, units), name=MEMORY)
        inputs[MASK] = keras.Input((source_length,), dtype="int32", name=MASK)
        query = y[:, None]
        context = model.get_layer("attention")(query, inputs[MEMORY], mask=tf.cast(inputs[MASK], tf.bool))
        y = model.get_layer("attentional")(model.get_layer("with_context")([context, query]))[:, 0]
    return keras.Model(inputs, {"logits": model.get_layer("logits")(y), **outputs}, name="step")


def _cell_step(layer, x, prefix, inputs):
    """One step of a recurrent layer's cell: (output, {state: value}); its states are added to `inputs`."""
    nested = tf.nest.is_nested(layer.cell.state_size)
    sizes = layer.cell.state_size if nested else [layer.cell.state_size]
    names = [f"{prefix}_{i}" for i in range(len(sizes))]
    for name, size in zip(names, sizes):
        inputs[name] = keras.Input((size,), name=name)
    layer.cell._name = f"{layer.name}_cell"  # cells of one class have one name, layers of a model must not
    states = [inputs[name] for name in names]
    output, new = layer.cell(x, states if nested else states[0])
    return output, dict(zip(names, tf.nest.flatten(new)))


def file_models(model, length):
    """The models that go into a file, {signature: functional `keras.Model` for one sentence}.

    "step", and "read": of a Transformer `reader`, of the others one token of the encoder, {"token": [1, 1], and
    states}. Where its first layer reads both ways, "read" is that layer, which also takes "token_back", the token as
    far from the end, and "read_above" are the layers above it.
    """
    step = step_model(model, length, length)
    if is_transformer(model):
        return {"read": reader(model, length), "step": step}
    first, *above = layers_of(model, "encoder")
    token = keras.Input((1,), dtype="int32", name=TOKEN)
    inputs, outputs, embed = {TOKEN: token}, {}, model.get_layer("source_embedding")
    if not isinstance(first, keras.layers.Bidirectional):
        y, found = _through([first, *above], embed(token)[:, 0], inputs)
        return {"read": keras.Model(inputs, {MEMORY: y, **found}, name="read"), "step": step}
    back = inputs[f"{TOKEN}_back"] = keras.Input((1,), dtype="int32", name=f"{TOKEN}_back")
    for side, layer, x in (("", first.forward_layer, token), ("_back", first.backward_layer, back)):
        y, found = _cell_step(layer, embed(x)[:, 0], f"encoder_0{side}_state", inputs)
        outputs |= {f"{MEMORY}{side}": y, **found}
    models = {"read": keras.Model(inputs, outputs, name="read"), "step": step}
    if above:
        below = keras.Input((2 * first.forward_layer.units,), name="below")
        inputs = {"below": below}
        y, found = _through(above, below, inputs)
        models["read_above"] = keras.Model(inputs, {MEMORY: y, **found}, name="read_above")
    return models


def _through(layers, x, inputs):
    """One step through recurrent layers: (output, {state: value})."""
    outputs = {}
    for layer in layers:
        x, found = _cell_step(layer, x, f"{layer.name}_state", inputs)
        outputs |= found
    return x, outputs


def decoder(model, length, batch_size):
    """What `compiled_decoding` needs of a model.

    Args:
        model: as of `reader`.
        length: L.
        batch_size: B.

    Returns:
        (begin, step): `begin(source int32 [B, S]) -> state`; `step(numbers [N], state) -> (logits [N, V], state)`.
    """
    read, take = reader(model), step_model(model, None, length)
    empty = zero_state(model, batch_size, length)

    def begin(source):
        return {**read(source, training=False), **{name: tf.constant(value) for name, value in empty.items()}}

    def step(numbers, state):
        outputs = take({TOKEN: numbers[:, None], **state}, training=False)
        return outputs["logits"], {**state, **{name: outputs[name] for name in outputs if name != "logits"}}

    return begin, step
