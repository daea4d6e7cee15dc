"""Weight names that survive saving."""

import tensorflow as tf


class NamedOnLoading:
    """Mixin for layers with weights of their own; put it before `keras.layers.Layer`.

    Keras calls `build_from_config` on loading outside the layer's name scope, and its weights would be called "gamma"
    instead of "norm/gamma": checkpoints and optimizer slots, which go by name, would not find them.
    """

    def build_from_config(self, config):
        with tf.name_scope(self.name):
            super().build_from_config(config)
