"""VGG-16 (Simonyan & Zisserman 2015, arXiv 1409.1556, table 1, column D): 13 convolutions, and 3 dense layers.

Stages: C1 ... C5, after the max pooling of each group of convolutions, stride 2, 4, 8, 16, 32. Detectors that want a
map before its pooling take the layer by name: `model.get_layer("conv4_3_relu").output` has stride 8.
"""

import tf_keras as keras

from layers.backbones.building import image_input, scale_filters, stages_model
from layers.normalization import normalization as normalization_layer
from layers.regularization import StatelessDropout

# Table 1, column D: (filters, number of 3x3 convolutions) of each group.
VGG16_GROUPS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def vgg16(input_shape=None, *, inputs=None, normalization=None, width=1.0):
    """The convolutions of VGG-16: 14,714,688 parameters; 138,357,544 with `vgg_head` at 224 x 224 and 1000 classes.

    Layer for layer what `keras.applications` builds. There is one stem only, since the first convolutions have stride 1
    anyway. The pooling halves the map, rounding down, and leaves a map that is one pixel high or wide at that size: 8 x
    8 images have their last two stages at 1 x 1.

    Args:
        input_shape: (H, W, C) of scaled images; H and W may be None.
        inputs: instead of `input_shape`, a Keras tensor [B, H, W, C].
        normalization: None as in the paper, or a kind of `layers.normalization`, put between each convolution (then
            without bias) and its ReLU.
        width: multiplies all filter counts.

    Returns:
        A `keras.Model` from [B, H, W, C] to {"C1": ..., "C5": ...}.

    Raises:
        ValueError: input, width or normalization are not as above.
    """
    images = image_input(input_shape, inputs)
    x, stages = images, {}
    for stage, (filters, num_convolutions) in enumerate(VGG16_GROUPS, start=1):
        for i in range(1, num_convolutions + 1):
            x = _convolution(x, scale_filters(filters, width), normalization, name=f"conv{stage}_{i}")
        padding = "same" if 1 in x.shape[1:3] else "valid"
        x = keras.layers.MaxPooling2D(2, strides=2, padding=padding, name=f"pool{stage}")(x)
        stages[f"C{stage}"] = x
    return stages_model(images, stages, name="vgg16")


def vgg_head(features, num_classes, units=4096, dropout=0.5, seed=0):
    """The paper's classifier: flatten, two dense layers with ReLU and dropout, logits.

    Args:
        features: [B, H, W, C] with known H and W, C5 of `vgg16`.
        num_classes: K.
        units: of the two hidden layers.
        dropout: rate after each of them (section 3.1); 0 adds no layer.
        seed: of the dropout masks.

    Returns:
        [B, K] logits.

    Raises:
        ValueError: the size of the map is not known.
    """
    if None in features.shape[1:]:
        raise ValueError(f"vgg_head flattens its input and needs a map of known size; received {features.shape}. Build "
                         "the backbone with a known input_shape, or pool globally instead.")
    x = keras.layers.Flatten(name="flatten")(features)  # [B, H W C]
    for i in (1, 2):
        x = keras.layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=f"fc{i}")(x)
        if dropout:
            x = StatelessDropout(dropout, seed=seed + i, name=f"fc{i}_dropout")(x)
    return keras.layers.Dense(num_classes, name="logits")(x)


def _convolution(x, filters, normalization, name):
    x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=normalization is None, kernel_initializer="he_normal",
                            name=name)(x)
    if normalization is not None:
        x = normalization_layer(normalization, name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


BACKBONES = {"vgg16": vgg16}
