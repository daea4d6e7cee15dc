"""A model as a function that only infers, as fast as TensorFlow runs it on a processor."""

import tensorflow as tf
from numpy._core._multiarray_umath import __cpu_features__ as PROCESSOR
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from strategies.export.folding import fold_batch_norm
from strategies.export.interface import Interface


def inference_function(model, *, batch_size=None):
    """A compiled function with the outputs of `model` in inference mode and the weights of this moment.

    Batch normalisation is merged into convolutions, so that TensorFlow runs convolution, bias and ReLU as one operator,
    and the weights become constants, so that its library lays them out once. On a processor without AVX-512 this needs
    oneDNN, which TensorFlow switches on by itself only where there is AVX-512 VNNI or more: set the environment
    variable TF_ENABLE_ONEDNN_OPTS=1 before Python starts.

    Args:
        model: functional or built sequential `keras.Model`. Later changes of its weights have no effect on the result.
        batch_size: B of every input, or None for any.

    Returns:
        function from tensors or arrays in the structure of the model's inputs to tensors in that of its outputs.

    Raises:
        ValueError: the model has a `call` of its own, see `fold_batch_norm`.
    """
    # What cannot be merged is left to oneDNN's normalisation with AVX-512; without, it becomes a 1x1 convolution.
    interface = Interface(fold_batch_norm(model, as_convolution=not PROCESSOR.get("AVX512F")))
    frozen = convert_variables_to_constants_v2(interface.function(batch_size))
    names = sorted(interface.output_names)  # freezing flattens a dictionary by its keys
    dtypes = [spec.dtype for spec in interface.input_specs]

    def infer(inputs):
        tensors = [tf.convert_to_tensor(x, dtype) for x, dtype in zip(tf.nest.flatten(inputs), dtypes)]
        return interface.structured(dict(zip(names, frozen(*tensors))))

    return infer
