"""Where the decoder looks: attention weights of some translations as pictures."""

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.common import reporting, tokens
from apps.translation import data, steps
from strategies import graph

NUM_PICTURES = 4
_LARGEST = 30  # tokens of a side, beyond which nothing can be read


def attention_figures(model, spec, sources, translations):
    """{name: figure} of the first translations that are short enough; none of a model without attention."""
    texts = [(a, b) for a, b in zip(sources, translations)
             if max(len(spec.source.encode(a)), len(spec.target.encode(b))) < _LARGEST and b][:NUM_PICTURES]
    if not texts or not steps.is_transformer(model) and not steps.looks_back(model):
        return {}
    # A translation that was cut at the model's length has no end there.
    rows = [[[*vocabulary.encode(text), tokens.END][:spec.max_length]
             for vocabulary, text in zip((spec.source, spec.target), pair)] for pair in texts]
    arrays = [keras.utils.pad_sequences([row[side] for row in rows], padding="post", dtype=np.int32) for side in (0, 1)]
    weights = attention_weights(model, data.as_inputs(*arrays))
    figure, families = reporting.new_figure(11, 10), reporting.font_families()
    for axes, row, shares in zip(figure.subplots(2, 2).flat, rows, weights):
        read, said = ([vocabulary.piece(number) for number in numbers]
                      for vocabulary, numbers in zip((spec.source, spec.target), row))
        axes.imshow(shares[:len(said), :len(read)], cmap="Greys", vmin=0, vmax=1)
        axes.set_xticks(range(len(read)), read, rotation=90, fontsize=7, fontfamily=families)
        axes.set_yticks(range(len(said)), said, fontsize=7, fontfamily=families)
    return {"attention": figure}


def attention_weights(model, inputs):
    """Weights [N, T, S] of the decoder's attention to the source; of a Transformer its last layer's, mean of the heads.

    Args:
        model: what `models.build` returned; not seq2seq.
        inputs: {"source": int [N, S], "target": int [N, T]}.
    """
    mask = tf.not_equal(inputs["source"], tokens.PADDING)
    layer = steps.layers_of(model, "decoder")[-1] if steps.is_transformer(model) else model.get_layer("attention")
    seen = next(node for node in graph.nodes(model) if node.layer is layer).keras_inputs[:2]
    query, memory = keras.Model(model.input, seen)(inputs, training=False)
    if steps.is_transformer(model):
        _, _, weights = layer(query, memory, memory_mask=mask, return_weights=True)
        return tf.reduce_mean(weights, axis=1).numpy()
    return layer(query, memory, mask=mask, return_weights=True)[1].numpy()
