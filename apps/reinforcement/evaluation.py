"""How good a policy is: the returns of whole episodes, played by a compiled program or by an exported file."""

import numpy as np
import tensorflow as tf

from apps.reinforcement import drivers, policies
from apps.reinforcement.action_heads import legal_action
from apps.reinforcement.environments import environment as environment_lib

TEST = 1_000_003  # number of the test's episodes; those of the trials are 1, 2, …
_EPISODES = 0xE7A1  # keeps the seeds of trials apart from those of training


class Evaluator:
    """Plays episodes of a policy, always as many.

    Args:
        environment: `Environment` or `gym.GymEnvironment`.
        policy: `policies.Policy`.
        episodes: how many.
        max_steps: after which an episode is cut where the environment has no limit.
        jit_compile: whether XLA compiles it.
    """

    def __init__(self, environment, policy, episodes, max_steps, *, jit_compile=True):
        self._environment, self._episodes = environment, episodes
        self._limit = environment.max_steps or max_steps
        self._is_pure = isinstance(environment, environment_lib.Environment)

        def play(seed):
            return drivers.evaluate(environment, policy, episodes, seed, max_steps=self._limit)

        self._play = tf.function(play, jit_compile=jit_compile, autograph=False)
        # Environments in Python ask for one action after the other.
        self._policy = policy._replace(action=tf.function(policy.action, jit_compile=jit_compile, autograph=False))

    def __call__(self, seed):
        """(returns float32 [E], lengths int32 [E]) of the episodes that belong to a whole number."""
        key = tf.constant([seed, _EPISODES], tf.int32)
        if self._is_pure:
            returns, lengths = self._play(key)
            return returns.numpy(), lengths.numpy()
        batch = self._environment.open(self._episodes, python_seed(seed))
        try:
            return drivers.python_evaluate(batch, self._policy, self._limit)
        finally:
            batch.close()


def python_seed(number):
    """The seed of environments in Python for the episodes that belong to a whole number."""
    return int(np.random.default_rng([number, _EPISODES]).integers(2**31 - 1))


def of_baselines(environment, rules, episodes, max_steps, seed):
    """Returns, {name: float32 [E]}, of fixed policies, {name: observation -> action}, in the episodes of a number."""
    return {name: Evaluator(environment, policies.by_rule(rule), episodes, max_steps, jit_compile=False)(seed)[0]
            for name, rule in rules.items()}


def actions_of(action_spec, outputs):
    """The greedy actions, NumPy [N, ...], of an acting network's outputs: values or logits [N, A], means [N, D]."""
    if action_spec.is_discrete:
        return np.argmax(outputs, axis=-1).astype(np.int32)
    return legal_action(action_spec, np.reshape(outputs, [-1, *action_spec.shape])).astype(np.float32)


class FileTrial:
    """Plays episodes with any function from observations to outputs, such as a file in LiteRT.

    Args:
        environment: `Environment` or `gym.GymEnvironment`.
        episodes, max_steps: as of `Evaluator`.
        seed: whole number that the episodes belong to.
    """

    def __init__(self, environment, episodes, max_steps, seed):
        self._environment, self._episodes, self._number = environment, episodes, seed
        self._limit = environment.max_steps or max_steps
        self._step = tf.function(
            lambda running, action, seed: environment_lib.step(environment, running, action, seed), jit_compile=True,
            autograph=False)

    def returns(self, predict):
        """Returns, float64 [E]; `predict` takes and gives NumPy arrays."""
        time_step, step = self._begin()
        total, playing = np.zeros(self._episodes), np.ones(self._episodes, bool)
        spec = self._environment.action_spec
        action = np.zeros([self._episodes, *spec.shape], spec.dtype.as_numpy_dtype)
        for t in range(self._limit):
            outputs = predict(time_step.observation.numpy()[playing])  # those that are over need no answer
            action[playing] = actions_of(spec, outputs)
            time_step = step(t, action)
            total += np.where(playing, time_step.reward.numpy(), 0)
            playing &= ~time_step.is_last().numpy()
            if not playing.any():
                break
        return total

    def _begin(self):
        """(first time step, function of step number and action that gives the next)."""
        if not isinstance(self._environment, environment_lib.Environment):
            batch = self._environment.open(self._episodes, python_seed(self._number))
            return batch.reset(), lambda t, action: batch.step(action)
        seeds = environment_lib.split(tf.constant([self._number, _EPISODES], tf.int32), self._limit + 1)
        running, time_step = environment_lib.reset(self._environment, self._episodes, seeds[-1])

        def step(t, action):
            nonlocal running
            running, after = self._step(running, tf.constant(action), seeds[t])
            return after

        return time_step, step


def observations(environment, policy, number, seed):
    """`number` observations, NumPy [N, ...], out of four times as many steps of a policy."""
    batch = 16
    begin, act = environment_lib.split(tf.constant([seed, _EPISODES + 1], tf.int32), 2)
    running, time_step = environment_lib.reset(environment, batch, begin)
    rows = drivers.run_steps(environment, policy, running, time_step, (), -(-4 * number // batch), act)[3]
    seen = rows.observation.numpy().reshape([-1, *rows.observation.shape[2:]])
    return seen[np.random.default_rng(seed).permutation(len(seen))[:number]]
