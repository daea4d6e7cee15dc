import dataclasses
import json
import math

import pytest

from apps.common import fitting, tuning
from apps.common.config import Options, Range, TrainingConfig, field


@dataclasses.dataclass(frozen=True)
class Config(TrainingConfig):
    learning_rate: float = field(0.1, "Rate.", above=0, search=Range(1e-3, 1.0, log=True))
    units: int = field(4, "Units.", minimum=1, search=Range(1, 8))
    model: str = field("a", "Model.", search=Options(("a", "b")))
    batch_size: int = field(8, "Rows.", minimum=1)
    epochs: int = field(4, "Epochs.", minimum=0)


def score(config):
    """Best at learning rate .03 and model b."""
    return -abs(math.log(config.learning_rate / 0.03)) + (config.model == "b")


def quiet(seen):
    def train(config):
        seen.append(config)
        return {"score": score(config), "other": 1.0}
    return train


@pytest.mark.parametrize("tuner", tuning.TUNERS)
def test_sweep_finds_the_best_of_its_trials(tmp_path, tuner):
    seen = []
    results = tuning.sweep(Config(workdir=str(tmp_path)), quiet(seen), objective="score", tuner=tuner, trials=6)
    best = max(seen, key=score)
    assert results[0]["score"] == pytest.approx(score(best))
    assert results[0]["values"]["model"] == best.model
    assert len({config.workdir for config in seen}) == len(seen) >= 4
    assert json.loads((tmp_path / "sweep.json").read_text())["trials"][0] == results[0]
    assert f"| {results[0]['trial']} |" in (tmp_path / "sweep.md").read_text()


def test_values_stay_in_their_ranges_and_others_stay_fixed(tmp_path):
    seen = []
    tuning.sweep(Config(workdir=str(tmp_path)), quiet(seen), objective="score", trials=12,
                 names=["learning_rate", "units"])
    assert all(1e-3 <= c.learning_rate <= 1 and 1 <= c.units <= 8 and c.model == "a" for c in seen)
    assert min(c.learning_rate for c in seen) < 0.03 < max(c.learning_rate for c in seen)  # logarithmic


def test_hyperband_gives_epochs_to_its_rungs(tmp_path):
    seen = []
    tuning.sweep(Config(workdir=str(tmp_path), epochs=9), quiet(seen), objective="score", tuner="hyperband")
    assert {c.epochs for c in seen} == {3, 9} or {c.epochs for c in seen} == {1, 3, 9}


def test_killed_sweep_goes_on_with_the_same_trial(tmp_path):
    base, killed, after, straight = Config(workdir=str(tmp_path / "killed")), [], [], []

    def train_until_killed(config):
        killed.append(config)
        if len(killed) == 3:
            raise KeyboardInterrupt
        return {"score": score(config)}

    with pytest.raises(KeyboardInterrupt):
        tuning.sweep(base, train_until_killed, objective="score", trials=5)
    tuning.sweep(base, quiet(after), objective="score", trials=5)
    tuning.sweep(base.replace(workdir=str(tmp_path / "straight")), quiet(straight), objective="score", trials=5)
    assert after[0] == killed[2]
    assert [c.learning_rate for c in killed[:2] + after] == [c.learning_rate for c in straight]


def test_a_sweep_that_is_asked_to_end_does_and_goes_on_with_the_same_trial(tmp_path):
    base, seen, after = Config(workdir=str(tmp_path)), [], []

    def train(config):
        seen.append(config)
        if len(seen) == 2:
            raise fitting.Terminated(7)
        return {"score": score(config)}

    with pytest.raises(fitting.Terminated, match="saved at step 7"):
        tuning.sweep(base, train, objective="score", trials=4)
    assert len(seen) == 2
    tuning.sweep(base, quiet(after), objective="score", trials=4)
    assert after[0] == seen[1] and len(after) == 3


def test_the_table_has_trials_that_hyperband_promoted_and_others(tmp_path):
    """More epochs are better, so the best trial is one of which Hyperband notes whence it comes."""
    results = tuning.sweep(Config(workdir=str(tmp_path), epochs=9), lambda config: {"score": config.epochs},
                           objective="score", tuner="hyperband")
    assert "tuner/trial_id" in results[0]["values"] and "tuner/trial_id" not in results[-1]["values"]
    assert len((tmp_path / "sweep.md").read_text().splitlines()) == len(results) + 4


def test_failed_trials_are_passed_over(tmp_path):
    calls = []

    def train(config):
        calls.append(config)
        if len(calls) % 2:
            raise ValueError("diverged")
        return {"score": 1.0}

    assert len(tuning.sweep(Config(workdir=str(tmp_path)), train, objective="score", trials=4)) == 2


def test_no_completed_trial_is_an_error(tmp_path):
    def train(config):
        raise ValueError("always diverges")

    with pytest.raises(RuntimeError, match="None of the 3 trials completed; there is no best. .*always diverges"):
        tuning.sweep(Config(workdir=str(tmp_path)), train, objective="score", trials=3)
    assert not (tmp_path / "sweep.json").exists()


def test_bad_input(tmp_path):
    base = Config(workdir=str(tmp_path / "sweep"))
    with pytest.raises(ValueError, match="Unknown tuner 'bayes'.*Did you mean 'bayesian'"):
        tuning.sweep(base, quiet([]), objective="score", tuner="bayes")
    with pytest.raises(ValueError, match="Unknown searchable field 'batch_size': expected one of"):
        tuning.sweep(base, quiet([]), objective="score", names=["batch_size"])
    with pytest.raises(ValueError, match="--distribution=async is for one training; a sweep makes many"):
        tuning.sweep(base.replace(distribution="async"), quiet([]), objective="score")
    with pytest.raises(ValueError, match="--tuner=hyperband gives .* with --time_budget all would train for the same"):
        tuning.sweep(base.replace(time_budget=1.0), quiet([]), objective="score", tuner="hyperband")
    assert not (tmp_path / "sweep").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is not empty and holds no sweep"):
        tuning.sweep(base.replace(workdir=str(tmp_path)), quiet([]), objective="score")
    tuning.sweep(base, quiet([]), objective="score", trials=2)
    with pytest.raises(ValueError, match=r"another.*|holds a sweep with other settings \(trials, epochs\)"):
        tuning.sweep(base.replace(epochs=7), quiet([]), objective="score", trials=3)
