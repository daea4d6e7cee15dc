"""Any environment of gymnasium, a batch of them stepped by its `SyncVectorEnv`, with our time steps.

These environments are objects of Python: they do not compile, and their state cannot be kept; a resumed run begins new
episodes. B batch.
"""

import importlib

import numpy as np
import tensorflow as tf

from apps.reinforcement.trajectories import Spec, StepType, TimeStep

PREFIX = "gym:"
_OBSERVATIONS = {"float32": tf.float32, "float64": tf.float32, "uint8": tf.uint8, "int32": tf.int32, "int64": tf.int32}


class GymEnvironment:
    """A problem of gymnasium: its specs, and `open` for a batch of it. `draw` is what it renders as text, if it can.

    Attributes:
        name: with the prefix.
        observation_spec, action_spec: `Spec`.
        max_steps: its limit of steps, or None.
    """

    def __init__(self, name, **options):
        """Looks a problem up.

        Args:
            name: "gym:Name", with gymnasium's name and version.
            **options: for `gymnasium.make`.

        Raises:
            ValueError: gymnasium is not installed or knows no such name, the environment cannot be made, or its spaces
                are neither boxes nor numbers.
        """
        self.name, self._id, self._options = name, name.removeprefix(PREFIX), options
        env = self._make()
        self.observation_spec = _spec("observations", name, env.observation_space)
        self.action_spec = _spec("actions", name, env.action_space)
        self.max_steps = env.spec.max_episode_steps
        self.render_modes = tuple(env.metadata.get("render_modes", ()))
        env.close()

    def open(self, batch, seed, **options):
        """`GymBatch` of `batch` environments, whose episodes follow from the seed; options are for gymnasium.make."""
        gymnasium = _gymnasium()
        envs = gymnasium.vector.SyncVectorEnv(
            [lambda: _checked(self._make(**options), self.name, self.observation_spec) for _ in range(batch)],
            autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP)
        return GymBatch(self, envs, seed)

    def _make(self, **options):
        gymnasium = _gymnasium()
        try:
            return gymnasium.make(self._id, disable_env_checker=True, **self._options, **options)
        except gymnasium.error.DependencyNotInstalled as error:
            raise ValueError(f"{self.name} needs a package that is not installed: {error}") from None
        except (gymnasium.error.Error, ModuleNotFoundError) as error:
            raise ValueError(f"gymnasium cannot make an environment {self._id!r}: {error} Expected "
                             f"--env={PREFIX}Name, such as {PREFIX}CartPole-v1.") from None


class GymBatch:
    """A batch of environments under way; NumPy inside, tensors outside."""

    def __init__(self, environment, envs, seed):
        self.environment, self.envs, self._seed = environment, envs, int(seed)
        self._first_action = getattr(envs.single_action_space, "start", 0)

    def reset(self):
        """Begins B episodes: `TimeStep` of type FIRST."""
        observation, _ = self.envs.reset(seed=self._seed)
        batch = self.envs.num_envs
        self._is_last = np.zeros(batch, bool)
        return self._time_step(np.full(batch, int(StepType.FIRST)), np.zeros(batch), np.zeros(batch, bool), observation)

    def step(self, action):
        """Takes an action [B, ...] in every environment; where an episode is over, begins the next one instead.

        Raises:
            ValueError: an environment gives what its spec does not allow, or a number that is not finite.
        """
        action = np.asarray(action) + self._first_action
        action = action.astype(self.envs.single_action_space.dtype)
        observation, reward, terminated, truncated, _ = self.envs.step(action)
        is_last = terminated | truncated
        kind = np.where(self._is_last, int(StepType.FIRST), np.where(is_last, int(StepType.LAST), int(StepType.MID)))
        self._is_last = is_last
        return self._time_step(kind, reward, terminated, observation)

    def pictures(self):
        """What each environment renders: uint8 [H, W, 3] or text; open it with render_mode="rgb_array" or "ansi"."""
        return self.envs.render()

    def close(self):
        """Ends the environments."""
        self.envs.close()

    def _time_step(self, kind, reward, terminated, observation):
        spec = self.environment.observation_spec
        shown = np.asarray(observation) - getattr(self.envs.single_observation_space, "start", 0)
        return TimeStep(tf.constant(kind, tf.int32), tf.constant(reward, tf.float32),
                        tf.constant(np.where(terminated, 0.0, 1.0), tf.float32),
                        tf.constant(shown.astype(spec.dtype.as_numpy_dtype)))


def _gymnasium():
    try:
        return importlib.import_module("gymnasium")
    except ImportError:
        raise ValueError(f"Environments named {PREFIX}Name need gymnasium, which is not installed. Install the extra "
                         "\"rl\": pip install usagi-suite[rl].") from None


def _spec(word, name, space):
    """The `Spec` of a space."""
    spaces = _gymnasium().spaces
    if isinstance(space, spaces.Discrete):
        return Spec((), tf.int32, 0, int(space.n) - 1)
    kind = None if space.dtype is None else space.dtype.name
    if isinstance(space, spaces.Box) and kind in _OBSERVATIONS and not (word == "actions" and "float" not in kind):
        low, high = (limit.flat[0].item() if np.all(limit == limit.flat[0]) else limit for limit in
                     (np.atleast_1d(space.low), np.atleast_1d(space.high)))
        return Spec(tuple(space.shape), _OBSERVATIONS[kind], low, high)
    raise ValueError(f"The {word} of {name} are {space}; expected Discrete, or a Box of "
                     f"{'float32' if word == 'actions' else 'float32, uint8 or int32'}. Wrap the environment, for "
                     "instance with gymnasium.wrappers.FlattenObservation, and register it under a name of its own.")


def _checked(env, name, spec):
    """The environment, which raises ValueError at the step when it breaks its spec."""
    gymnasium = _gymnasium()

    class Checked(gymnasium.Wrapper):
        """gymnasium's vector environments take wrappers only as subclasses."""

        def reset(self, **options):
            observation, info = self.env.reset(**options)
            return _legal_observation(name, observation, spec), info

        def step(self, action):
            observation, reward, *rest = self.env.step(action)
            if not np.isscalar(reward) and np.size(reward) != 1 or not np.isfinite(reward):
                raise ValueError(f"{name} gave the reward {reward}; expected a finite number. Mend the environment.")
            return _legal_observation(name, observation, spec), float(np.reshape(reward, ())), *rest

    return Checked(env)


def _legal_observation(name, observation, spec):
    values = np.asarray(observation)
    if values.shape != spec.shape:
        raise ValueError(f"{name} gave an observation of the shape {list(values.shape)}; its space says "
                         f"{list(spec.shape)}. Mend the environment.")
    if values.dtype.kind not in "fiub" or not np.all(np.isfinite(values)):
        raise ValueError(f"{name} gave an observation that is not finite numbers: {values}. Mend the environment.")
    return observation
