"""Mends TensorFlow's gradient of narrow, strided 1x1 convolutions on processors; `layers.residual` does it.

oneDNN's kernel for the gradient of their weights writes past its workspace where a convolution has fewer input channels
than the kernel's block of 8 or 16: the gradient is wrong in most calls, and the heap is damaged, which ends the process
now and then (github.com/uxlfoundation/oneDNN, issue 6035; in TensorFlow 2.21 and before). Such a convolution looks at
every s-th pixel only, so its gradient is that of the convolution of those pixels without a stride, which is sound.
"""

import tensorflow as tf
from tensorflow.python.framework import ops

_LARGEST_BLOCK = 16
_REGISTERED = ops.gradient_registry._registry["Conv2D"]  # a gradient can be registered once only
_plain_gradient = _REGISTERED["type"]


def install():
    """Puts `conv2d_gradient` in the place of TensorFlow's own. Twice is as good as once."""
    _REGISTERED["type"] = conv2d_gradient


def conv2d_gradient(op, gradient):
    """Gradients of a `Conv2D` operation with respect to its images [B, H, W, C] and filters [h, w, C, F]."""
    images, filters = op.inputs
    if not _is_concerned(op, filters):
        return _plain_gradient(op, gradient)
    strides = op.get_attr("strides")
    of_images = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(images), filter=filters, out_backprop=gradient, strides=strides,
        padding=op.get_attr("padding"))
    pixels = tf.nn.max_pool2d(images, 1, strides[1:3], "VALID")  # the maximum of one pixel
    of_filters = tf.raw_ops.Conv2DBackpropFilter(
        input=pixels, filter_sizes=tf.shape(filters), out_backprop=gradient, strides=[1, 1, 1, 1], padding="VALID")
    return [of_images, of_filters]


def _is_concerned(op, filters):
    if filters.shape.rank is None or tuple(filters.shape[:2]) != (1, 1) or max(op.get_attr("strides")) == 1:
        return False
    channels = filters.shape[2]
    return ((channels is None or channels < _LARGEST_BLOCK)
            and op.get_attr("data_format") == b"NHWC" and op.get_attr("padding") in (b"SAME", b"VALID"))
