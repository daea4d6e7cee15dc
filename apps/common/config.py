"""Configuration: one frozen dataclass is the only list of hyper-parameters.

Flags, `config.json`, the tuner and the tests are all derived from the fields of a `Config`; nothing else lists them.
A field is declared with `field(default, help, ...)`; its metadata says what is legal and what a sweep may try.
"""

import dataclasses
import json
import math
import os
import pathlib
import types
import typing

from layers.checking import unknown_name

CONFIG_FILE = "config.json"
FORMAT_VERSION = 1
# Written out, since whoever runs a .tflite reads this module without TensorFlow.
DISTRIBUTIONS = ("single", "sync", "multi_worker", "async", "federated", "model_parallel", "pipeline")
CLUSTERS = ("multi_worker", "async")  # those of several processes
PLACEMENTS = ("stages", "branches")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16", "float64")


@dataclasses.dataclass(frozen=True)
class Range:
    """Search range of a number, `low` to `high` inclusive; `log=True` samples the logarithm uniformly."""

    low: float
    high: float
    log: bool = False


@dataclasses.dataclass(frozen=True)
class Options:
    """Search range of a choice among `values`."""

    values: tuple


def field(default, help, *, choices=None, minimum=None, maximum=None, above=None, below=None, search=None,
          volatile=False):
    """Declares one hyper-parameter.

    Args:
        default: default value; its annotation gives the type of the flag.
        help: one sentence, shown by `--help`.
        choices: legal values, or None.
        minimum, maximum: inclusive bounds of a number.
        above, below: exclusive bounds of a number.
        search: `Range` or `Options` that a sweep may try, or None.
        volatile: True when the value may differ between the run that began a workdir and the run that resumes it
            (where the data lies, how many devices there are): it does not change what is computed.
    """
    bounds = {"minimum": minimum, "maximum": maximum, "above": above, "below": below}
    return dataclasses.field(default=default, metadata={
        "help": help, "choices": None if choices is None else tuple(choices), "bounds": bounds, "search": search,
        "volatile": volatile})


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Fields that mean the same in every application. Applications subclass it and may override defaults."""

    workdir: str = field("", "Folder of this run: configuration, checkpoints, logs, metrics, exports. The same command "
                             "with the same workdir resumes the run.", volatile=True)
    data: str = field("", "Name of the data set.")
    data_dir: str = field("", "Folder with the data set in its publisher's files.", volatile=True)
    strict_data: bool = field(False, "Stop at the first bad row of the data instead of skipping and counting it.")
    model: str = field("", "Name of the model.")
    epochs: int = field(10, "Passes over the training data.", minimum=0)
    time_budget: float = field(0.0, "Minutes that training may take. Turned into a number of steps once, after 50 "
                                    "timed steps, and kept in config.json; replaces --epochs. 0: no budget.", minimum=0)
    batch_size: int = field(128, "Examples a step, over all devices.", minimum=1, search=Options((32, 64, 128, 256)))
    learning_rate: float = field(1e-3, "Peak learning rate.", above=0, search=Range(1e-4, 1e-1, log=True))
    seed: int = field(0, "Seed of initial weights, order of the data, augmentation and dropout.", minimum=0)
    distribution: str = field("single", "How training is spread over devices.", choices=DISTRIBUTIONS,
                              volatile=True)
    num_devices: int = field(0, "Devices to spread over. 0: all accelerators; on a machine without, give a number of "
                                "logical devices.", minimum=0, volatile=True)
    micro_batches: int = field(1, "Parts in which a batch (of a replica) is taken, to need less memory.", minimum=1)
    placement: str = field("stages", "What pipeline puts on one device: consecutive layers, or branches.",
                           choices=PLACEMENTS, volatile=True)
    mesh: str = field("", "Sizes of the axes of model_parallel, as batch:2,model:2.", volatile=True)
    layout: str = field("", "Rules for model_parallel that come before its own: pattern=axes, separated by semicolons, "
                            "or a file of them.", volatile=True)
    synchronize_batch_norm: bool = field(False, "Batch normalisation over the batch of all replicas, not of each.")
    max_staleness: int = field(-1, "Updates that may come between reading the weights and applying a gradient; older "
                                   "gradients are dropped (async). -1: any number.", minimum=-1, volatile=True)
    n_push: int = field(1, "Steps after which a worker sends the sum of its gradients (async).", minimum=1,
                        volatile=True)
    n_fetch: int = field(1, "Steps after which a worker reads the weights; in between it goes on with its own copy "
                            "(async).", minimum=1, volatile=True)
    clients: int = field(20, "Clients of federated averaging.", minimum=1, volatile=True)
    client_share: float = field(0.25, "Part of them that a round asks.", above=0, maximum=1, volatile=True)
    local_steps: int = field(10, "Steps of a client a round.", minimum=1, volatile=True)
    client_skew: float = field(0.0, "How uneven their data are: 0 alike, 1 few classes each and different amounts.",
                               minimum=0, maximum=1, volatile=True)
    client_dropout: float = field(0.0, "Probability that a client fails in a round.", minimum=0, below=1, volatile=True)
    late_clients: float = field(0.0, "Part of the clients that comes during the first half of the training.", minimum=0,
                                below=1, volatile=True)
    cluster_timeout: float = field(60.0, "Seconds to wait for a process of the cluster that does not come or does not "
                                         "answer.", above=0, volatile=True)
    precision: str = field("float32", "Numbers to compute with; mixed_* keep float32 variables.", choices=PRECISIONS)
    jit_compile: bool = field(False, "Compile the training step with XLA.")
    deterministic: bool = field(True, "Only deterministic kernels, so that a resumed run ends with the same bits. With "
                                           "--jit_compile that holds on processors, not on GPUs.")
    checkpoint_seconds: float = field(60.0, "Seconds between checkpoints within an epoch (one is always written at "
                                            "its end). 0: only at the end of an epoch.", minimum=0, volatile=True)
    early_stopping: int = field(0, "Epochs without a better validation metric before training stops. 0: never.",
                                minimum=0)
    verbose: int = field(-1, "0 silent, 1 progress bar, 2 a line an epoch, -1 chooses by whether output is a terminal.",
                         choices=(-1, 0, 1, 2), volatile=True)
    explain: bool = field(False, "Print what would be done and what combines with this model, then stop.",
                          volatile=True)

    def __post_init__(self):
        for item in dataclasses.fields(self):
            check_value(item, getattr(self, item.name))
        self.validate()

    def validate(self):
        """Checks that concern several fields; raises ValueError. Subclasses extend it."""
        if self.time_budget and not math.isfinite(self.time_budget):
            raise ValueError(f"--time_budget must be a finite number of minutes; received {self.time_budget}.")
        if self.time_budget and self.distribution in ("async", "federated"):
            raise ValueError("--time_budget is turned into a number of steps by timing them one after another, which "
                             f"--distribution={self.distribution} does not make. Give --epochs.")

    def replace(self, **changes):
        """A copy with some fields changed, validated again."""
        unknown = set(changes) - {item.name for item in dataclasses.fields(self)}
        if unknown:
            raise unknown_name("configuration field", sorted(unknown)[0], [f.name for f in dataclasses.fields(self)])
        return dataclasses.replace(self, **changes)


def check_value(item, value):
    """Raises ValueError when `value` is not legal for the dataclass field `item`."""
    allowed = _types_of(item)
    if isinstance(value, bool) and bool not in allowed:
        raise ValueError(f"--{item.name} must be {_type_names(allowed)}; received {value!r}.")
    if not isinstance(value, allowed) and not (float in allowed and isinstance(value, int)):
        raise ValueError(f"--{item.name} must be {_type_names(allowed)}; received {value!r}.")
    choices = item.metadata.get("choices")
    if choices is not None and value not in choices:
        raise unknown_name(f"value of --{item.name}:", value, choices)
    _check_bounds(item, value)


def _check_bounds(item, value):
    bounds = {k: v for k, v in item.metadata.get("bounds", {}).items() if v is not None}
    if value is None or not bounds:
        return
    legal = {"minimum": lambda b: value >= b, "maximum": lambda b: value <= b, "above": lambda b: value > b,
             "below": lambda b: value < b}
    words = {"minimum": "at least", "maximum": "at most", "above": "above", "below": "below"}
    if not all(legal[k](b) for k, b in bounds.items()):
        expected = " and ".join(f"{words[k]} {b}" for k, b in bounds.items())
        raise ValueError(f"--{item.name} must be {expected}; received {value}.")


def _types_of(item):
    origin = typing.get_origin(item.type)
    return typing.get_args(item.type) if origin in (typing.Union, types.UnionType) else (item.type,)


def _type_names(allowed):
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "nothing"}
    return " or ".join(names[t] for t in allowed)


def to_dict(config):
    """Plain dictionary of a configuration, as written to `config.json`."""
    return dataclasses.asdict(config)


def from_dict(cls, values):
    """Configuration of class `cls` from a plain dictionary; raises ValueError on unknown or illegal fields."""
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            raise unknown_name("configuration field", name, fields)
    return cls(**values)


def save(config, workdir, **resolved):
    """Writes `config.json`: the fields, and what the run resolved once (such as `total_steps`)."""
    content = {"usagi": FORMAT_VERSION, "app": type(config).__module__.rsplit(".", 1)[0], "config": to_dict(config),
               "resolved": resolved}
    write_json(pathlib.Path(workdir) / CONFIG_FILE, content)


def load(cls, workdir):
    """Reads `config.json` of a workdir.

    Returns:
        (config, resolved): a `cls` and the dictionary of resolved values.

    Raises:
        ValueError: when the file is missing, broken, or of another application.
    """
    path = pathlib.Path(workdir) / CONFIG_FILE
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{str(workdir)!r} is not the workdir of a run: expected {path} in it. Give the --workdir of "
                         "a training command.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}). Use another --workdir or restore the file.") from None
    if not isinstance(content, dict) or content.get("usagi") != FORMAT_VERSION:
        raise ValueError(f"{path} was not written by this suite (expected \"usagi\": {FORMAT_VERSION}). Use another "
                         "--workdir.")
    app = cls.__module__.rsplit(".", 1)[0]
    if content["app"] != app:
        raise ValueError(f"{str(workdir)!r} holds a run of {content['app']}, not of {app}. Use another --workdir.")
    return from_dict(cls, content["config"]), content["resolved"]


def differences(old, new):
    """Names of the fields in which two configurations of one class compute different things."""
    return [item.name for item in dataclasses.fields(new)
            if not item.metadata.get("volatile") and getattr(old, item.name) != getattr(new, item.name)]


def write_json(path, content):
    """Writes JSON so that a kill at any moment leaves either the old file or the new one."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, path)
