"""Twenty random kills in one training: does it end as well as undisturbed, and what does a kill cost?

    python -m benchmarks.chaos [--distribution=async] [--kills=20] [--folder=runs/chaos]

ResNet-20 of half its width on digits in a cluster of processes on this machine. Again and again a member chosen at
random is killed (SIGKILL) or, one time in five, stopped (SIGSTOP), once training has gone on after the kill before.
Seconds lost: from the kill to the first checkpoint beyond the step that had been reached.
"""

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import signal
import sys
import threading
import time

from benchmarks import common
from strategies.supervisor import Supervisor

FLAGS = ["--data=digits", "--model=resnet20", "--width=0.5", "--batch_size=32", "--augmentation=shift",
         "--shift_pixels=1", "--keep=last", "--export=none", "--checkpoint_seconds=1", "--cluster_timeout=10",
         "--verbose=0"]
SIZES = {"async": {"workers": 2, "servers": 1}, "multi_worker": {"workers": 2}}
_LONGEST = 300  # seconds that a recovery may take before this program says that there was none


class Chaos(threading.Thread):
    """Hurts the members of a supervisor's cluster until it has done so often enough."""

    def __init__(self, supervisor, workdir, kills, seed):
        super().__init__(daemon=True)
        self._supervisor, self._workdir, self._kills, self._random = supervisor, workdir, kills, random.Random(seed)
        self.log = []

    def run(self):
        step = self._wait_beyond(0)
        while len(self.log) < self._kills:
            time.sleep(self._random.uniform(0, 4))
            step = max(step, self._step())
            if (self._workdir / "metrics.json").exists():
                return
            name, process = self._random.choice(sorted(self._supervisor.processes.items()))
            number = signal.SIGSTOP if self._random.random() < 0.2 else signal.SIGKILL
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue
            began = time.monotonic()
            reached = self._wait_beyond(step)
            self.log.append({"victim": name, "signal": signal.Signals(number).name, "step": step,
                             "seconds_lost": round(time.monotonic() - began, 1)})
            print(self.log[-1], flush=True)
            step = reached

    def _step(self):
        return max((int(re.search(r"\d+", path.name)[0]) for path in self._workdir.glob("checkpoints/step_*.npz")),
                   default=0)

    def _wait_beyond(self, step):
        until = time.monotonic() + _LONGEST
        while self._step() <= step:
            if time.monotonic() > until:
                raise RuntimeError(f"No step beyond {step} within {_LONGEST} s.")
            time.sleep(0.1)
        return self._step()


def train(workdir, distribution, epochs, kills, seed=0):
    """(metrics, seconds of the run, log of the kills, restarts)."""
    shutil.rmtree(workdir, ignore_errors=True)
    supervisor = Supervisor(
        [sys.executable, "-m", "apps.image_classification.train", f"--distribution={distribution}",
         f"--epochs={epochs}", f"--workdir={workdir}", *FLAGS], report=lambda line: None, **SIZES[distribution])
    chaos = Chaos(supervisor, workdir, kills, seed)
    chaos.start()
    began = time.monotonic()
    code = supervisor.run()
    if code:
        raise RuntimeError(f"The training ended with code {code}.")
    metrics = json.loads((workdir / "metrics.json").read_text())
    return metrics, time.monotonic() - began, chaos.log, supervisor.restarts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--distribution", choices=SIZES, default="async")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default="runs/chaos")
    arguments = parser.parse_args()
    rows, log = [], []
    for name, kills in (("undisturbed", 0), ("killed", arguments.kills)):
        metrics, seconds, found, restarts = train(pathlib.Path(arguments.folder) / f"{arguments.distribution}_{name}",
                                                  arguments.distribution, arguments.epochs, kills, arguments.seed)
        lost = [entry["seconds_lost"] for entry in found]
        rows.append({"run": name, "test_accuracy": round(metrics["test_accuracy"], 4), "steps": metrics["steps"],
                     "seconds": round(seconds), "kills": len(found), "restarts": restarts,
                     "median_seconds_lost": common.summary(lost)["median"] if lost else 0.0,
                     "most_seconds_lost": max(lost, default=0.0)})
        log += found
    common.write(f"chaos_{arguments.distribution}", rows, kills=log)


if __name__ == "__main__":
    main()
