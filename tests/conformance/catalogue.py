"""Every public layer, block and backbone once, as a small classifier that can be trained.

Each property (saves and loads, compiles with XLA, exports, learns, ...) is one test file that runs over `CATALOGUE`;
`test_catalogue.py` fails when something public is missing here. All models take images [B, 8, 8, 1] or sequences
[B, 8, 8], and give [B, 4] logits.

Row i of `inputs(seed)` shows pattern i % 4 under noise, and `labels()` says so: a model that learns tells them apart.
"""

import ast
import collections.abc
import dataclasses
import functools
import importlib.util
import pathlib
import sys
import types

import numpy as np
import tf_keras as keras

from apps.common import tokens as tokens_lib
from apps.image_classification import models as image_models
from apps.image_classification.config import Config as ImageConfig
from apps.language_model import models as language_models
from apps.language_model.config import Config as LanguageConfig
from layers import (
    attention,
    dense_block,
    embedding,
    normalization,
    recurrent,
    regularization,
    residual,
    separable,
    transformer,
)
from layers.backbones import alexnet, densenet, mobilenet, pyramidnet, resnet, resnet_v2, vgg, wide_resnet

IMAGE_SHAPE = (8, 8, 1)
SEQUENCE_SHAPE = (8, 8)
BATCH_SIZE = 8
NUM_CLASSES = 4
MAX_PARAMETERS = 50_000
PACKAGES = ("layers", "strategies", "apps")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of the conformance matrix.

    Attributes:
        name: of the public thing, unique.
        build: () -> a built `keras.Model`, at most `MAX_PARAMETERS` parameters.
        inputs: seed -> float32 batch for it.
        tolerance: largest difference, over the largest absolute value, that two ways to run the same float32 weights
            may show.
        family: entries of a family share their code; the first stands for all where a run has to be short.
        source: the modules of the suite that it is made of, to see whether a kept result is stale.
        unsupported: {name of a property in `properties.PROPERTIES`: a sentence why}.
    """

    name: str
    build: collections.abc.Callable[[], keras.Model]
    inputs: collections.abc.Callable[[int], np.ndarray]
    tolerance: float
    family: str
    source: tuple[str, ...]
    unsupported: dict[str, str] = dataclasses.field(default_factory=dict)


def images(seed):
    """[BATCH_SIZE, 8, 8, 1] float32: stripes across, stripes down, a checkerboard or a bright half, under noise."""
    rows, columns = np.indices(IMAGE_SHAPE[:2])
    patterns = np.stack([rows % 2, columns % 2, (rows + columns) % 2, rows < 4]) * 2.0 - 1.0  # [4, 8, 8]
    noise = np.random.default_rng(seed).normal(scale=0.3, size=(BATCH_SIZE, *IMAGE_SHAPE))
    return (patterns[labels()][..., None] + noise).astype(np.float32)


def sequences(seed):
    """[BATCH_SIZE, 8, 8] float32: the rows of the `images` as time steps."""
    return images(seed)[..., 0]


def tokens(seed):
    """[BATCH_SIZE, 8] int32: the brightness of each row of the `images` as one of 12 tokens; the last two are padding.

    Classes differ in which rows are bright, and, by the first column, in how bright they begin.
    """
    marks = np.clip(np.round(2 * sequences(seed).mean(axis=2) + sequences(seed)[..., 0]), -4, 6) + 5
    return np.where(np.arange(8) < 6, marks, 0).astype(np.int32)


def labels():
    """[BATCH_SIZE] int: the classes of the rows of `images` and `sequences`."""
    return np.arange(BATCH_SIZE) % NUM_CLASSES


def settle(model, inputs):
    """Gives every batch normalisation statistics that suit `inputs`, as after training, and returns the model.

    With the initial ones (mean 0, variance 1) the sums of a residual network grow by sqrt(2) a block at inference:
    after 50 blocks float16 cannot hold them. To the batch's variance its mean over the channels is added; alone it
    would let channels that hardly vary blow up what is rounding.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0  # the new statistics are the batch's
    model(inputs, training=True)
    for layer, momentum in zip(norms, momenta):
        layer.momentum = momentum
        variance = layer.moving_variance.numpy()
        layer.moving_variance.assign(variance + variance.mean())
    return model


def around_layer(make, name, channels=16):
    """Images, 3x3 convolution to `channels`, `make(x)`, ReLU, mean over the positions, 4 logits."""
    inputs = keras.Input(IMAGE_SHAPE, name="images")
    # Without bias: before an instance norm its gradient is 0, that is rounding, which no two ways to run share.
    x = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False, kernel_initializer="he_normal",
                            name="before")(inputs)
    x = keras.layers.ReLU(name="after")(make(x))  # an instance norm's mean over the positions is constant without it
    return keras.Model(inputs, _classify(x), name=name)


