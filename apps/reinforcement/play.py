"""Lets a saved policy act, shows what happens, and records it.

    python -m apps.reinforcement.play --policy=runs/cart_pole --record=runs/cart_pole.gif
    python -m apps.reinforcement.play --policy=runs/cart_pole/export/int8.tflite --episodes=10 --show=none

A `.tflite` file runs in LiteRT, without the network's or the agent's code.
"""

import dataclasses
import functools
import pathlib
import time

import numpy as np
import tensorflow as tf
from PIL import Image

from apps.common import config as config_lib
from apps.common import flagging
from apps.common.config import field
from apps.reinforcement import evaluation, policy_files
from apps.reinforcement.environments import catalogue
from apps.reinforcement.environments import environment as environment_lib
from strategies.export import litert, saved_model

SHOWS = ("text", "none")


@dataclasses.dataclass(frozen=True)
class PlayConfig:
    """Options of this program."""

    policy: str = field("", "Who acts: the workdir of a run, a .tflite or a .keras file.")
    env: str = field("", "The environment. Empty: that of the policy's run, found near the file.")
    episodes: int = field(1, "Episodes to play.", minimum=1)
    max_steps: int = field(1000, "Steps after which an episode is cut.", minimum=1)
    show: str = field("text", "text: draws every step; none: the results only.", choices=SHOWS)
    delay: float = field(0.0, "Seconds between two steps.", minimum=0)
    record: str = field("", "File to write the first episode to: .gif, or .txt with drawings of characters.")
    seed: int = field(0, "Of the episodes.", minimum=0)

    def __post_init__(self):
        for item in dataclasses.fields(self):
            config_lib.check_value(item, getattr(self, item.name))
        if not self.policy:
            raise ValueError("--policy is missing: expected the workdir of a run, a .tflite or a .keras file, such as "
                             "--policy=runs/cart_pole.")
        if self.record and pathlib.Path(self.record).suffix not in (".gif", ".txt"):
            raise ValueError(f"--record must end with .gif or .txt; received {self.record!r}.")


def policy_file(policy):
    """The file of a policy: itself, or that of a workdir.

    Raises:
        ValueError: there is none.
    """
    path = pathlib.Path(policy)
    if path.is_dir():
        path = path / "model.keras"
    if path.suffix not in (".keras", ".tflite") or not path.exists():
        raise ValueError(f"--policy={policy} is no policy: expected the workdir of a run that has ended, a .tflite or "
                         "a .keras file.")
    return path


def environment_name(config):
    """The environment that is played.

    Raises:
        ValueError: it is not given, and no run stands near the policy.
    """
    return config.env or policy_files.environment_near(policy_file(config.policy), "policy")


def load_policy(path):
    """observations [N, ...] -> outputs [N, ...] of a file, NumPy."""
    if path.suffix == ".tflite":
        return litert.Runner(path)
    return saved_model.load_keras(path)


class Pure:
    """An episode of a pure environment.

    Args:
        environment: `Environment`.
        config: `PlayConfig`.
        episode: its number.
        compiled_step: `environment.step` of this environment, compiled once for all episodes.
    """

    def __init__(self, environment, config, episode, compiled_step):
        self._environment, self._step, limit = environment, compiled_step, limit_of(environment, config)
        key = tf.constant([config.seed, episode], tf.int32)
        begin, *self._seeds = tf.unstack(environment_lib.split(key, limit + 1))
        self._running, self.time_step = environment_lib.reset(environment, 1, begin)

    def step(self, action):
        """Takes an action [1, ...]."""
        self._running, self.time_step = self._step(self._running, tf.constant(action), self._seeds.pop())

    def frame(self, kind):
        """What it looks like: "image" or "text"; the numbers of the observation where the environment draws none."""
        state = tf.nest.map_structure(lambda part: part.numpy()[0], self._running.state)
        if kind == "image":
            return Image.fromarray(self._environment.picture(state))
        return str(self.time_step.observation.numpy()[0]) if self._environment.draw is None \
            else self._environment.draw(state)


