"""Scheduled sampling: the decoder learns to go on from its own mistakes.

Bengio et al. 2015 (arXiv 1506.03099) feed the decoder its own prediction instead of the right token, more often as
training goes on. Here all positions are predicted at once by a first pass, and some of these predictions take the place
of the right tokens in a second one, as Mihaylova & Martins 2019 (arXiv 1906.07651, section 3) do for Transformers.
"""

import tensorflow as tf
import tf_keras as keras

from apps.common import tokens


class ScheduledSampling(keras.Model):
    """A translation model with that training step.

    Args:
        model: functional `keras.Model` of "source" and "target".
        share: of the inputs that are predictions at the end of the training.
        total_steps: over which the share grows in a straight line.
        seed: of the choice, with the step.
    """

    def __init__(self, model, share, total_steps, seed):
        super().__init__(model.input, model.output, name=model.name)
        self._share, self._total_steps, self._seed = share, total_steps, seed

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = {**x, "target": self.mixed(x, self.optimizer.iterations)}
        with tf.GradientTape() as tape:
            outputs = self(x, training=True)
            loss = self.compiled_loss(y, outputs, sample_weight, regularization_losses=self.losses)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return self.compute_metrics(x, y, outputs, sample_weight)

    def mixed(self, x, step):
        """The decoder's inputs at a step, int [B, T]: some of them what the model itself would have said there."""
        given = x["target"]
        said = tf.argmax(self(x, training=False), axis=-1, output_type=given.dtype)
        # What is said at position t is read at t + 1; the first input is BEGIN whatever happens.
        said = tf.concat([given[:, :1], said[:, :-1]], axis=1)
        share = self._share * tf.cast(step, tf.float32) / self._total_steps
        chance = tf.random.stateless_uniform(tf.shape(given), tf.stack([tf.cast(self._seed, tf.int64), step]))
        may_be = tf.not_equal(given, tokens.PADDING) & (tf.range(tf.shape(given)[1]) > 0)
        may_be &= (said != tokens.PADDING) & (said != tokens.END)  # the decoder never reads these
        return tf.where(may_be & (chance < share), said, given)


def plain(model):
    """The model with Keras' own training step."""
    return keras.Model(model.input, model.output, name=model.name) if isinstance(model, ScheduledSampling) else model
