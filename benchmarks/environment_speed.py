"""CartPole with random actions: steps a second of ours beside gymnasium's vector environments.

    python -m benchmarks.environment_speed [--rounds=15] [--seconds=0.5]

Each is stepped as it is used: gymnasium's with an array of random actions drawn for each step, ours as one program that
draws the actions, steps, and begins new episodes, and gives back the sum of the rewards and the number of episodes. All
count every step of every environment, those that only begin an episode included. Both sides alternate; a round of
each takes about `--seconds`.
"""

import argparse
import time

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

from apps.reinforcement.environments import environment as environments
from apps.reinforcement.environments.cart_pole import cart_pole
from apps.reinforcement.environments.environment import fold, split, uniform
from benchmarks import common

PEERS = (("SyncVectorEnv", 64), ("CartPoleVectorEnv", 1024), ("CartPoleVectorEnv", 4096))


def ours(batch, steps):
    """A function without arguments that plays `steps` steps of a batch, going on from call to call."""
    environment = cart_pole()

    @tf.function(jit_compile=True)
    def play(running, number):
        def one(time_done, running, reward, episodes):
            seeds = split(fold(tf.stack([number, 1]), time_done), 2)
            action = tf.cast(2 * uniform([batch], seeds[0]), tf.int32)
            running, shown = environments.step(environment, running, action, seeds[1])
            return (time_done + 1, running, reward + tf.reduce_sum(shown.reward),
                    episodes + tf.reduce_sum(tf.cast(shown.is_first(), tf.int32)))

        return tf.while_loop(lambda time_done, *_: time_done < steps, one, (0, running, 0.0, 0))[1:]

    held = {"running": environments.reset(environment, batch, tf.constant([1, 2]))[0], "number": 0}

    def call():
        held["running"], reward, episodes = play(held["running"], tf.constant(held["number"]))
        held["number"] += 1
        return float(reward) / max(1, int(episodes))

    return call


def theirs(name, batch, steps):
    """The same of gymnasium."""
    envs = (gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * batch) if name == "SyncVectorEnv"
            else CartPoleVectorEnv(batch))
    envs.reset(seed=1)
    rng = np.random.default_rng(1)

    def call():
        reward, episodes = 0.0, 0
        for _ in range(steps):
            _, gained, terminated, truncated, _ = envs.step(rng.integers(0, 2, batch))
            reward += gained.sum()
            episodes += int((terminated | truncated).sum())
        return float(reward) / max(1, episodes)

    return call


def steps_that_take(make, seconds):
    """Number of steps that `make(steps)()` does in about so many seconds."""
    steps = 16
    while True:
        call = make(steps)
        call()
        began = time.perf_counter()
        call()
        spent = time.perf_counter() - began
        if spent > seconds / 8:
            return max(1, int(steps * seconds / spent))
        steps *= 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="a round of each")
    options = parser.parse_args()
    rows, kept = [], {}
    for name, batch in PEERS:
        makes = {"ours": lambda steps, batch=batch: ours(batch, steps),
                 "theirs": lambda steps, name=name, batch=batch: theirs(name, batch, steps)}
        steps = {key: steps_that_take(make, options.seconds) for key, make in makes.items()}
        calls = {key: make(steps[key]) for key, make in makes.items()}
        lengths = {key: call() for key, call in calls.items()}
        seconds = common.paired_seconds(calls, rounds=options.rounds)
        each = {key: values / (steps[key] * batch) for key, values in seconds.items()}  # seconds of one step
        low, ratio, high = common.ratio_interval(each["theirs"], each["ours"])
        rows.append({"peer": name, "environments": batch, "ours_steps_s": 1 / np.median(each["ours"]),
                     "peer_steps_s": 1 / np.median(each["theirs"]), "ratio": ratio, "ratio_low_95": low,
                     "ratio_high_95": high, "mean_return": lengths["ours"], "peer_mean_return": lengths["theirs"]})
        kept[f"{name}_{batch}"] = {"steps": steps, **{key: values.round(4).tolist() for key, values in seconds.items()}}
    common.write("environment_speed", rows, seconds=kept, gymnasium=gymnasium.__version__)


if __name__ == "__main__":
    main()
