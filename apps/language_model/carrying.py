"""Truncated backpropagation through time: each window begins with the state that the window before left.

Werbos 1990, "Backpropagation through time"; Williams & Peng 1990, BPTT(h; h'). The gradient ends at the window's
beginning, the state does not: what was read long ago can still be used, though not learnt from.
"""

import contextlib

import tensorflow as tf
import tf_keras as keras

from strategies.replacing import replaced


class Carrying(keras.Model):
    """A recurrent model that carries the state of each row of the batch from step to step, in `fit` and `evaluate`.

    The layers are those of the model; a call and `predict` begin with zeros as before. The states are weights of this
    model, not trainable, so they are in its checkpoints: a resumed run goes on with them.

    Args:
        model: functional `keras.Model` with recurrent layers that go forwards.
        batch_size: B; row r of a batch goes on where row r of the one before ended.
        steps_per_epoch: after so many steps of training the text begins again, with zeros. Evaluation begins with them.
    """

    def __init__(self, model, batch_size, steps_per_epoch):
        super().__init__(model.input, model.output, name=model.name)
        self._steps_per_epoch = steps_per_epoch
        self._carried, self._evaluated = (
            {layer.name: [self.add_weight(name=f"{layer.name}_{what}_{i}", shape=[batch_size, size],
                                          initializer="zeros", dtype=layer.compute_dtype, trainable=False)
                          for i, size in enumerate(tf.nest.flatten(layer.cell.state_size))]
             for layer in model.layers if isinstance(layer, keras.layers.RNN)} for what in ("carried", "evaluated"))

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        is_first = tf.equal(self.optimizer.iterations % self._steps_per_epoch, 0)
        begin = tf.nest.map_structure(lambda state: tf.where(is_first, tf.zeros_like(state), state), self._carried)
        with tf.GradientTape() as tape:
            outputs, new = self._go_on(x, begin, training=True)
            loss = self.compiled_loss(y, outputs, sample_weight, regularization_losses=self.losses)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        _assign(self._carried, new)
        return self.compute_metrics(x, y, outputs, sample_weight)

    def evaluate(self, *args, **kwargs):
        _assign(self._evaluated, tf.nest.map_structure(tf.zeros_like, self._evaluated))
        return super().evaluate(*args, **kwargs)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        outputs, new = self._go_on(x, tf.nest.map_structure(tf.identity, self._evaluated), training=False)
        self.compiled_loss(y, outputs, sample_weight, regularization_losses=self.losses)
        _assign(self._evaluated, new)
        return self.compute_metrics(x, y, outputs, sample_weight)

    def _go_on(self, x, begin, training):
        """(outputs, {layer: states after x}), where each layer begins with its states in `begin`."""
        new = {}
        with contextlib.ExitStack() as stack:
            for name, states in begin.items():
                layer = self.get_layer(name)
                stack.enter_context(replaced(layer, call=_carrying_call(layer, states, new), return_state=True))
            return self(x, training=training), new


def plain(model):
    """The model without what carries its states."""
    return keras.Model(model.input, model.output, name=model.name) if isinstance(model, Carrying) else model


def _assign(variables, values):
    for name, states in variables.items():
        for state, value in zip(states, values[name], strict=True):
            state.assign(value)


def _carrying_call(layer, states, new):
    """`layer.call` that begins with `states` and leaves the last ones in `new`."""
    call = layer.call

    def carrying(inputs, mask=None, training=None):
        outputs, *new[layer.name] = call(inputs, mask=mask, training=training, initial_state=list(states))
        return outputs

    return carrying
