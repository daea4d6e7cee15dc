"""AlexNet's sizes and number of parameters."""

import numpy as np
import pytest
import tf_keras as keras

from layers.backbones.alexnet import alexnet
from layers.backbones.vgg import vgg_head


def test_parameters_of_the_one_tower_form():
    model = alexnet((227, 227, 3))
    whole = keras.Model(model.input, vgg_head(model.output["C5"], 1000))
    dropout_counters = 2
    assert model.output["C5"].shape[1:] == (6, 6, 256)
    assert whole.count_params() - dropout_counters == 62_378_344


@pytest.mark.parametrize("size, strides", [(128, (8, 16, 32)), (28, (2, 4, 8)), (8, (2, 4, 8))])
def test_stages(size, strides):
    model = alexnet((size, size, 1), width=1 / 16)
    outputs = model(np.zeros((2, size, size, 1), np.float32))
    assert list(outputs) == ["C3", "C4", "C5"]
    for value, stride in zip(outputs.values(), strides):
        assert abs(value.shape[1] - size / stride) <= 2  # the stem and the pooling have no padding


def test_normalization_takes_the_place_of_biases():
    names = [layer.name for layer in alexnet((32, 32, 3), width=1 / 16, normalization="batch").layers]
    assert "conv1_norm" in names
    assert not alexnet((32, 32, 3), width=1 / 16, normalization="batch").get_layer("conv1").use_bias
    with pytest.raises(ValueError, match="Unknown stem"):
        alexnet((32, 32, 3), stem="huge")
