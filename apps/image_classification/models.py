"""The zoo: classifiers made of a backbone and a head.

A model takes pixels 0..255, float [B, H, W, C], and gives logits, float32 [B, K]. Scaling by the training set's mean
and standard deviation is its first layer, so that an exported file takes pixels too.
"""

import re

import tf_keras as keras

from layers.backbones import alexnet, densenet, mobilenet, pyramidnet, resnet, resnet_v2, vgg, wide_resnet
from layers.checking import unknown_name
from layers.regularization import StatelessDropout

# name -> backbone; each module's table names the paper's. Families with numbers in their names also take others.
MODELS = {**resnet.BACKBONES, **resnet_v2.BACKBONES, **wide_resnet.BACKBONES, **pyramidnet.BACKBONES,
          **densenet.BACKBONES, **mobilenet.BACKBONES, **vgg.BACKBONES, **alexnet.BACKBONES}
PATTERNS = {"wrn_<depth>_<k>": r"wrn_(?P<depth>\d+)_(?P<widening>\d+)",
            "pyramidnet<depth>_a<alpha>[_bottleneck]":
                r"pyramidnet(?P<depth>\d+)_a(?P<alpha>\d+)(?P<use_bottleneck>_bottleneck)?",
            "densenet[_bc]_<depth>_<growth>": r"densenet(?P<use_bc>_bc)?_(?P<depth>\d+)_(?P<growth_rate>\d+)"}
FAMILIES = (wide_resnet.wide_resnet, pyramidnet.pyramidnet, densenet.densenet_cifar)
WITH_STEM = (*resnet.IMAGENET, *resnet_v2.IMAGENET, *densenet.IMAGENET_BLOCKS, *mobilenet.BACKBONES,
             *alexnet.BACKBONES)
WITH_DENSE_HEAD = (*vgg.BACKBONES, *alexnet.BACKBONES)
WITH_DROPOUT = ("wrn_", "densenet")  # inside the blocks; every model has it before the classifier


def build(config, spec):
    """The model that a configuration describes, in the current precision.

    Args:
        config: `Config`.
        spec: `data.ImageSpec`.

    Returns:
        an uncompiled functional `keras.Model`, [B, H, W, C] -> [B, K].

    Raises:
        ValueError: unknown model, or an option that it does not have.
    """
    images = keras.Input((spec.height, spec.width, spec.channels), name="images")
    scaled = keras.layers.Rescaling([1 / s for s in spec.std], [-m / s for m, s in zip(spec.mean, spec.std)],
                                    name="scale")(images)
    backbone = backbone_of(config, scaled)
    features = list(backbone.output.values())[-1]  # [B, h, w, C]
    model = keras.Model(images, head(config, features, spec.num_classes), name=config.model)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = config.batch_norm_momentum
    return model


def backbone_of(config, images):
    """The backbone that `config.model` names, on a symbolic tensor of scaled images [B, H, W, C]."""
    function, fixed = _lookup(config.model)
    options = {"width": config.width}
    if config.normalization != "default":
        options["normalization"] = config.normalization
    if config.model.startswith(WITH_DROPOUT):
        options |= {"dropout": config.dropout, "seed": _dropout_seed(config)}
    if config.model in WITH_STEM:
        options["stem"] = config.stem
    elif config.stem == "large":
        raise ValueError(f"--stem=large does not apply to --model={config.model}, which is made for small images. "
                         f"Leave --stem out or take one of {', '.join(WITH_STEM)}.")
    return function(**fixed, **options, inputs=images)


def head(config, features, num_classes):
    """Logits, float32 [B, K], from the last feature map [B, h, w, C]."""
    seed = _dropout_seed(config) + 10_000
    if config.model in WITH_DENSE_HEAD:
        units = max(1, round(4096 * config.width))
        x = vgg.vgg_head(features, num_classes, units=units, dropout=config.dropout, seed=seed)
    else:
        x = keras.layers.GlobalAveragePooling2D(name="pool")(features)
        if config.dropout:
            x = StatelessDropout(config.dropout, seed=seed, name="dropout")(x)
        x = keras.layers.Dense(num_classes, name="logits")(x)
    if keras.mixed_precision.global_policy().compute_dtype in ("float16", "bfloat16"):
        # A softmax over 16-bit logits loses the small probabilities.
        x = keras.layers.Activation("linear", dtype="float32", name="logits_float32")(x)
    return x


def _lookup(name):
    """(backbone function, arguments that the name fixes)."""
    if name in MODELS:
        return MODELS[name], {}
    for function, pattern in zip(FAMILIES, PATTERNS.values()):
        match = re.fullmatch(pattern, name)
        if match:
            return function, {k: int(v) if v and v.isdigit() else bool(v) for k, v in match.groupdict().items()}
    raise unknown_name("model", name, [*MODELS, *PATTERNS])


def _dropout_seed(config):
    # Layers of one model take consecutive seeds; runs with consecutive seeds must not share any.
    return config.seed * 100_000
