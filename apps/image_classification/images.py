"""Reading and resizing images with Pillow: one rule for training and for prediction. Imports no TensorFlow.

The rule: the shorter side is resized to the wanted size and the centre is cut out. It is computed the other way round
(the central region is resized), which gives the same picture without an intermediate image of absurd length.
H W C: height, width, channels (1 grey, 3 red-green-blue) of the result, in pixels; values are uint8, 0..255.
"""

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".jpg", ".jpeg", ".png")
FOLDER_SIZE = 128
_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "F")


def target_size(config, height, width):
    """(height, width) that images get under `--image_size` and `--resolution_multiplier`.

    Args:
        config: the application's `Config`.
        height, width: size of the images as they are, which `--image_size=0` keeps.

    Raises:
        ValueError: when less than one pixel would be left.
    """
    if config.image_size:
        height = width = config.image_size
    size = tuple(round(config.resolution_multiplier * side) for side in (height, width))
    if min(size) < 1:
        raise ValueError(f"--resolution_multiplier={config.resolution_multiplier} leaves no pixel of images of "
                         f"{height}x{width}: expected at least 1x1. Use a larger multiplier or --image_size.")
    return size


def read_image(path, height, width, channels):
    """Reads one image file and resizes it.

    Transparency is dropped, 16-bit grey is scaled to 8 bits, and the camera's orientation tag is obeyed.

    Returns:
        (pixels, is_grey): uint8 [H, W, C], and whether the file itself has no colour.

    Raises:
        ValueError: when the file cannot be decoded to its end.
    """
    try:
        with Image.open(path) as file:
            # A large JPEG is decoded at 1/2, 1/4 or 1/8 as long as that is at least twice the wanted size: less work,
            # and the averaging of the decoder is that of the resize. Truncated files still fail.
            file.draft(None, (2 * width, 2 * height))
            file.load()
            image = ImageOps.exif_transpose(file)
            is_grey = image.mode in _GREY_MODES
            return _pixels(_cover(_to_mode(image, channels), height, width)), is_grey
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many types: OSError, SyntaxError, struct.error, ...
        raise ValueError(f"{path} is not a readable image: expected a complete JPEG or PNG file; received "
                         f"{type(error).__name__}: {error}. Replace or remove the file.") from None


def resize_images(images, height, width):
    """Resizes uint8 [N, h, w, C] to uint8 [N, H, W, C] by the rule of this module."""
    if images.shape[1:3] == (height, width):
        return images
    resized = np.empty((len(images), height, width, images.shape[3]), np.uint8)
    for row, image in enumerate(images):
        resized[row] = resize_image(image, height, width)
    return resized


def resize_image(image, height, width):
    """Resizes uint8 [h, w, C] to uint8 [H, W, C] by the rule of this module."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    return _pixels(_cover(picture, height, width))


def _to_mode(image, channels):
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
        image = Image.fromarray(np.round(np.asarray(image) / 257.0).clip(0, 255).astype(np.uint8))
    return image.convert("L" if channels == 1 else "RGB")


def _cover(image, height, width):
    scale = min(image.height / height, image.width / width)
    top, left = (image.height - scale * height) / 2, (image.width - scale * width) / 2
    box = (left, top, left + scale * width, top + scale * height)
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


def _pixels(image):
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
