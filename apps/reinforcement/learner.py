"""Acting and learning in turn: as one compiled program, or with environments or networks that live elsewhere.

An iteration lets the collect policy act (a rollout, or an episode of each environment) and the network learn from it.
For the pure environments under --distribution=single many iterations are one program for XLA.
"""

import typing

import numpy as np
import tensorflow as tf

from apps.reinforcement import building, checking, drivers, metrics
from apps.reinforcement.environments import environment as environment_lib
from apps.reinforcement.environments.environment import split
from apps.reinforcement.trajectories import from_transition


class State(typing.NamedTuple):
    """All that goes on changing beside the weights; `checkpoint` keeps it."""

    running: typing.Any  # the environments, () where they live in Python
    time_step: typing.Any  # [B, ...]
    metrics: metrics.State
    replay: typing.Any  # `replay_buffer.State`, or ()
    iteration: tf.Tensor  # int32
    fault: tf.Tensor  # int32, of `checking`


class Learner:
    """An agent with its environments.

    Args:
        settings: `Config` that `defaults.resolve` has completed.
        environment: `Environment`, or `gym.GymEnvironment`, which is stepped from Python.
        shared: `distributed.SharedNetwork`, which learns in place of the agent's network; None: it learns itself.

    Attributes:
        agent: `Agent`.
        state: `State`.
        model: the compiled network whose weights and optimizer are to be kept.
    """

    def __init__(self, settings, environment, shared=None):
        self._settings, self._environment, self._shared = settings, environment, shared
        self.agent = building.agent_of(settings, environment)
        self.model = self.agent.network if shared is None else shared.model
        self._is_pure = isinstance(environment, environment_lib.Environment)
        self._seed = tf.constant([settings.seed, 0x0A6E], tf.int32)
        running, time_step = self._begin()
        step = self.agent.collect_policy.action(time_step, (), self._seed)
        self._buffer = building.replay_of(settings, from_transition(time_step, step, time_step))
        self.state = State(running, time_step, metrics.initial(settings.parallel_environments),
                           self._buffer.initial() if self._buffer else (), tf.constant(0), tf.constant(checking.OK))
        compiled = settings.jit_compile
        act = tf.function(self.agent.collect_policy.action, jit_compile=compiled, autograph=False)
        self._policy = self.agent.collect_policy._replace(action=act)
        self._advance = tf.function(self._iterations, jit_compile=compiled, autograph=False)
        self._collect = tf.function(self._acted, jit_compile=compiled, autograph=False)
        self._learn = tf.function(self._learned, jit_compile=compiled, autograph=False)
        self._keep = tf.function(self._kept, jit_compile=compiled, autograph=False)

    def advance(self, until):
        """Acts and learns until the environments have made so many steps in all, or one breaks its specification.

        Returns:
            {name: mean of the iterations}.
        """
        if self._is_pure and self._shared is None:
            self.state, sums, number = self._advance(self.state, tf.constant(until, tf.int64))
            return _means(sums, number)
        sums, number = dict.fromkeys(self._names(), 0.0), 0
        while int(self.state.metrics.num_steps) < until and int(self.state.fault) == checking.OK:
            found = self._one()
            sums, number = {name: sums[name] + float(found[name]) for name in sums}, number + 1
        return _means(sums, number)

    def resume(self, state):
        """Goes on from a state that was kept; environments in Python begin new episodes."""
        if not self._is_pure:
            state = state._replace(time_step=self._open(int(state.iteration)))
        self.state = state

    def _begin(self):
        number = self._settings.parallel_environments
        if self._is_pure:
            return environment_lib.reset(self._environment, number, self._seed)
        return (), self._open(0)

    def _open(self, iteration):
        """The first time step of new environments in Python; each start has another seed."""
        seed = np.random.default_rng([self._settings.seed, iteration, 0x97]).integers(2**31 - 1)
        self._opened = self._environment.open(self._settings.parallel_environments, int(seed))
        return self._opened.reset()

    def _names(self):
        return ("loss", *self.agent.reports)

    def _iterations(self, state, until):
        """(state, sums, number of iterations)."""
        def goes_on(state, sums, number):
            return (state.metrics.num_steps < until) & tf.equal(state.fault, checking.OK)

        def body(state, sums, number):
            state, found = self._learned(state, *self._acted(state))
            return state, {name: sums[name] + found[name] for name in sums}, number + 1

        return tf.while_loop(goes_on, body, (state, {name: tf.zeros([]) for name in self._names()}, tf.constant(0)))

    def _one(self):
        """An iteration whose parts are separate programs; {name: scalar}."""
        if self._is_pure:
            acted = self._collect(self.state)
        else:
            self._note_steps(self.state)
            acted = drivers.python_steps(self._opened, self._policy, self.state.time_step, self._settings.rollout,
                                         self._seeds(self.state)[0])
        if self._shared is None:
            self.state, found = self._learn(self.state, *acted)
            return found
        return self._learn_elsewhere(*acted)

    def _seeds(self, state):
        return split(self._seed + tf.stack([0, 1 + state.iteration]), 3)

    def _acted(self, state):
        """(running, time step, `Trajectory`) of a rollout."""
        self._note_steps(state)
        settings, policy = self._settings, self.agent.collect_policy
        seed = self._seeds(state)[0]
        if building.plays_episodes(settings):
            rows = drivers.run_episodes(self._environment, policy, settings.parallel_environments, seed)
            return state.running, state.time_step, rows
        running, time_step, _, rows = drivers.run_steps(self._environment, policy, state.running, state.time_step, (),
                                                        settings.rollout, seed)
        return running, time_step, rows

    def _note_steps(self, state):
        """What follows from the number of steps: the learning rate, and the exploration of DQN."""
        done = tf.cast(state.metrics.num_steps, tf.float32) / max(building.total_steps(self._settings), 1)
        share = 1 - (1 - self._settings.final_rate) * tf.minimum(done, 1.0)
        self.agent.network.optimizer.learning_rate.assign(self._settings.learning_rate * share)
        if "num_steps" in self.agent.variables:
            self.agent.variables["num_steps"].assign(state.metrics.num_steps)

    def _learned(self, state, running, time_step, rows):
        """(state, {name: scalar}) after the network has learned from a rollout."""
        after, is_on = self._kept(state, running, time_step, rows)
        seed = self._seeds(state)[1]
        if self._buffer is None:
            info = self.agent.train(rows, time_step, seed, is_on)
            return after, {"loss": info.loss} | {name: info.extra[name] for name in self.agent.reports}
        replay, loss = self._replayed(after, seed, is_on)
        return after._replace(replay=replay), {"loss": loss}

    def _kept(self, state, running, time_step, rows):
        """(state after a rollout, whether it may be learned from); where it has a fault, the state before it."""
        fault = checking.fault_of(self._environment, rows, time_step)
        is_on = tf.equal(fault, checking.OK)
        replay = self._buffer.add_batch(state.replay, rows, is_on) if self._buffer else ()
        new = state._replace(running=running, time_step=time_step, metrics=metrics.update(state.metrics, rows),
                             iteration=state.iteration + 1, replay=())
        new = tf.nest.map_structure(lambda a, b: tf.where(is_on, a, b), new, state._replace(replay=()))
        return new._replace(replay=replay, fault=fault), is_on

    def _replayed(self, state, seed, is_on):
        """(replay, mean loss) after the updates of an iteration of DQN."""
        settings, buffer = self._settings, self._buffer
        number = tf.where(is_on & self._is_warm(state.replay), settings.updates, 0)
        seeds, beta = split(seed, settings.updates), self._beta(state)

        def body(i, replay, total):
            sample = buffer.get_next(replay, settings.batch_size, seeds[i], beta)
            info = self.agent.train(sample.experience, sample.weight)
            replay = buffer.update_priorities(replay, sample.index, info.extra["td_error"])
            return i + 1, replay, total + info.loss

        _, replay, total = tf.while_loop(lambda i, *_: i < number, body, (0, state.replay, tf.zeros([])))
        return replay, total / tf.cast(tf.maximum(number, 1), tf.float32)

    def _is_warm(self, replay):
        held = self._buffer.num_frames(replay)
        return (held >= self._settings.warmup_steps) & (replay.count > self._settings.n_step)

    def _beta(self, state):
        """Exponent of the importance weights: to 1 at the end of the run (Schaul et al. 2016, section 3.4)."""
        done = tf.cast(state.metrics.num_steps, tf.float32) / max(building.total_steps(self._settings), 1)
        start = self._settings.importance_exponent
        return start + (1 - start) * tf.minimum(done, 1.0)

    def _learn_elsewhere(self, running, time_step, rows):
        """{name: scalar} after the shared network has learned from a rollout, and its weights act."""
        seed = self._seeds(self.state)[1]
        after, is_on = self._keep(self.state, running, time_step, rows)
        names = dict.fromkeys(self._names(), 0.0)
        self.state = after
        if not bool(is_on):
            return names
        if self._buffer is None:
            return names | self._shared.learn_rollout(self.agent, rows, time_step, seed)
        if not bool(self._is_warm(after.replay)):
            return names
        replay, found = self._shared.learn_replay(self.agent, self._buffer, after.replay, seed, self._beta(after))
        self.state = after._replace(replay=replay)
        return names | found


def _means(sums, number):
    number = max(int(number), 1)
    return {name: float(value) / number for name, value in sums.items()}
