"""Makes a trained model smaller in several ways and puts them side by side: quality, size, speed, memory.

    python -m apps.compress --workdir=runs/demo --variants=quantize,distill,distill+prune+quantize

It takes runs of image classification, language models and translation. Each variant is such a run in
`<workdir>/compressed/<variant>`, with the flags of the trained one but for those given here. A chain goes on from the
longest variant that it begins with, so nothing is trained twice. The table is in `<workdir>/compressed/report.md`, with
a plot of size against quality; `<workdir>/report.csv` gets all rows. The same command resumes what was interrupted.
"""

import dataclasses
import importlib
import json
import pathlib

from absl import flags

from apps.common import config as config_lib
from apps.common import flagging, variants, workdir
from layers.checking import unknown_name

APPS = ("image_classification", "language_model", "translation")
_OWN = ("workdir", "compression", "initial_model")  # fields that each variant decides


def define_flags(flag_values=flags.FLAGS):
    """The flag of this program itself."""
    flags.DEFINE_string("variants", "quantize,prune,prune+quantize",
                        "Comma-separated chains of compressions, joined by +.", flag_values=flag_values)


def app_of(argv):
    """The application of the run in `--workdir`, read before its flags are known; the first of `APPS` where no workdir
    is given, or none with a run in it, which `main` will say.

    Raises:
        ValueError: the run belongs to an application that has no phases of compression.
    """
    folder = flagging.early_value(argv, "workdir", "")
    path = pathlib.Path(folder) / config_lib.CONFIG_FILE
    try:
        name = json.loads(path.read_text())["app"].rsplit(".", 1)[-1]
    except (OSError, ValueError, LookupError, TypeError):
        return APPS[0]
    if name not in APPS:
        raise unknown_name(f"application of the run in {folder!r}:", name, APPS)
    return name


def main(argv):
    flagging.check_no_arguments(argv)
    values = flags.FLAGS
    chains = variants.parse_variants(values.variants)
    if not values.workdir:
        raise ValueError("--workdir is missing: expected the folder of a trained run.")
    app = importlib.import_module(f"apps.{app_of([f'--workdir={values.workdir}'])}.train")
    if values.explain:
        raise ValueError("--explain tells of one run; this program makes several. Give it to the application's train.")
    trained, _ = config_lib.load(app.Config, values.workdir)
    names = {item.name for item in dataclasses.fields(app.Config)} - set(_OWN)
    # What is not given here is the trained run's, so it is with that that a flag has to go together.
    changes = {name: values[name].value for name in names if values[name].present}
    if values.distribution in config_lib.CLUSTERS:
        raise ValueError(f"--distribution={values.distribution} is for one training; this program makes several. Use "
                         "train with --initial_model and --compression for each, under apps.cluster.")
    if trained.distribution in config_lib.CLUSTERS:  # variants are trained by this process alone
        changes = {item.name: item.default for item in dataclasses.fields(app.Config)
                   if item.name in ("distribution", *workdir.DISTRIBUTION_FLAGS)} | changes
    variants.compress(trained.replace(workdir=values.workdir), changes, chains, app.train, app.load_task)


if __name__ == "__main__":
    define_flags()
    flagging.run_for_app(app_of, main)
