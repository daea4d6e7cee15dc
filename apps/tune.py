"""Sweeps the hyper-parameters of any application with KerasTuner.

    python -m apps.tune --app=image_classification --tuner=random --trials=8 --workdir=runs/sweep --epochs=5

Every flag of the application is accepted; those with a search range (see its config.py) are varied unless --search
names fewer. The same command resumes a sweep that was killed.
"""

import importlib

from absl import flags

from apps.common import flagging, tuning, workdir
from layers.checking import unknown_name

# app -> (metric of metrics.json that decides, direction)
APPS = {"image_classification": ("validation_accuracy", "max"),
        "language_model": ("validation_cross_entropy", "min"),
        "reinforcement": ("best_return", "max"),
        "translation": ("validation_token_accuracy", "max")}  # comparable whatever the label smoothing


def define_flags(flag_values=flags.FLAGS):
    """Flags of the sweep itself."""
    flags.DEFINE_string("app", "image_classification", f"Application to sweep. One of: {', '.join(APPS)}.",
                        flag_values=flag_values)
    flags.DEFINE_string("tuner", "random", f"How values are chosen. One of: {', '.join(tuning.TUNERS)}.",
                        flag_values=flag_values)
    flags.DEFINE_integer("trials", 8, "Number of trials (Hyperband chooses it itself, from --epochs).", lower_bound=1,
                         flag_values=flag_values)
    flags.DEFINE_string("search", "", "Comma-separated fields to vary. Empty: all that have a search range.",
                        flag_values=flag_values)


def app_named(argv):
    """The application that `--app` names, read before its own flags are known.

    Raises:
        ValueError: unknown application.
    """
    name = flagging.early_value(argv, "app", "image_classification")
    if name not in APPS:
        raise unknown_name("application", name, APPS)
    return name


def main(argv):
    flagging.check_no_arguments(argv)
    values = flags.FLAGS
    app = importlib.import_module(f"apps.{values.app}.train")
    objective, direction = APPS[values.app]
    config = flagging.config_from_flags(app.Config)
    if config.explain:
        raise ValueError("--explain tells of one run; a sweep makes many. Give it to the application's train.")
    tuning.check(config, values.tuner)
    if objective.startswith("validation_"):
        workdir.make_distribution(config)  # its devices have to be there before anything is computed
        if app.load_task(config).splits.validation is None:
            raise ValueError(f"A sweep of {values.app} is judged by {objective}, and these data and flags leave no "
                             "validation part. Give --validation_fraction above 0.")
    names = [name.strip() for name in values.search.split(",") if name.strip()]
    tuning.sweep(config, app.train, objective=objective, direction=direction, tuner=values.tuner,
                 trials=values.trials, names=names)


if __name__ == "__main__":
    define_flags()
    flagging.run_for_app(app_named, main)
