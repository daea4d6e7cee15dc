"""Actors and learner: this process acts, a distribution strategy trains the network by `strategy.fit`.

What has been collected becomes rows, the rows a stream of minibatches, and after their steps the strategy's weights act
next. The targets of all steps of an iteration are made at its beginning, with the weights that acted. N rows, M of them
in a minibatch, U minibatches.
"""

import numpy as np
import tensorflow as tf

from apps.common import splits
from apps.reinforcement import building
from apps.reinforcement.agents import dqn, policy_gradient
from apps.reinforcement.agents.agent import Rows
from apps.reinforcement.environments.environment import split


class SharedNetwork:
    """The network as the strategy trains it.

    Args:
        settings: `Config` that `defaults.resolve` has completed.
        environment: for its specifications.
        strategy: of `strategies.distribution`.
        callbacks: Keras callbacks of every fit.

    Attributes:
        model: compiled `keras.Model` in the strategy's scope.
        step: steps of learning so far.
    """

    def __init__(self, settings, environment, strategy, callbacks=()):
        self._settings, self._strategy, self._callbacks = settings, strategy, list(callbacks)
        with strategy.scope():
            self.model = building.compiled_network(settings, environment)
        self.step = 0
        self._rows = {}

    def act_with(self, agent):
        """Gives an agent the weights that have been learned."""
        agent.network.set_weights(self._strategy.gather(self.model).get_weights())

    def learn_rollout(self, agent, experience, next_time_step, seed):
        """Learns from a rollout, as `policy_gradient`'s `train`; {name: number}."""
        batch, extra = self._function("rollout", agent.rows)(experience, next_time_step)
        options = building.policy_gradient_options(self._settings)
        found = self._fit(agent, batch, policy_gradient.batches_of(batch, options, seed).numpy())
        return found | {name: float(extra[name]) for name in agent.reports if name in extra}

    def learn_replay(self, agent, buffer, replay, seed, beta):
        """Learns from what it samples at once for all steps of an iteration; (replay, {name: number})."""
        number, size = self._settings.updates, self._settings.batch_size

        def sampled(replay, seed, beta):
            parts = [buffer.get_next(replay, size, key, beta) for key in tf.unstack(split(seed, number))]
            sample = tf.nest.map_structure(lambda *rows: tf.concat(rows, 0), *parts)
            batch, error = agent.rows(sample.experience, sample.weight)
            return buffer.update_priorities(replay, sample.index, error), batch

        replay, batch = self._function("replay", sampled)(replay, seed, beta)
        before = self.step
        found = self._fit(agent, batch, np.arange(number * size, dtype=np.int32).reshape(number, size))
        agent.network.optimizer.iterations.assign(self.step)
        target = [agent.variables[name] for name in sorted(agent.variables) if name.startswith("target_")]
        dqn.move_target(agent.network.weights, target, building.dqn_options(self._settings), before, self.step)
        return replay, found

    def _function(self, name, function):
        """A compiled function, made once."""
        if name not in self._rows:
            self._rows[name] = tf.function(function, jit_compile=self._settings.jit_compile, autograph=False)
        return self._rows[name]

    def _fit(self, agent, batch, order):
        """{name: loss} after a step for each minibatch, int [U, M]."""
        batch = tf.nest.map_structure(lambda part: part.numpy(), batch)
        # What the iteration's beginning has set, the actor's optimizer knows.
        self.model.optimizer.learning_rate.assign(agent.network.optimizer.learning_rate.numpy())
        end = self.step + len(order)
        history = self._strategy.fit(self.model, stream(batch, order, self.step), start_step=self.step,
                                     total_steps=end, callbacks=self._callbacks, verbose=0)
        self.step = end
        self.act_with(agent)
        found = {name: float(np.mean(values)) for name, values in history.items()}
        loss = {name: found[f"{name}_loss"] for name in self.model.output_names if f"{name}_loss" in found}
        return {"loss": found["loss"]} | {f"{name}_loss": value for name, value in loss.items()}


def stream(batch, order, first_step):
    """Minibatches of `Rows` of arrays as a `splits.Stream`; step `first_step` takes row 0 of `order`, int [U, M]."""
    number, size = order.shape

    def make(input_context, start_step, turn):
        first, rows = splits.rows_of_worker(input_context, size)
        picks, (index, workers) = order[:, first:first + rows], turn

        def fetch(step):
            chosen = tf.gather(tf.constant(picks), (step - first_step) % number)
            return tuple(tf.nest.map_structure(lambda part: tf.gather(part, chosen), Rows(*batch)))

        steps = tf.data.Dataset.range(start_step, 2**62)
        if workers > 1:
            steps = steps.shard(workers, index)
        options = tf.data.Options()
        options.autotune.enabled = False
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return steps.map(fetch).with_options(options)

    return splits.Stream(number * size, size, make, is_training=True)
