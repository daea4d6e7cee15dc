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
import os
import pathlib
import statistics
import subprocess
import sys
import time

from benchmarks import common, runs

FOLDER = pathlib.Path(__file__).parent / "acting"
CASE = {"every": 2000, "limit": 100_000, "wanted": 475, "episodes": 100}  # steps, steps, return, episodes of a trial


def run(python, program, **case):
    """(what a program of `FOLDER` prints as JSON at its end, seconds of its whole process less the trials)."""
    began = time.perf_counter()
    done = subprocess.run([python, FOLDER / program, json.dumps(case)], cwd=runs.ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(runs.ROOT)})
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
        found["ours"].append(run(sys.executable, "ours.py", seed=seed, **CASE))
        found["stable-baselines3"].append(run(arguments.peers_python, "theirs.py", seed=seed,
                                              threads=arguments.threads, **CASE))
        for name, results in found.items():
            print(f"seed {seed}, {name}: {results[-1][0]}, process without trials {results[-1][1]:.1f} s", flush=True)
    profile, _ = run(sys.executable, "replay_share.py")
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