def around_sequence(make, name, units=16):
    """Sequences, a dense layer on each step, `make(x)`, ReLU, mean over time, 4 logits."""
    inputs = keras.Input(SEQUENCE_SHAPE, name="frames")
    x = keras.layers.Dense(units, name="before")(inputs)
    x = keras.layers.ReLU(name="after")(make(x))
    return keras.Model(inputs, _classify(x), name=name)


def backbone_classifier(backbone, **options):
    """A backbone for `IMAGE_SHAPE`, mean over the positions of its last stage, 4 logits."""
    model = backbone(input_shape=IMAGE_SHAPE, **options)
    return keras.Model(model.input, _classify(list(model.output.values())[-1]), name=model.name)


def vgg_with_head():
    """VGG-16 with batch normalisation and the paper's classifier, 4 logits."""
    model = vgg.vgg16(IMAGE_SHAPE, width=1 / 32, normalization="batch")
    logits = vgg.vgg_head(model.output["C5"], NUM_CLASSES, units=32, dropout=0.2)
    return keras.Model(model.input, logits, name="vgg_head")


def image_classifier():
    """A model of the image classification zoo as its `build` makes it, with scaling and dropout."""
    rows, columns, channels = IMAGE_SHAPE
    spec = types.SimpleNamespace(height=rows, width=columns, channels=channels, num_classes=NUM_CLASSES, mean=(0.1,),
                                 std=(0.5,))
    return image_models.build(ImageConfig(workdir="unused", model="wrn_10_2", width=0.25, dropout=0.1), spec)


def around_tokens():
    """Tokens, their embedding, a dense layer, logits of tokens by the same table, their mean over time, 4 logits."""
    inputs = keras.Input((8,), dtype="int32", name="tokens")
    table = embedding.TokenEmbedding(12, 16, name="table")
    x = keras.layers.Dense(16, "relu", name="dense")(table(inputs))
    return keras.Model(inputs, _classify(table(x, as_logits=True)), name="TokenEmbedding")


def around_mask():
    """Tokens, their embedding, a decoder's layer that looks at all but padding, its mean over time, 4 logits."""
    inputs = keras.Input((8,), dtype="int32", name="tokens")
    x = embedding.TokenEmbedding(12, 16, name="table")(inputs)
    layer = transformer.DecoderLayer(2, 32, 0.1, seed=1, **_NO_BIAS, name="decoder")
    x = layer(x, x, memory_mask=embedding.PaddingMask(name="mask")(inputs))
    return keras.Model(inputs, _classify(x), name="PaddingMask")


def text_classifier():
    """A language model of the application with its logits' mean over time, 4 logits."""
    vocabulary = tokens_lib.Pieces("characters", "abcdefgh")
    config = LanguageConfig(workdir="unused", model="transformer", units=16, num_heads=2, num_layers=1, length=8)
    model = language_models.build(config, types.SimpleNamespace(vocabulary=vocabulary, length=8))
    return keras.Model(model.input, _classify(model.output, "classes"), name="language_model")


def _classify(features, name="logits"):
    pooling = keras.layers.GlobalAveragePooling1D if features.shape.rank == 3 else keras.layers.GlobalAveragePooling2D
    x = pooling(name="mean")(features)
    return keras.layers.Dense(NUM_CLASSES, name=name)(x)


def sources(*modules):
    """The names of these modules and of all modules of the suite that they import, directly or not."""
    found, waiting = set(), [module.__name__ for module in modules]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(_imports(name))
    return tuple(sorted(found))


