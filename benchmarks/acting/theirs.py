"""The other side of `reinforcement_speed`: Stable-Baselines3's PPO, with rl-zoo's hyper-parameters for CartPole-v1.

Runs in an environment of its own, without this suite. The case comes as JSON in the first argument.
"""

import json
import sys
import time

BEGAN = time.perf_counter()  # before what takes long to import

import numpy as np  # noqa: E402
import torch  # noqa: E402
from stable_baselines3 import PPO  # noqa: E402
from stable_baselines3.common.env_util import make_vec_env  # noqa: E402


class Trials:
    """Tries the greedy policy every so many steps and ends the learning when it is good enough."""

    def __init__(self, model, case):
        self._model, self._case, self._next = model, case, case["every"]
        self._environments = make_vec_env("CartPole-v1", n_envs=case["episodes"], seed=case["seed"] + 1000)
        self.seconds, self.value, self.steps = 0.0, 0.0, None

    def __call__(self, variables, _):
        """What Stable-Baselines3 calls after each step: whether to go on."""
        if self._model.num_timesteps >= self._next:
            self._next += self._case["every"]
            before = time.perf_counter()
            self.value = self._play()
            self.seconds += time.perf_counter() - before
            if self.value >= self._case["wanted"]:
                self.steps = self._model.num_timesteps
                return False
        return True

    def _play(self):
        observation = self._environments.reset()
        playing, total = np.ones(self._case["episodes"], bool), np.zeros(self._case["episodes"])
        while playing.any():
            action, _ = self._model.predict(observation, deterministic=True)
            observation, reward, done, _ = self._environments.step(action)
            total += np.where(playing, reward, 0)
            playing &= ~done
        return float(total.mean())


def main():
    case = json.loads(sys.argv[1])
    torch.set_num_threads(case["threads"])
    # rl-zoo, hyperparams/ppo.yml, CartPole-v1
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1", n_envs=8, seed=case["seed"]), n_steps=32, batch_size=256,
                gae_lambda=0.8, gamma=0.98, n_epochs=20, ent_coef=0.0, learning_rate=lambda left: 0.001 * left,
                clip_range=lambda left: 0.2 * left, seed=case["seed"], device="cpu")
    trials = Trials(model, case)
    start = time.perf_counter()
    model.learn(case["limit"], callback=trials)
    seconds = time.perf_counter() - start - trials.seconds
    print(json.dumps({"seconds": seconds, "trials": trials.seconds, "steps": trials.steps, "start": start - BEGAN,
                      "return": trials.value}))


if __name__ == "__main__":
    main()
