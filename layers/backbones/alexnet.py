"""AlexNet (Krizhevsky, Sutskever & Hinton 2012) in one tower, pooling before normalisation as CaffeNet has it.

Two differences from the paper: no groups of convolutions, which were there to share two graphics cards (so the form of
Krizhevsky 2014, arXiv 1404.5997, with the 2012 widths), and no local response normalisation, which brings nothing
(Simonyan & Zisserman 2015, section 4.1). The classifier is `layers.backbones.vgg.vgg_head`.

Stages: C3, C4, C5, after the three max poolings, stride 8, 16, 32 with the large stem, 2, 4, 8 with the small one.
"""

import tf_keras as keras

from layers.backbones.building import choose_stem, image_input, scale_filters, stages_model
from layers.normalization import normalization as normalization_layer

# (filters, kernel size, followed by pooling); the first convolution is the stem.
CONVOLUTIONS = ((96, None, True), (256, 5, True), (384, 3, False), (384, 3, False), (256, 3, True))
STEMS = {"large": {"kernel_size": 11, "strides": 4, "padding": "valid"},
         "small": {"kernel_size": 5, "strides": 1, "padding": "same"}}


def alexnet(input_shape=None, *, inputs=None, normalization=None, stem="auto", width=1.0):
    """The convolutions of AlexNet; 62,378,344 parameters with `vgg_head` at 227 x 227 and 1000 classes.

    Args:
        input_shape: (H, W, C) of scaled images; H and W may be None.
        inputs: instead of `input_shape`, a Keras tensor [B, H, W, C].
        normalization: None, or a kind of `layers.normalization`, put between each convolution (then without bias) and
            its ReLU.
        stem: "large" (11x11, stride 4), "small" (5x5, stride 1), or "auto": small up to 64 pixels.
        width: multiplies all filter counts.

    Returns:
        A `keras.Model` from [B, H, W, C] to {"C3": ..., "C5": ...}.

    Raises:
        ValueError: input, stem, width or normalization are not as above.
    """
    images = image_input(input_shape, inputs)
    first = STEMS[choose_stem(stem, images)]
    x, stages = images, {}
    for i, (filters, kernel_size, has_pool) in enumerate(CONVOLUTIONS, start=1):
        options = first if i == 1 else {"kernel_size": kernel_size, "padding": "same"}
        x = keras.layers.Conv2D(scale_filters(filters, width), **options, use_bias=normalization is None,
                                kernel_initializer="he_normal", name=f"conv{i}")(x)
        if normalization is not None:
            x = normalization_layer(normalization, name=f"conv{i}_norm")(x)
        x = keras.layers.ReLU(name=f"conv{i}_relu")(x)
        if has_pool:
            known = [size for size in x.shape[1:3] if size is not None]
            padding = "same" if known and min(known) < 3 else "valid"
            x = keras.layers.MaxPooling2D(3, strides=2, padding=padding, name=f"pool{i}")(x)
            stages[f"C{3 + len(stages)}"] = x
    return stages_model(images, stages, name="alexnet")


BACKBONES = {"alexnet": alexnet}