class OfGymnasium:
    """The same of a `gym.GymEnvironment`."""

    def __init__(self, environment, config, episode):
        wanted = "rgb_array" if config.record.endswith(".gif") else "ansi"
        self._mode = wanted if wanted in environment.render_modes else None
        seed = int(np.random.default_rng([config.seed, episode]).integers(2**31 - 1))
        self._batch = environment.open(1, seed, **({"render_mode": self._mode} if self._mode else {}))
        self.time_step = self._batch.reset()

    def step(self, action):
        """Takes an action [1, ...]."""
        self.time_step = self._batch.step(action)

    def frame(self, kind):
        """What it renders; the numbers of the observation where it renders no text."""
        if kind == "image":
            return Image.fromarray(self._batch.pictures()[0])
        return self._batch.pictures()[0] if self._mode == "ansi" else str(self.time_step.observation.numpy()[0])


def scenes(environment, config):
    """Number of an episode -> its `Pure` or `OfGymnasium`."""
    if not isinstance(environment, environment_lib.Environment):
        return functools.partial(OfGymnasium, environment, config)
    step = tf.function(functools.partial(environment_lib.step, environment), autograph=False)
    return functools.partial(Pure, environment, config, compiled_step=step)


def limit_of(environment, config):
    """Steps after which an episode is cut."""
    return min(config.max_steps, environment.max_steps or config.max_steps)


def check_pictures(environment):
    """Raises ValueError where an environment has no picture."""
    has = environment.picture is not None if isinstance(environment, environment_lib.Environment) \
        else "rgb_array" in environment.render_modes
    if not has:
        raise ValueError(f"{environment.name} has no picture. Use --record=episode.txt.")


def play(config, output=print):
    """Plays the episodes; returns their returns."""
    path = policy_file(config.policy)
    environment, predict = catalogue.make(environment_name(config)), load_policy(path)
    policy_files.check_fits(predict, environment)
    if config.record.endswith(".gif"):
        check_pictures(environment)
    returns, scene_of = [], scenes(environment, config)
    for episode in range(config.episodes):
        frames = []
        total, length = _episode(config, environment, predict, scene_of(episode), frames if episode == 0 else None,
                                 output)
        returns.append(total)
        output(f"episode {episode + 1}: return {total:g}, {length} steps")
        if episode == 0 and config.record:
            write_record(config.record, frames)
    if len(returns) > 1:
        output(f"mean return {np.mean(returns):g} over {len(returns)} episodes")
    return returns


def _episode(config, environment, predict, scene, frames, output):
    """(return, steps) of an episode, whose frames are added to a list, if there is one and they are recorded."""
    total = 0.0
    for length in range(1, limit_of(environment, config) + 1):
        _show(config, scene, frames, output)
        action = evaluation.actions_of(environment.action_spec, predict(scene.time_step.observation.numpy()))
        scene.step(action)
        reward = float(scene.time_step.reward[0])
        total += reward
        if config.show == "text":
            output(f"step {length}: action {action[0]}, reward {reward:g}\n")
        if bool(scene.time_step.is_last()[0]):
            break
        time.sleep(config.delay)
    _show(config, scene, frames, output)
    return total, length


def _show(config, scene, frames, output):
    if config.show == "text":
        output(scene.frame("text"))
    if config.record and frames is not None:
        frames.append(scene.frame("image" if config.record.endswith(".gif") else "text"))


def write_record(path, frames):
    """Writes frames, images or texts, to a .gif or .txt file."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".txt":
        path.write_text("\n\n".join(frames) + "\n")
    else:
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, loop=0)


def main(config):
    """Plays as the configuration says."""
    play(config)


if __name__ == "__main__":
    flagging.run_app(PlayConfig, main)
