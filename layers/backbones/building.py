"""What every backbone does at its two ends: take an image tensor, choose a stem, return the stages as one model."""

import tf_keras as keras

from layers.checking import unknown_name

STEMS = ("auto", "small", "large")
LARGEST_SMALL_IMAGE = 64  # pixels on the shorter side


def image_input(input_shape, inputs):
    """The image tensor [B, H, W, C] that a backbone starts from: `inputs`, or a new input of `input_shape`.

    Args:
        input_shape: (H, W, C), or None when `inputs` is given. H and W may be None, C not.
        inputs: a symbolic Keras tensor [B, H, W, C], or None.

    Raises:
        ValueError: both or neither are given, or the shape is not (H, W, C) with a known C.
    """
    if (input_shape is None) == (inputs is None):
        raise ValueError("A backbone takes input_shape=(H, W, C) or inputs=<Keras tensor>, one of the two; received "
                         f"input_shape={input_shape!r} and inputs={inputs!r}.")
    shape = tuple(inputs.shape[1:] if input_shape is None else input_shape)
    if len(shape) != 3 or shape[-1] is None or any(size is not None and size < 1 for size in shape):
        raise ValueError("A backbone needs images of shape (H, W, C), H and W at least 1 or None, C known; received "
                         f"{shape}. Add a channel axis to grey images.")
    return keras.Input(shape, name="images") if inputs is None else inputs


def choose_stem(stem, images):
    """"small" or "large": `stem` itself, or for "auto" small when the shorter side is known and at most 64 pixels.

    Raises:
        ValueError: unknown stem.
    """
    if stem not in STEMS:
        raise unknown_name("stem", stem, STEMS)
    if stem != "auto":
        return stem
    sizes = [size for size in images.shape[1:3] if size is not None]
    return "small" if sizes and min(sizes) <= LARGEST_SMALL_IMAGE else "large"


def check_width(width):
    """Raises ValueError unless the multiplier of the filter counts is above 0."""
    if not width > 0:
        raise ValueError(f"width multiplies the filter counts and must be above 0; received {width!r}. Pass 1.0 for "
                         "the paper's network.")


def scale_filters(filters, width):
    """`filters` times `width`, rounded, at least 1. Raises ValueError unless width is above 0."""
    check_width(width)
    return max(1, round(filters * width))


def stages_model(images, stages, name):
    """A model from the source of `images` (itself, or what it was computed from) to the dict of stage maps.

    Args:
        images: what `image_input` returned.
        stages: {"C2": tensor, ...} in order of depth.
        name: name of the model.
    """
    sources = keras.utils.get_source_inputs(images)
    return keras.Model(sources[0] if len(sources) == 1 else sources, stages, name=name)