@functools.cache
def _imports(module):
    """Modules of the suite that a module imports."""
    imported = set()
    for node in ast.walk(ast.parse(pathlib.Path(importlib.util.find_spec(module).origin).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):  # of a package: modules, or names that it defines itself
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return [name for name in imported if name.split(".")[0] in PACKAGES and _is_module(name)]


def _is_module(name):
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # its parent is a module, not a package
        return False
    return spec is not None and spec.origin is not None and spec.origin.endswith(".py")


def _layer(family, module, name, make, **options):
    return Entry(name, functools.partial(around_layer, make, name, **options), images, 1e-4, family, sources(module))


def _sequence(family, module, name, make, **options):
    build = functools.partial(around_sequence, make, name)
    return Entry(name, build, sequences, 1e-4, family, sources(module), **options)


def _block(family, function, **options):
    name = function.__name__
    return _layer(family, sys.modules[function.__module__], name, functools.partial(function, **options, name=name))


def _backbone(family, module, name, backbone, **options):
    build = functools.partial(backbone_classifier, backbone, **options)
    return Entry(name, build, images, 1e-4, family, sources(module))


def _variants(family, module, widths):
    """An entry for each {key of the module's table: width}; the width brings it below `MAX_PARAMETERS`."""
    return [_backbone(family, module, name, module.BACKBONES[name], width=width) for name, width in widths.items()]


def _cell(cell, **options):
    return lambda x: keras.layers.RNN(cell(16), return_sequences=True, name="rnn", **options)(x)


# The bias of the keys adds the same to all scores of a query: its gradient is 0, that is rounding.
_NO_BIAS = {"use_bias": False}


def _decoder(x):
    layer = transformer.DecoderLayer(2, 32, 0.1, attention_dropout=0.1, seed=1, **_NO_BIAS, name="decoder")
    return layer(x, x.node.layer.input)  # the memory are the frames themselves


# Two pairs of leaves, their parents, the parents' parent, and a root with one child.
_TREE = [[-1, -1]] * 4 + [[0, 1], [2, 3], [4, 5], [6, -1]]
_LAST_TWO_HIDDEN = [[True] * 6 + [False] * 2]
_NO_LOOPS = {"mesh": "DTensor has no rules for loops over time steps; strategies refuse them and name the pipeline."}


def _normalization(kind):
    return lambda x: normalization.normalization(kind, name="norm")(x)


CATALOGUE = (
    _layer("normalization", normalization, "GroupNormalization",
           lambda x: normalization.GroupNormalization(4, name="norm")(x)),
    _layer("normalization", normalization, "batch_normalization", _normalization("batch")),
    _layer("normalization", normalization, "layer_normalization", _normalization("layer")),
    _layer("normalization", normalization, "instance_normalization", _normalization("instance"), channels=32),
    _layer("normalization", normalization, "group_normalization", _normalization("group"), channels=64),
    _layer("dropout", regularization, "StatelessDropout",
           lambda x: regularization.StatelessDropout(0.2, seed=1, name="dropout")(x)),

    _block("residual", residual.basic, filters=16),
    _block("residual", residual.bottleneck, filters=4, strides=2),
    _block("residual", residual.preactivation_basic, filters=24, strides=2, shortcut="pad"),
    _block("residual", residual.preactivation_bottleneck, filters=4, strides=2, use_bias=True),
    _block("residual", residual.wide, filters=24, strides=2, dropout=0.2, seed=1),
    _block("residual", residual.pyramid_basic, filters=24, strides=2),
    _block("residual", residual.pyramid_bottleneck, filters=6, strides=2),

    *_variants("resnet", resnet, {
        "resnet20": 1 / 4, "resnet32": 1 / 8, "resnet44": 1 / 8, "resnet56": 1 / 8, "resnet110": 1 / 8,
        "resnet18": 1 / 16, "resnet34": 1 / 32, "resnet50": 1 / 32, "resnet101": 1 / 64, "resnet152": 1 / 64}),
    *_variants("resnet", resnet_v2, {
        "preact_resnet20": 1 / 4, "preact_resnet32": 1 / 8, "preact_resnet44": 1 / 8, "preact_resnet56": 1 / 8,
        "preact_resnet110": 1 / 8, "resnet50_v2": 1 / 32, "resnet101_v2": 1 / 64, "resnet152_v2": 1 / 64}),
    _backbone("wide_resnet", wide_resnet, "wide_resnet", wide_resnet.wide_resnet, depth=10, widening=2, width=1 / 4),
    *_variants("wide_resnet", wide_resnet, {
        "wrn_16_1": 1 / 4, "wrn_16_2": 1 / 8, "wrn_16_4": 1 / 8, "wrn_16_8": 1 / 16, "wrn_22_8": 1 / 32,
        "wrn_28_10": 1 / 32, "wrn_40_4": 1 / 16}),
    _backbone("pyramidnet", pyramidnet, "pyramidnet", pyramidnet.pyramidnet, depth=8, alpha=12, width=1 / 2),
    *_variants("pyramidnet", pyramidnet, {
        "pyramidnet20_a24": 1 / 4, "pyramidnet110_a48": 1 / 8, "pyramidnet110_a84": 1 / 16,
        "pyramidnet110_a270": 1 / 32, "pyramidnet164_a48_bottleneck": 1 / 8, "pyramidnet164_a84_bottleneck": 1 / 16,
        "pyramidnet164_a270_bottleneck": 1 / 32, "pyramidnet200_a240_bottleneck": 1 / 32,
        "pyramidnet272_a200_bottleneck": 1 / 32}),
    _backbone("densenet", densenet, "densenet_cifar", densenet.densenet_cifar, depth=10, growth_rate=6, dropout=0.1),
    _block("densenet", dense_block.dense_block, num_layers=3, growth_rate=4, dropout=0.1, seed=1),
    _block("densenet", dense_block.dense_layer, growth_rate=4, use_bottleneck=False),
    _block("densenet", dense_block.transition, compression=0.5),
    *_variants("densenet", densenet, {
        "densenet_bc_40_12": 1 / 4, "densenet_bc_100_12": 1 / 16, "densenet_bc_190_40": 1 / 32,
        "densenet_bc_250_24": 1 / 32, "densenet_40_12": 1 / 16, "densenet121": 1 / 16, "densenet169": 1 / 32,
        "densenet201": 1 / 32}),
    *_variants("mobilenet", mobilenet, {"mobilenet_v1": 1 / 16, "mobilenet_v2": 1 / 10}),
    _block("mobilenet", separable.depthwise_separable, filters=12, strides=2),
    _block("mobilenet", separable.inverted_residual, filters=16, expansion=4),
    *_variants("vgg", vgg, {"vgg16": 1 / 20}),
    *_variants("vgg", alexnet, {"alexnet": 1 / 20}),
    Entry("vgg_head", vgg_with_head, images, 1e-4, "vgg", sources(vgg)),
    _sequence("recurrent", recurrent, "PeepholeLSTMCell", _cell(recurrent.PeepholeLSTMCell), unsupported=_NO_LOOPS),
    _sequence("recurrent", recurrent, "LayerNormLSTMCell", _cell(recurrent.LayerNormLSTMCell), unsupported=_NO_LOOPS),
    _sequence("recurrent", recurrent, "TreeLSTM",
              lambda x: recurrent.TreeLSTM(16, name="tree")(x, children=_TREE), unsupported=_NO_LOOPS),
    _sequence("attention", attention, "MultiHeadAttention",
              lambda x: attention.MultiHeadAttention(2, 8, 0.1, seed=1, **_NO_BIAS, name="attention")(x, x)),
    _sequence("attention", attention, "AdditiveAttention",
              lambda x: attention.AdditiveAttention(16, name="attention")(x, x, mask=_LAST_TWO_HIDDEN)),
    _sequence("attention", attention, "MultiplicativeAttention",
              lambda x: attention.MultiplicativeAttention(name="attention")(x, x, mask=_LAST_TWO_HIDDEN)),
    _sequence("transformer", transformer, "EncoderLayer",
              lambda x: transformer.EncoderLayer(2, 32, 0.1, seed=1, **_NO_BIAS, name="encoder")(
                  x, use_causal_mask=True)),
    _sequence("transformer", transformer, "DecoderLayer", _decoder),
    _sequence("transformer", transformer, "PositionalEncoding",
              lambda x: transformer.PositionalEncoding("learned", 8, name="positions")(x)),
    Entry("TokenEmbedding", around_tokens, tokens, 1e-4, "embedding", sources(embedding),
          dict.fromkeys(("replicas", "stages", "processes"), "The table has two gradients, one of them sparse, which "
                        "are added up in another order: equal to rounding, not bit for bit.")),
    Entry("PaddingMask", around_mask, tokens, 1e-4, "transformer", sources(embedding, transformer),
          dict.fromkeys(("replicas", "stages"), "The rows of the table's sparse gradient are added up in another "
                        "order, equal to rounding only.")),
    Entry("language_model", text_classifier, tokens, 1e-4, "transformer", sources(language_models),
          {"xla": "The gradient of a key's bias is 0 but for rounding, which is another in each way to run.",
           **dict.fromkeys(("replicas", "processes"), "In a pre-norm layer three gradients are added up in another "
                           "order, equal to rounding only.")}),
    Entry("image_classification", image_classifier, images, 1e-4, "image_classification", sources(image_models)),
)

# Public names that cannot have an entry, and why.
WITHOUT_ENTRY = {
    "Stepwise": "Its model has a cache among its inputs; tests/layers/test_transformer.py exports one with 8 bits.",
    "densenet_100_12": "With one filter a layer it still has 66,631 parameters, since 96 layers are concatenated; "
                       "densenet_40_12 runs the same code over 36.",
}
