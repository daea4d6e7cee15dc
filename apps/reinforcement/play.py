"""Lets a saved policy act, shows what happens, and records it.

    python -m apps.reinforcement.play --policy=runs/cart_pole --record=cart_pole.gif
    python -m apps.reinforcement.play --policy=runs/cart_pole/export/int8.tflite --episodes=10 --show=none

A `.tflite` file runs in LiteRT, without the network's or the agent's code.
"""

import dataclasses
import json
import pathlib
import time

import numpy as np
import tensorflow as tf
from PIL import Image

from apps.common import config as config_lib
from apps.common import flagging
from apps.common.config import field
from apps.reinforcement import evaluation
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
    if config.env:
        return config.env
    for folder in policy_file(config.policy).absolute().parents[:2]:
        path = folder / config_lib.CONFIG_FILE
        if path.exists():
            return json.loads(path.read_text())["config"]["env"]
    raise ValueError(f"The environment of --policy={config.policy} is not known: there is no config.json near it. Give "
                     "--env.")


def load_policy(path):
    """observations [N, ...] -> outputs [N, ...] of a file, NumPy."""
    if path.suffix == ".tflite":
        return litert.Runner(path)
    return saved_model.load_keras(path)


def check_fits(predict, environment):
    """Raises ValueError unless a policy takes what the environment shows and answers with its actions."""
    spec, actions = environment.observation_spec, environment.action_spec
    sample = np.zeros([1, *spec.shape], spec.dtype.as_numpy_dtype)
    wanted = actions.num_values if actions.is_discrete else int(np.prod(actions.shape))
    try:
        received = predict(sample).shape
    except (ValueError, TypeError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"The policy does not take the observations of {environment.name}, {spec.dtype.name} of shape "
                         f"{list(spec.shape)}: {reason} Give the --env that it has learned.") from None
    if received != (1, wanted):
        raise ValueError(f"The policy answers with shape {list(received[1:])}, and {environment.name} has {wanted} "
                         "actions or numbers of an action. Give the --env that it has learned.")


class Scene:
    """What a pure environment looks like now.

    Args:
        environment: `Environment`.
    """

    def __init__(self, environment):
        self._environment = environment

    def text(self, running):
        """The state as text; the numbers of the observation where the environment draws none."""
        if self._environment.draw is None:
            return str(self._environment.observe(running.state).numpy()[0])
        return self._environment.draw(_first(running.state))

    def picture(self, running):
        """The state as an image.

        Raises:
            ValueError: the environment has no picture.
        """
        if self._environment.picture is None:
            raise ValueError(f"{self._environment.name} has no picture. Use --record=episode.txt.")
        return Image.fromarray(self._environment.picture(_first(running.state)))


def _first(state):
    return tf.nest.map_structure(lambda part: part.numpy()[0], state)


def play(config, output=print):
    """Plays the episodes; returns their returns."""
    path = policy_file(config.policy)
    environment, predict = catalogue.make(environment_name(config)), load_policy(path)
    check_fits(predict, environment)
    scene = Scene(environment)
    if config.record.endswith(".gif") and environment.picture is None:
        raise ValueError(f"{environment.name} has no picture. Use --record=episode.txt.")
    returns = []
    for episode in range(config.episodes):
        frames = []
        total, length = _episode(config, environment, predict, scene, episode, frames, output)
        returns.append(total)
        output(f"episode {episode + 1}: return {total:g}, {length} steps")
        if episode == 0 and config.record:
            write_record(config.record, frames)
    if len(returns) > 1:
        output(f"mean return {np.mean(returns):g} over {len(returns)} episodes")
    return returns


def _episode(config, environment, predict, scene, episode, frames, output):
    """(return, steps) of an episode, whose frames are added to a list where they are recorded."""
    limit = min(config.max_steps, environment.max_steps or config.max_steps)
    begin, *seeds = tf.unstack(environment_lib.split(tf.constant([config.seed, episode], tf.int32), limit + 1))
    running, time_step = environment_lib.reset(environment, 1, begin)
    total = 0.0
    for length, seed in enumerate(seeds, 1):
        _show(config, scene, running, episode, frames, output)
        action = evaluation.actions_of(environment.action_spec, predict(time_step.observation.numpy()))
        running, time_step = environment_lib.step(environment, running, tf.constant(action), seed)
        total += float(time_step.reward[0])
        if config.show == "text":
            output(f"step {length}: action {action[0]}, reward {float(time_step.reward[0]):g}\n")
        if bool(time_step.is_last()[0]):
            break
        time.sleep(config.delay)
    _show(config, scene, running, episode, frames, output)
    return total, length


def _show(config, scene, running, episode, frames, output):
    if config.show == "text":
        output(scene.text(running))
    if config.record and episode == 0:
        frames.append(scene.picture(running) if config.record.endswith(".gif") else scene.text(running))


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
