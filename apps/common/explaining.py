"""`--explain`: what a command would do and what its model combines with, without training."""

from apps.common import config as config_lib
from apps.common import reporting
from layers.counting import count_parameters
from strategies import export


def print_plan(config, model, splits, distributions, compressions=None, phases=()):
    """Prints configuration, data, model and the row of the strategy matrix.

    Args:
        config: configuration of the command.
        model: the model that it would train.
        splits: the data that it would read.
        distributions: literal dictionary of distribution strategies.
        compressions: {method: "yes", or why it does not work on this model}.
        phases: the run's `compressing.Phase`s.
    """
    print(reporting.markdown_table(["field", "value"], config_lib.to_dict(config).items()))
    sizes = {name: split.num_examples for name, split in
             (("train", splits.train), ("validation", splits.validation), ("test", splits.test)) if split is not None}
    rows = [("model", model.name), ("parameters", f"{count_parameters(model):,}"),
            ("multiply-adds an example", f"{export.count_macs(model):,}"),
            ("input", str(model.input_shape)), ("output", str(model.output_shape)),
            ("examples", ", ".join(f"{k} {v:,}" for k, v in sizes.items())),
            ("steps an epoch", splits.train.steps_per_epoch),
            ("--precision", ", ".join(config_lib.PRECISIONS)),
            ("--export", ", ".join(export.FORMATS))]
    rows += [(f"phase {phase.name}", f"{phase.config.epochs} epochs") for phase in phases if phase.name]
    rows += [(f"--distribution={name}", _fits(strategy, model)) for name, strategy in distributions.items()]
    rows += [(f"--compression={name}", answer) for name, answer in (compressions or {}).items()]
    print("\n" + reporting.markdown_table(["plan", ""], rows))


def _fits(strategy, model):
    without = [f"--compression={method}" for method in strategy.refuses]
    without += [] if strategy.compiles else ["--jit_compile"]
    return strategy.obstacle(model) or "yes" + (f", without {', '.join(without)}" if without else "")
