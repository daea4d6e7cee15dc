"""The program that sweeps: what it refuses before a trial is made. Sweeps: tests/apps/common/test_tuning.py."""

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
    (["--validation_fraction=0"], "judged by validation_accuracy, and these data and flags leave no validation part")])
def test_what_no_sweep_can_do(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run_tune(f"--workdir={tmp_path / 'sweep'}", *arguments)
    assert not (tmp_path / "sweep").exists()
