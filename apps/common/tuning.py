"""Sweeps with KerasTuner over the search ranges of a configuration.

KerasTuner's stock tuners take Keras 3 models only; with others every trial fails and a "best" is reported all the same.
So the suite hands KerasTuner's oracles (random, Bayesian, Hyperband) a trial that is an ordinary run of the application
in its own workdir, which the application itself resumes after a kill.
"""

import dataclasses
import json
import pathlib

import keras_tuner
import keras_tuner.engine.base_tuner
import keras_tuner.errors
import keras_tuner.oracles

from apps.common import config as config_lib
from apps.common import reporting
from layers.checking import unknown_name

TUNERS = ("random", "bayesian", "hyperband")


def search_space(cls, names=()):
    """KerasTuner's space made of the fields of `cls` that have a search range.

    Args:
        cls: configuration class.
        names: fields to search; empty for all that have a range.

    Raises:
        ValueError: a name that is no field or has no range.
    """
    ranges = {item.name: item for item in dataclasses.fields(cls) if item.metadata["search"] is not None}
    for name in names:
        if name not in ranges:
            raise unknown_name("searchable field", name, ranges)
    space = keras_tuner.HyperParameters()
    for name in names or ranges:
        item = ranges[name]
        search = item.metadata["search"]
        if isinstance(search, config_lib.Options):
            space.Choice(name, list(search.values))
            continue
        sampling = "log" if search.log else "linear"
        if item.type is int:
            space.Int(name, int(search.low), int(search.high), sampling=sampling)
        else:
            space.Float(name, search.low, search.high, sampling=sampling)
    return space


def make_oracle(tuner, *, objective, direction, space, trials, max_epochs, seed):
    """KerasTuner's oracle of that name.

    Raises:
        ValueError: unknown tuner.
    """
    common = {"objective": keras_tuner.Objective(objective, direction), "hyperparameters": space, "seed": seed,
              "tune_new_entries": False, "allow_new_entries": False,
              "max_consecutive_failed_trials": 10**6}
    if tuner == "random":
        return keras_tuner.oracles.RandomSearchOracle(max_trials=trials, **common)
    if tuner == "bayesian":
        return keras_tuner.oracles.BayesianOptimizationOracle(max_trials=trials, **common)
    if tuner == "hyperband":
        return keras_tuner.oracles.HyperbandOracle(max_epochs=max_epochs, **common)
    raise unknown_name("tuner", tuner, TUNERS)


class Sweep(keras_tuner.engine.base_tuner.BaseTuner):
    """Runs `train(config)` once a trial, in `<directory>/trials/trial_<id>/run`.

    Args:
        oracle: which values to try next.
        train: `train(config) -> metrics`; the objective is one of them.
        base: configuration of what the sweep does not vary; its workdir is the sweep's.
    """

    def __init__(self, oracle, train, base):
        self._train = train
        self._base = base
        super().__init__(oracle, directory=base.workdir, project_name="trials")

    def on_trial_begin(self, trial):
        # Before the trial runs, so that a sweep killed in it knows of it and takes it up again.
        self.save()

    def run_trial(self, trial):
        values = {k: v for k, v in trial.hyperparameters.values.items() if not k.startswith("tuner/")}
        folder = pathlib.Path(self.get_trial_dir(trial.trial_id)) / "run"
        # Hyperband gives each rung its number of epochs; a rung trains anew, with a schedule scaled to it.
        epochs = trial.hyperparameters.values.get("tuner/epochs", self._base.epochs)
        print(f"trial {trial.trial_id}: " + ", ".join(f"{k}={reporting.format_value(v)}" for k, v in values.items()))
        try:
            metrics = self._train(self._base.replace(workdir=str(folder), epochs=epochs, **values))
        except Exception as error:
            if hasattr(error, "exit_code"):  # asked to end: the sweep does, and the trial goes on in the next one
                raise keras_tuner.errors.FatalError(str(error)) from error
            print(f"trial {trial.trial_id} failed: {error}")
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        return {self.oracle.objective.name: metrics[self.oracle.objective.name]}


