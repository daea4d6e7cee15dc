"""Initial values of weights."""

import math

import tf_keras as keras


@keras.utils.register_keras_serializable("usagi")
class GlorotOfMatrix(keras.initializers.VarianceScaling):
    """Glorot's uniform initial values (Glorot & Bengio 2010, equation 16) of a matrix that is kept with more axes.

    Keras takes all axes of a kernel but the last two for places of a convolution. The map [D, H, d] to H heads would
    begin √((H + d) / 2) times too small, and attention with it: even, and next to nothing.

    Args:
        input_axes: so many first axes are those of the input.
        seed: as of Keras' initialisers.
    """

    def __init__(self, input_axes, seed=None):
        super().__init__(1.0, "fan_avg", "uniform", seed)
        self.input_axes = input_axes

    def __call__(self, shape, dtype=None, **kwargs):
        fans = math.prod(shape[:self.input_axes]) + math.prod(shape[self.input_axes:])
        as_keras_counts = math.prod(shape[:-2]) * (shape[-2] + shape[-1])
        scaled = keras.initializers.VarianceScaling(as_keras_counts / fans, self.mode, self.distribution, self.seed)
        return scaled(shape, dtype, **kwargs)

    def get_config(self):
        return {"input_axes": self.input_axes, "seed": self.seed}
