"""Checkpoints that any distribution strategy reads, whichever wrote them.

One `.npz` file holds the arrays of a *plain* model: its weights and its optimizer's slots under the names of their
variables, the running metrics, and a JSON document with the step and whatever else the caller has to remember. Where
replicas have values of their own, these are there besides, so that as many replicas go on with the same bits. Every
member of the file carries a CRC; a file is written under another name, flushed to disk and renamed, so a kill at any
moment leaves the previous checkpoint whole.
"""

import json
import os
import pathlib
import re
import zipfile
import zlib

import numpy as np
import tf_keras as keras

from strategies import parts

FORMAT_VERSION = 1
_STATE = "state.json"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit the model."""


def variable_names(variables, prefix=""):
    """Unique names of variables, in order: the variable's own name, with #1, #2, … where it stands again.

    `prefix` is taken off: Keras puts the optimizer's name before its slots when they are made within `fit`, and not
    when they are made before it.
    """
    seen, names = {}, []
    for variable in variables:
        name = variable.name.split(":")[0].removeprefix(prefix)
        count = seen[name] = seen.get(name, -1) + 1
        names.append(f"{name}#{count}" if count else name)
    return names


def named_variables(model, *, with_optimizer=True):
    """The variables of a checkpoint as {"group/name": variable}: weights, optimizer and metrics of a compiled model."""
    groups = {"weights": variable_dict(parts.whole(model.weights))}
    if with_optimizer and getattr(model, "optimizer", None) is not None:
        optimizer = model.optimizer
        optimizer.build(model.trainable_variables)
        name = getattr(optimizer, "inner_optimizer", optimizer).name
        groups["optimizer"] = variable_dict(parts.whole(optimizer.variables), prefix=f"{name}/")
        if isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer) and optimizer.dynamic:
            # Keras leaves the state of the loss scale out of `variables`.
            scale = optimizer._loss_scale
            groups["optimizer"] |= {"loss_scale": scale.current_loss_scale, "loss_scale_counter": scale.counter}
        groups["metrics"] = variable_dict([v for metric in model.metrics for v in metric.variables])
    return {f"{group}/{name}": variable for group, named in groups.items() for name, variable in named.items()}


def variable_dict(variables, prefix=""):
    """{unique name: variable}; see `variable_names`."""
    return dict(zip(variable_names(variables, prefix), variables))


def save(path, model, state, *, with_optimizer=True, others=None):
    """Writes weights, optimizer, metrics, `state` (JSON-serialisable) and other arrays to `path`.

    `others` is {"group/name": array} with groups of the caller's own; `restore` passes them over.

    Raises:
        FloatingPointError: when a weight is not finite: such a checkpoint would destroy the last good one.
    """
    path = pathlib.Path(path)
    arrays = dict(others or {})
    for name, variable in named_variables(model, with_optimizer=with_optimizer).items():
        arrays[name] = value = np.asarray(variable.numpy())
        if name.startswith("weights/") and value.dtype.kind == "f" and not np.isfinite(value).all():
            raise FloatingPointError(f"variable {name} is not finite; {path.name} was not written")
        by_replica = parts.copies(variable) if with_optimizer else None
        if by_replica is not None:
            arrays[f"replicas/{name}"] = by_replica
    document = json.dumps({"format_version": FORMAT_VERSION, "state": state})
    arrays[_STATE] = np.frombuffer(document.encode(), np.uint8)
    write_arrays(path, arrays)


def write_arrays(path, arrays):
    """Writes {name: array} as .npz, with a checksum a member: the whole file, or nothing where this process ends."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_arrays(path):
    """{name: array} of a file that `write_arrays` wrote.

    Raises:
        CheckpointError: it is missing, truncated or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def read(path):
    """Reads and checks a whole checkpoint.

    Returns:
        (arrays, state): arrays by `group/name`, and the document given to `save`.

    Raises:
        CheckpointError: the file is missing, truncated or damaged, or of another format.
    """
    arrays = read_arrays(path)
    try:
        document = json.loads(arrays.pop(_STATE).tobytes())
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is no checkpoint: {error}") from error
    if document["format_version"] != FORMAT_VERSION:
        raise CheckpointError(f"Checkpoint {path} has format {document['format_version']}; expected {FORMAT_VERSION}.")
    return arrays, document["state"]


def restore(model, arrays, *, with_optimizer=True):
    """Assigns the arrays of a checkpoint to the variables of a (compiled) model of the same architecture.

    Raises:
        CheckpointError: names or shapes differ; the message lists the first that do. Nothing is assigned then.
    """
    wanted, pairs, problems = named_variables(model, with_optimizer=with_optimizer), [], []
    for name, variable in wanted.items():
        value = arrays.get(name)
        if value is None:
            # Metrics have no variables before the first training step; without them the step's sums start at 0.
            if not name.startswith("metrics/"):
                problems.append(f"{name} is not in the file")
        elif tuple(value.shape) != tuple(variable.shape):
            problems.append(f"{name} has shape {value.shape}, the model {tuple(variable.shape)}")
        else:
            pairs.append((name, variable, value))
    groups = ("weights/", "optimizer/") if with_optimizer else ("weights/",)
    problems += [f"{name} is not in the model" for name in arrays if name.startswith(groups) and name not in wanted]
    if problems:
        raise CheckpointError(f"The checkpoint does not fit the model: {'; '.join(problems[:5])}"
                              f"{f' and {len(problems) - 5} more' if len(problems) > 5 else ''}.")
    for name, variable, value in pairs:
        by_replica = arrays.get(f"replicas/{name}") if with_optimizer else None
        if by_replica is None or not parts.assign_copies(variable, by_replica):
            variable.assign(value)


class Directory:
    """The `checkpoints/` folder of a run: `step_<n>.npz`, the newest `keep` of them, and named ones (`best.npz`)."""

    def __init__(self, path, keep=2):
        self.path = pathlib.Path(path)
        self.keep = keep

    def steps(self):
        """Steps of the checkpoints there are, ascending."""
        matches = [re.fullmatch(r"step_(\d+)\.npz", p.name) for p in self.path.glob("step_*.npz")]
        return sorted(int(m[1]) for m in matches if m)

    def save(self, model, step, state, others=None):
        """Writes the checkpoint of `step` and removes the oldest beyond `keep`; arguments as of `save`."""
        self.path.mkdir(parents=True, exist_ok=True)
        save(self.path / f"step_{step:010d}.npz", model, {**state, "step": step}, others=others)
        for old in self.steps()[:-self.keep]:
            (self.path / f"step_{old:010d}.npz").unlink()

    def latest(self, report=print):
        """(arrays, state) of the newest checkpoint that can be read, or None when there is none.

        A damaged one is reported and passed over in favour of the one before it.

        Raises:
            CheckpointError: there are checkpoints and none can be read.
        """
        error = None
        for step in reversed(self.steps()):
            try:
                return read(self.path / f"step_{step:010d}.npz")
            except CheckpointError as damaged:
                error = damaged
                report(f"{damaged} Falling back to the checkpoint before it.")
        if error is not None:
            raise CheckpointError(f"No readable checkpoint is left in {self.path}; delete the workdir to start anew.")
        return None