def check(base, tuner):
    """Raises ValueError for a configuration of which a sweep cannot be made."""
    if base.distribution in config_lib.CLUSTERS:
        raise ValueError(f"--distribution={base.distribution} is for one training; a sweep makes many in one process. "
                         "Use --distribution=single or sync.")
    if tuner == "hyperband" and base.time_budget:
        raise ValueError("--tuner=hyperband gives the trials that promise most more epochs; with --time_budget all "
                         "would train for the same time. Give --epochs, or another tuner.")


def sweep(base, train, *, objective, direction="max", tuner="random", trials=8, names=()):
    """Runs or resumes a sweep and writes `<workdir>/sweep.json` and `sweep.md`.

    Returns:
        the completed trials, best first: list of dictionaries (trial, score, values).

    Raises:
        ValueError: unknown tuner or field; a workdir of another sweep; a strategy of several processes; a time budget
            for Hyperband.
        RuntimeError: no trial completed; the message holds the last error.
    """
    check(base, tuner)
    oracle = make_oracle(tuner, objective=objective, direction=direction, space=search_space(type(base), names),
                         trials=trials, max_epochs=max(base.epochs, 2),
                         seed=base.seed + 1)  # KerasTuner takes 0 for "any"
    _check_same_sweep(base, {"tuner": tuner, "trials": trials, "objective": objective, "names": list(names)})
    runner = Sweep(oracle, train, base)
    try:
        runner.search()
    except keras_tuner.errors.FatalError as error:
        raise error.__cause__ or error from None
    done = [t for t in oracle.trials.values() if t.status == "COMPLETED"]
    if not done:
        messages = [t.message.strip().splitlines()[-1] for t in oracle.trials.values() if t.message]
        raise RuntimeError(f"None of the {len(oracle.trials)} trials completed; there is no best. "
                           f"Last error: {messages[-1] if messages else 'none recorded'}")
    results = [{"trial": t.trial_id, "score": t.score, "values": t.hyperparameters.values} for t in done]
    results.sort(key=lambda r: r["score"], reverse=direction == "max")
    _write_results(base, objective, results, len(oracle.trials))
    return results


def _check_same_sweep(base, settings):
    """Refuses a workdir that holds a sweep with other settings; notes those of a new one."""
    path = pathlib.Path(base.workdir) / "sweep_config.json"
    settings = {**settings, "base": config_lib.to_dict(base)}
    if path.exists():
        old = json.loads(path.read_text())
        changed = [k for k in settings if k != "base" and old[k] != settings[k]]
        changed += config_lib.differences(config_lib.from_dict(type(base), old["base"]), base)
        if changed:
            raise ValueError(f"--workdir={base.workdir} holds a sweep with other settings ({', '.join(changed)}). "
                             "Repeat its flags to resume it, or choose another --workdir.")
        return
    folder = path.parent
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--workdir={base.workdir} is not empty and holds no sweep. Choose another --workdir.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--workdir={base.workdir} cannot be written ({error.strerror}). Choose another.") from None
    config_lib.write_json(path, settings)


def _write_results(base, objective, results, num_trials):
    folder = pathlib.Path(base.workdir)
    config_lib.write_json(folder / "sweep.json", {"objective": objective, "num_trials": num_trials, "trials": results})
    # Hyperband notes of the trials that it promotes more than of the others.
    names = list(dict.fromkeys(name for r in results for name in r["values"]))
    rows = [[r["trial"], f"{r['score']:.4f}", *(r["values"].get(name, "") for name in names)] for r in results]
    table = reporting.markdown_table(["trial", objective, *names], rows)
    (folder / "sweep.md").write_text(f"# Sweep of {num_trials} trials, {len(results)} completed\n\n{table}\n")
    print(f"\n{table}\n\nreport: {folder / 'sweep.md'}   TensorBoard: tensorboard --logdir {folder / 'trials'}")
