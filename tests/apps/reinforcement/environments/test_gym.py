"""The adapter for gymnasium: time steps, actions, and what is refused."""

import sys

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

from apps.reinforcement.environments import catalogue
from apps.reinforcement.trajectories import StepType


class Strange(gymnasium.Env):
    """Breaks its spec in one way."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3, start=5)

    def __init__(self, observation=(0.0, 0.0), reward=1.0, observation_space=None, action_space=None):
        self.given = np.array(observation, np.float32), reward
        self.observation_space = observation_space or self.observation_space
        self.action_space = action_space or self.action_space
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.actions.append(action)
        return *self.given, False, False, {}


@pytest.fixture(scope="module", autouse=True)
def strange():
    gymnasium.register("Strange-v0", Strange)
    yield
    del gymnasium.registry["Strange-v0"]


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_time_steps_are_those_of_single_environments(name):
    """Three environments, seeds 7, 8 and 9, against gymnasium's single ones with a loop of their own."""
    environment = catalogue.make(f"gym:{name}")
    batch = environment.open(3, 7)
    singles = [gymnasium.make(name) for _ in range(3)]
    for seed, single in enumerate(singles):
        single.action_space.seed(seed)
    shown = batch.reset()
    np.testing.assert_array_equal(shown.observation, [env.reset(seed=7 + i)[0] for i, env in enumerate(singles)])
    over = [False] * 3
    for _ in range(250):
        actions = [env.action_space.sample() for env in singles]
        shown = batch.step(tf.constant(np.array(actions)))
        for row, (env, action) in enumerate(zip(singles, actions)):
            if over[row]:
                expected = (StepType.FIRST, 0.0, 1.0, env.reset()[0])
                over[row] = False
            else:
                observation, reward, terminated, truncated, _ = env.step(action)
                over[row] = terminated or truncated
                expected = (StepType.LAST if over[row] else StepType.MID, reward, float(not terminated), observation)
            for ours, theirs in zip(shown, expected):
                np.testing.assert_allclose(ours[row], theirs, rtol=1e-6)
    batch.close()


def test_specs():
    cart, pendulum = catalogue.make("gym:CartPole-v1"), catalogue.make("gym:Pendulum-v1")
    ours = catalogue.make("cart_pole")
    assert (cart.action_spec, cart.max_steps, cart.observation_spec.shape) == (ours.action_spec, 500, (4,))
    np.testing.assert_allclose(cart.observation_spec.maximum, ours.observation_spec.maximum, rtol=1e-6)
    assert pendulum.action_spec == catalogue.make("pendulum").action_spec
    assert catalogue.make("gym:CliffWalking-v1").observation_spec == catalogue.make("cliff_walk").observation_spec


def test_actions_that_begin_with_5():
    environment = catalogue.make("gym:Strange-v0")
    assert (environment.action_spec.minimum, environment.action_spec.maximum) == (0, 2)
    batch = environment.open(1, 0)
    batch.reset()
    batch.step(tf.constant([2]))
    assert batch.envs.envs[0].unwrapped.actions == [7]


@pytest.mark.parametrize("options, words", [
    ({"observation": [0.0, 0.0, 0.0]}, r"gym:Strange-v0 gave an observation of the shape \[3\]; its space says \[2\]"),
    ({"observation": [0.0, np.nan]}, "gave an observation that is not finite numbers"),
    ({"reward": np.nan}, "gave the reward nan; expected a finite number"),
    ({"reward": [1.0, 2.0]}, "gave the reward")])
def test_environments_that_break_their_spec(options, words):
    batch = catalogue.make("gym:Strange-v0").open(2, 0, **options)
    batch.reset()
    with pytest.raises(ValueError, match=words):
        batch.step(tf.constant([0, 1]))


@pytest.mark.parametrize("options, words", [
    ({"observation_space": gymnasium.spaces.Dict(a=gymnasium.spaces.Discrete(2))},
     "observations of gym:Strange-v0 are Dict.*FlattenObservation"),
    ({"action_space": gymnasium.spaces.MultiDiscrete([2, 2])}, "actions of gym:Strange-v0 are MultiDiscrete"),
    ({"action_space": gymnasium.spaces.Box(0, 3, (2,), np.int32)}, "expected Discrete, or a Box of float32")])
def test_spaces_that_are_not_supported(options, words):
    gymnasium.register("Spaces-v0", lambda: Strange(**options))
    try:
        with pytest.raises(ValueError, match=words.replace("Strange", "Spaces")):
            catalogue.make("gym:Spaces-v0")
    finally:
        del gymnasium.registry["Spaces-v0"]


@pytest.mark.parametrize("name, words", [
    ("gym:CartPol-v1", "gymnasium cannot make an environment 'CartPol-v1'.*Expected --env=gym:Name"),
    ("gym:no_such_module:Name-v0", "cannot make an environment 'no_such_module:Name-v0'"),
    ("cart_pol", "Unknown environment 'cart_pol'.*Did you mean 'cart_pole'")])
def test_unknown_names(name, words):
    with pytest.raises(ValueError, match=words):
        catalogue.make(name)


def test_without_gymnasium(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ValueError, match=r'Install the extra "rl": pip install usagi-suite\[rl\]'):
        catalogue.make("gym:CartPole-v1")
