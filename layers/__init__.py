"""Keras layers and blocks. They know nothing of applications, flags, devices or strategies."""

from layers import convolution_gradient

convolution_gradient.install()
