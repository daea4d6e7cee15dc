"""Removed channels: a smaller model that computes the same where what was removed was zero."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from layers.backbones import densenet, mobilenet, pyramidnet, resnet, resnet_v2, vgg, wide_resnet
from strategies.compression import structured
from strategies.compression.structured import Channels, FilterPruning
from tests.conformance import catalogue

MODELS = {
    "resnet20": lambda: catalogue.backbone_classifier(resnet.BACKBONES["resnet20"], width=0.5),
    "resnet50": lambda: catalogue.backbone_classifier(resnet.BACKBONES["resnet50"], width=1 / 16),
    "preact_resnet20": lambda: catalogue.backbone_classifier(resnet_v2.BACKBONES["preact_resnet20"], width=0.5),
    "wrn_16_2": lambda: catalogue.backbone_classifier(wide_resnet.BACKBONES["wrn_16_2"], width=0.25),
    "pyramidnet": lambda: catalogue.backbone_classifier(pyramidnet.pyramidnet, depth=14, alpha=20),
    "densenet": lambda: catalogue.backbone_classifier(densenet.densenet_cifar, depth=16, growth_rate=8, use_bc=True),
    "mobilenet_v1": lambda: catalogue.backbone_classifier(mobilenet.mobilenet_v1, width=1 / 8),
    "mobilenet_v2": lambda: catalogue.backbone_classifier(mobilenet.mobilenet_v2, width=1 / 4),
    "vgg16": lambda: catalogue.backbone_classifier(vgg.BACKBONES["vgg16"], width=1 / 8, normalization="batch"),
    "vgg_head": catalogue.vgg_with_head,
    "instance": lambda: catalogue.backbone_classifier(resnet.BACKBONES["resnet20"], width=0.25,
                                                      normalization="instance"),
}
# Those whose blocks another one has too are left to `make conformance`.
EACH = [pytest.param(name, marks=pytest.mark.conformance) if name in (
    "preact_resnet20", "wrn_16_2", "mobilenet_v1", "vgg16", "instance") else name for name in MODELS]


def settled(name):
    """A model with random statistics, gamma and beta."""
    keras.utils.set_random_seed(0)
    model, noise = MODELS[name](), np.random.default_rng(0)
    for weight in model.weights:
        kind = weight.name.split("/")[-1]
        if kind.startswith(("gamma", "moving_variance")):
            weight.assign(noise.uniform(0.5, 1.5, weight.shape))
        elif kind.startswith(("beta", "bias", "moving_mean")):
            weight.assign(noise.normal(0, 0.1, weight.shape))
    return model


def silence(model, channels, roots):
    """Zeroes the filters of these channels, and gamma, beta of what normalises them: their value is 0 everywhere."""
    roots = set(roots)
    for layer in model.layers:
        if layer.name not in channels._calls:
            continue
        gone = np.array([channels.root(c) in roots for c in channels._calls[layer.name][1]], bool)
        weights = layer.get_weights()
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)) and not isinstance(
                layer, keras.layers.DepthwiseConv2D):
            weights[0][..., gone] = 0
            if layer.use_bias:
                weights[1][gone] = 0
        elif weights and "norm" in layer.name:
            weights[0][gone] = weights[1][gone] = 0
        layer.set_weights(weights)


@pytest.mark.parametrize("name", EACH)
def test_removing_what_is_zero_changes_nothing(name):
    model, x = settled(name), catalogue.images(0)
    channels = Channels(model)
    noise = np.random.default_rng(1)
    roots = [root for members in channels.prunable_sets()
             for root in noise.choice(members, len(members) // 3, replace=False)]
    assert roots
    silence(model, channels, roots)
    smaller = channels.without(roots)
    expected = model(x).numpy()
    np.testing.assert_allclose(smaller(x), expected, atol=1e-5 * np.abs(expected).max())
    assert smaller.count_params() < model.count_params()


@pytest.mark.parametrize("name", EACH)
def test_a_third_of_the_channels_leaves_about_half_of_the_weights(name):
    model, x = settled(name), catalogue.images(0)
    before = model(x).numpy()
    smaller = FilterPruning(share=0.3).prepare(model)
    ratio = smaller.count_params() / model.count_params()
    assert 0.35 < ratio < 0.7
    assert smaller(x).shape == before.shape and np.isfinite(smaller(x)).all()
    np.testing.assert_array_equal(model(x), before)
    assert [layer.name for layer in smaller.layers] == [layer.name for layer in model.layers]


def test_the_smaller_model_saves_loads_and_trains(tmp_path):
    smaller, x = FilterPruning(share=0.5).prepare(settled("resnet20")), catalogue.images(0)
    smaller.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(x), smaller(x))
    loaded.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = loaded.fit(x, catalogue.labels(), epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_channels_of_a_residual_stage_go_together():
    model = settled("resnet20")
    channels = Channels(model)
    sets = {tuple(sorted({layer.name for layer in channels._makers()
                          for c in channels._calls[layer.name][1] if channels.root(c) in set(members)}))
            for members in channels.prunable_sets()}
    stage = next(names for names in sets if len(names) > 3)
    # The shortcuts pad with zeros: the first channels are one sum from the stem to the end.
    assert all(name == "conv1_conv" or name.endswith("_2_conv") for name in stage), sets


@pytest.mark.parametrize("ranking", structured.RANKINGS)
def test_the_least_important_channel_goes(ranking):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, name="conv", use_bias=False)(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm")(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(x))
    weak = 2
    if ranking == "scale":
        model.get_layer("norm").gamma.assign([1.0, 2.0, 0.1, 0.5])
    else:
        kernel = model.get_layer("conv").kernel.numpy()
        kernel[..., weak] *= 0.01
        model.get_layer("conv").kernel.assign(kernel)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if ranking == "taylor":  # and what the output does not read is worth nothing, whatever its weights
        weak = 1
        dense = model.get_layer("logits").kernel.numpy()
        dense[weak] = 0
        model.get_layer("logits").kernel.assign(dense)
    options = {"batches": [(catalogue.images(0), catalogue.labels())], "loss": loss} if ranking == "taylor" else {}
    smaller = FilterPruning(share=0.25, ranking=ranking, **options).prepare(model)
    kept = [i for i in range(4) if i != weak]
    np.testing.assert_array_equal(smaller.get_layer("conv").kernel, model.get_layer("conv").kernel.numpy()[..., kept])
    np.testing.assert_array_equal(smaller.get_layer("logits").kernel, model.get_layer("logits").kernel.numpy()[kept])


def test_by_scale_only_channels_with_a_gamma_go():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, name="with")(inputs))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(6, 3, name="without")(x))
    model = keras.Model(inputs, keras.layers.Dense(4)(x))
    smaller = FilterPruning(share=0.5, ranking="scale").prepare(model)
    assert [smaller.get_layer(name).filters for name in ("with", "without")] == [2, 6]
    with pytest.raises(ValueError, match='no channels that go through a batch normalisation.*ranking="l1"'):
        FilterPruning(ranking="scale").prepare(keras.Sequential([keras.layers.Dense(4, input_shape=(3,)),
                                                                 keras.layers.Dense(2)]))


def test_taylor_is_gradient_times_weight():
    model, loss = settled("resnet20"), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    x, y = catalogue.images(0), catalogue.labels()
    kernel = model.get_layer("logits").kernel
    with tf.GradientTape() as tape:
        value = loss(y, model(x, training=False))
    expected = (tape.gradient(value, kernel).numpy() * kernel.numpy()).sum(axis=0) ** 2
    found = structured._taylor(model, [model.get_layer("logits")], [(x, y)], loss)
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-5)


def test_what_counts_channels_keeps_them():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, name="fixed")(inputs)
    x = keras.layers.LayerNormalization()(x)
    x = keras.layers.Conv2D(8, 3, name="free")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(4)(x))
    smaller = FilterPruning(share=0.5).prepare(model)
    assert smaller.get_layer("fixed").filters == 8 and smaller.get_layer("free").filters == 4


def test_flatten_repeats_channels():
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(keras.layers.Conv2D(6, 3, activation="relu", name="conv")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))
    channels = Channels(model)
    kernel = model.get_layer("conv").kernel.numpy()
    kernel[..., 4] = 0
    model.get_layer("conv").kernel.assign(kernel)
    root = channels.root(channels._calls["conv"][1][4])
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 1)).astype(np.float32)
    np.testing.assert_allclose(channels.without([root])(x), model(x), atol=1e-6)


@pytest.mark.parametrize("options, message", [
    ({"share": 1.0}, "share must be at least 0 and below 1"), ({"ranking": "l2"}, "Unknown ranking 'l2'"),
    ({"minimum": 0}, "minimum must be at least 1"), ({"ranking": "taylor"}, "needs batches")])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        FilterPruning(**options)


def test_models_whose_graph_is_unknown_are_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="only from a functional model"):
        Channels(Own())
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="no channel that can be removed"):
        Channels(keras.Model(inputs, keras.layers.Dense(3)(inputs)))
