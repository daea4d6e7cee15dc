"""The program that sweeps: what it refuses before a trial is made. Sweeps: tests/apps/common/test_tuning.py."""

import json
import subprocess
import sys

import pytest
from absl import flags

from apps import tune
from apps.common import flagging
from apps.image_classification.config import Config


def run_tune(*arguments):
    values, before = flags.FLAGS, set(flags.FLAGS)
    tune.define_flags(values)
    flagging.define_flags(Config, values)
    try:
        tune.main(values(["tune", *arguments]))
    finally:
        for name in set(values) - before:
            delattr(values, name)


@pytest.mark.parametrize("arguments, message", [
    (["--explain"], "--explain tells of one run; a sweep makes many"),
    (["--search=learning_rate,", "units"], "Unexpected argument 'units'"),
    (["--distribution=multi_worker"], "--distribution=multi_worker is for one training; a sweep makes many"),
    (["--validation_fraction=0"], "judged by validation_accuracy, and these data and flags leave no validation part")])
def test_what_no_sweep_can_do(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run_tune(f"--workdir={tmp_path / 'sweep'}", *arguments)
    assert not (tmp_path / "sweep").exists()


def test_trials_on_two_devices(tmp_path):
    """They have to be there before the data are read."""
    line = [sys.executable, "-m", "apps.tune", "--distribution=sync", "--num_devices=2", "--trials=1", "--tuner=random",
            "--model=wrn_10_1", "--width=0.5", "--epochs=1", "--export=none", "--search=learning_rate", "--verbose=0",
            f"--workdir={tmp_path}"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(json.loads((tmp_path / "sweep.json").read_text())["trials"]) == 1
