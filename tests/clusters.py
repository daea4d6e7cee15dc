"""Runs a training as a cluster of processes and hurts it on the way."""

import pathlib
import re
import sys
import threading
import time

from strategies.supervisor import Supervisor

FLAGS = ["--data=digits", "--model=resnet20", "--width=0.25", "--dropout=0.2", "--batch_size=32", "--export=none",
         "--checkpoint_seconds=1", "--verbose=0"]
_PATIENCE = 240  # seconds until a run must have reached a step


def last_step(workdir):
    """Step of the newest checkpoint, 0 without."""
    steps = [int(re.search(r"\d+", path.name)[0]) for path in pathlib.Path(workdir).glob("**/checkpoints/step_*.npz")]
    return max(steps, default=0)


def train(workdir, *flags, workers, servers=0, hurt=None, after_step=0, app="apps.image_classification.train",
          common=FLAGS):
    """Trains under `async` (with servers) or `multi_worker`; calls `hurt(supervisor)` once a step has been saved.

    Returns:
        (exit code, the supervisor's lines, restarts).
    """
    command = [sys.executable, "-m", app, f"--distribution={'async' if servers else 'multi_worker'}", *common,
               f"--workdir={workdir}", *flags]
    lines = []
    supervisor = Supervisor(command, workers=workers, servers=servers, max_restarts=5, report=lines.append)

    def wait_and_hurt():
        until = time.monotonic() + _PATIENCE
        while last_step(workdir) < after_step and time.monotonic() < until:
            time.sleep(0.2)
        hurt(supervisor)

    if hurt is not None:
        threading.Thread(target=wait_and_hurt, daemon=True).start()
    return supervisor.run(), lines, supervisor.restarts
