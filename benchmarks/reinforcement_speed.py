"""Time to learn CartPole: our PPO against Stable-Baselines3's, and where the time of a DQN step goes.

    python -m benchmarks.reinforcement_speed --peers_python=/path/to/venv/bin/python [--seeds=5]

Both learn until the greedy policy's mean return over 100 episodes is 475 or more, tried every 2,000 steps, in a process
of its own, in turn: ours, theirs, ours, … Theirs has rl-zoo's tuned hyper-parameters for CartPole-v1, ours the suite's.
Trials are counted for neither, as theirs cost more than all the rest. `seconds` is acting and learning; `with_start`
the whole process less the trials: import, building, compiling too. The peer's Python has `pip install
stable-baselines3`.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

from benchmarks import common

ROOT = pathlib.Path(__file__).parents[1]
EVERY, LIMIT, WANTED, EPISODES = 2000, 100_000, 475, 100

OURS = f"""
import json, sys, time
began = time.perf_counter()
from apps.reinforcement import defaults
from apps.reinforcement.config import Config
from apps.reinforcement.environments import catalogue
from apps.reinforcement.evaluation import Evaluator
from apps.reinforcement.learner import Learner
config = Config(workdir="none", seed=int(sys.argv[1]), epochs={LIMIT // EVERY}, steps_per_epoch={EVERY})
environment = catalogue.make("cart_pole")
settings = defaults.resolve(config, environment.model)
learner = Learner(settings, environment)
trial = Evaluator(environment, learner.agent.policy, {EPISODES}, 500)
learner.advance(0)  # compiles, and makes no step
trial(0)
start, reached, trials = time.perf_counter(), None, 0.0
for epoch in range(settings.epochs):
    learner.advance((epoch + 1) * {EVERY})
    before = time.perf_counter()
    value = float(trial(epoch + 1)[0].mean())
    trials += time.perf_counter() - before
    if value >= {WANTED}:
        reached = int(learner.state.metrics.num_steps)
        break
end = time.perf_counter()
print(json.dumps({{"seconds": end - start - trials, "trials": trials, "steps": reached, "start": start - began,
                   "return": value}}))
"""

THEIRS = f"""
import json, sys, time
began = time.perf_counter()
import numpy as np, torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
torch.set_num_threads(int(sys.argv[2]))
seed = int(sys.argv[1])
environment, trials = make_vec_env("CartPole-v1", n_envs=8, seed=seed), make_vec_env("CartPole-v1", n_envs={EPISODES},
                                                                                     seed=seed + 1000)
# rl-zoo, hyperparams/ppo.yml, CartPole-v1
model = PPO("MlpPolicy", environment, n_steps=32, batch_size=256, gae_lambda=0.8, gamma=0.98, n_epochs=20, ent_coef=0.0,
            learning_rate=lambda left: 0.001 * left, clip_range=lambda left: 0.2 * left, seed=seed, device="cpu")

def trial():
    observation = trials.reset()
    playing, total = np.ones({EPISODES}, bool), np.zeros({EPISODES})
    while playing.any():
        action, _ = model.predict(observation, deterministic=True)
        observation, reward, done, _ = trials.step(action)
        total += np.where(playing, reward, 0)
        playing &= ~done
    return total.mean()

state = {{"next": {EVERY}, "steps": None, "value": 0.0, "trials": 0.0}}
def look(variables, _):
    if model.num_timesteps >= state["next"]:
        state["next"] += {EVERY}
        before = time.perf_counter()
        state["value"] = trial()
        state["trials"] += time.perf_counter() - before
        if state["value"] >= {WANTED}:
            state["steps"] = model.num_timesteps
            return False
    return True

start = time.perf_counter()
model.learn({LIMIT}, callback=look)
end = time.perf_counter()
print(json.dumps({{"seconds": end - start - state["trials"], "trials": state["trials"], "steps": state["steps"],
                   "start": start - began, "return": float(state["value"])}}))
"""

PROFILE = """
import json, time
import tensorflow as tf
from apps.reinforcement import defaults
from apps.reinforcement.config import Config
from apps.reinforcement.environments import catalogue
from apps.reinforcement.learner import Learner
found = {}
for prioritized in (False, True):
    config = Config(workdir="none", algorithm="dqn", prioritized=prioritized)
    environment = catalogue.make("cart_pole")
    settings = defaults.resolve(config, environment.model)
    learner = Learner(settings, environment)
    learner.advance(5000)  # a buffer with something in it
    buffer, replay, agent = learner._buffer, learner.state.replay, learner.agent

    def sampling(number):
        def body(i, replay, total):
            sample = buffer.get_next(replay, settings.batch_size, tf.stack([i, 7]))
            replay = buffer.update_priorities(replay, sample.index, tf.abs(sample.experience.reward[:, 0]) + 0.1)
            return i + 1, replay, total + tf.reduce_sum(sample.experience.observation)
        return tf.while_loop(lambda i, *_: i < number, body, (0, replay, 0.0))[2]

    def step(number):
        def body(i, replay, total):
            sample = buffer.get_next(replay, settings.batch_size, tf.stack([i, 7]))
            info = agent.train(sample.experience, sample.weight)
            replay = buffer.update_priorities(replay, sample.index, info.extra["td_error"])
            return i + 1, replay, total + info.loss
        return tf.while_loop(lambda i, *_: i < number, body, (0, replay, 0.0))[2]

    seconds = {}
    for name, function in (("sampling", sampling), ("step", step)):
        program = tf.function(function, jit_compile=True, autograph=False)
        program(tf.constant(10))
        rounds = []
        for _ in range(7):
            began = time.perf_counter()
            program(tf.constant(300)).numpy()
            rounds.append((time.perf_counter() - began) / 300)
        seconds[name] = sorted(rounds)[3]
    found["prioritised" if prioritized else "uniform"] = seconds
print(json.dumps(found))
"""


def run(python, program, *arguments):
    """(what a program prints as JSON at its end, seconds of its whole process less the trials)."""
    began = time.perf_counter()
    done = subprocess.run([python, "-c", program, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{python} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found, seconds - found.get("trials", 0.0)


def row_of(name, found):
    """Medians over the seeds; a run that did not get there counts as endless."""
    def median(key):
        values = [result[key] for result, _ in found]
        return None if None in values else round(statistics.median(values), 3)

    return {"program": name, "seeds": len(found), "seconds": median("seconds"), "steps": median("steps"),
            "start_seconds": median("start"), "with_start": round(statistics.median(whole for _, whole in found), 3),
            "reached": sum(result["steps"] is not None for result, _ in found)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers_python", required=True, help="Python of an environment with stable-baselines3")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first_seed", type=int, default=100, help="the defaults were tuned with 0 to 4")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    arguments = parser.parse_args()
    found = {"ours": [], "stable-baselines3": []}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        found["ours"].append(run(sys.executable, OURS, seed))
        found["stable-baselines3"].append(run(arguments.peers_python, THEIRS, seed, arguments.threads))
        for name, results in found.items():
            print(f"seed {seed}, {name}: {results[-1][0]}, process without trials {results[-1][1]:.1f} s", flush=True)
    profile, _ = run(sys.executable, PROFILE)
    shares = {f"sampling_share_of_a_dqn_step_{kind}": round(part["sampling"] / part["step"], 3)
              for kind, part in profile.items()}
    print(profile, shares)
    ours, theirs = (row_of(name, results) for name, results in found.items())
    both_reached = ours["reached"] == theirs["reached"] == arguments.seeds
    ratios = {"faster": round(theirs["seconds"] / ours["seconds"], 2) if both_reached else None,
              "faster_with_start": round(theirs["with_start"] / ours["with_start"], 2),
              "share_of_samples": round(ours["steps"] / theirs["steps"], 2) if both_reached else None}
    common.write("reinforcement_speed", [ours, theirs], **ratios, **shares, profile_seconds=profile)
    print(ratios)


if __name__ == "__main__":
    main()
