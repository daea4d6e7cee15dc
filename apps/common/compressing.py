"""Compression as phases of a run: `--compression=distill,prune,quantize`.

Each phase starts from the plain model that the one before left, prepares it, trains it and leaves a plain model again,
in `<workdir>/phases/NN_name/`. A run without compression is a single phase in the workdir itself.
"""

import dataclasses
import hashlib
import os
import pathlib

import numpy as np
import tensorflow as tf
import tf_keras as keras

from apps.common.config import TrainingConfig, field
from strategies import compression, distribution, export
from strategies.compression import distillation, hooks, low_bit, structured
from strategies.compression.distillation import HINTS
from strategies.compression.pruning import CRITERIA, SCHEDULES
from strategies.copying import copy_model
from strategies.export.files import replacing


@dataclasses.dataclass(frozen=True)
class CompressionConfig(TrainingConfig):
    """What every application that trains a model can do to make it smaller.

    `NETWORK` are the fields that say what a new network is like; a run that begins with a trained one passes them over.
    """

    NETWORK = ()

    initial_model: str = field("", "Where to start from: the workdir of a trained run, or a .keras file. Empty: train "
                                   "first.")
    compression: str = field("none", f"Comma-separated, in this order: {', '.join(compression.METHODS)}; or none.")
    compression_epochs: int = field(10, "Passes over the data in each phase but the first training and distillation.",
                                    minimum=0)
    compression_learning_rate: float = field(0.01, "Peak learning rate of these phases.", above=0)

    distill_teacher: str = field("", "Workdirs or .keras files of the teachers, comma-separated. They supervise "
                                     "`distill` and every other phase of the compression.")
    distill_temperature: float = field(4.0, "T that softens the outputs of teacher and student.", above=0)
    distill_alpha: float = field(0.9, "Weight of the teacher's outputs; the labels have the rest.", minimum=0,
                                 maximum=1)
    distill_hint: str = field("none", "What the student also learns from inside the teacher: features (FitNets' first "
                                      "stage) or attention (maps).", choices=HINTS)
    distill_hint_layers: str = field("", "student_layer:teacher_layer, comma-separated. Empty: by size of their maps.")
    distill_hint_weight: float = field(1000.0, "Weight of the attention maps in the loss.", minimum=0)
    distill_hint_epochs: int = field(5, "Passes over the data in FitNets' first stage.", minimum=0)
    distill_cache: bool = field(False, "Run the teachers once over the data instead of at every step, and keep what "
                                       "they say in the first one's workdir; without augmentation only.")

    filters_share: float = field(0.3, "Part of the channels that `filters` removes.", minimum=0, below=1)
    filters_ranking: str = field("l1", "Which channels `filters` removes.", choices=structured.RANKINGS)

    prune_criterion: str = field("sparsity", "What `prune` removes: a share of each layer, |w| below a threshold, or "
                                             "|w| below alpha standard deviations.", choices=CRITERIA)
    prune_sparsity: float = field(0.8, "Share of weights to remove (criterion sparsity).", minimum=0, below=1)
    prune_schedule: str = field("polynomial", "How the share grows.", choices=SCHEDULES)
    prune_ramp: float = field(0.6, "Part of the phase over which it grows.", above=0, maximum=1)
    prune_block: str = field("1x1", "Rows x columns of weights that are removed together.")
    prune_m_by_n: str = field("", "2:4 removes 2 of every 4 weights along the input channels. Empty: not.")
    prune_threshold: float = field(0.1, "Threshold (criterion threshold).", minimum=0)
    prune_alpha: float = field(1.0, "alpha (criterion deviation).", minimum=0)
    prune_iterations: int = field(1, "Phases of pruning and retraining, one after another.", minimum=1)
    prune_select: str = field(".*", "Regular expression: weights that `prune`, `share` and `low_bit` act on.")

    share_clusters: int = field(16, "Values that the weights of a layer share.", minimum=2)
    quantize_engine: str = field("usagi", "Who simulates 8 bits in training: this suite, for every model, or "
                                          "tensorflow_model_optimization, for those that it accepts.",
                                 choices=("usagi", "tfmot"))
    low_bit_bits: int = field(4, "Bits of `low_bit` weights.", minimum=2, maximum=8)

    def validate(self):
        super().validate()
        names = methods_of(self)
        for name, reason in distribution.DISTRIBUTIONS[self.distribution].refuses.items():
            if name in names:
                raise ValueError(f"--compression={name} does not work under --distribution={self.distribution}: "
                                 f"{reason}. Train under it first, then compress with --initial_model under another.")
        make_pruning(self)
        if "prune" in names and not self.compression_epochs:
            raise ValueError("--compression=prune removes weights while it trains: it needs --compression_epochs of 1 "
                             "at least; received 0.")
        if "distill" in names and not self.distill_teacher:
            raise ValueError("--compression=distill needs --distill_teacher: the workdir of a trained run.")
        if self.distill_teacher and not names:
            raise ValueError("--distill_teacher supervises the phases of --compression; received --compression=none. "
                             "Did you mean --compression=distill?")
        if self.initial_model and not names:
            raise ValueError("--initial_model is where compression starts from; received --compression=none.")
        if self.quantize_engine == "tfmot" and self.precision != "float32":
            raise ValueError(f"--quantize_engine=tfmot needs --precision=float32; received {self.precision}.")
        for pair in filter(None, self.distill_hint_layers.split(",")):
            if pair.count(":") != 1:
                raise ValueError("--distill_hint_layers must be student_layer:teacher_layer, comma-separated; received "
                                 f"{pair!r}.")


@dataclasses.dataclass(frozen=True)
class Phase:
    """One training of a run.

    Attributes:
        name: of its folder, such as "01_prune"; empty for the only phase of a run without compression.
        method: "train", "hint", or one of `compression.METHODS`.
        config: the run's, with the epochs and learning rate of this phase.
        iteration: (this one, of how many), from 1, of a method that is repeated.
    """

    name: str
    method: str
    config: CompressionConfig
    iteration: tuple = (1, 1)


def methods_of(config):
    """The methods of `--compression`, as a list; raises ValueError for an illegal chain."""
    if config.compression == "none":
        return []
    return compression.check_chain(name.strip() for name in config.compression.split(","))


def phases(config):
    """The phases of a run, in order."""
    methods = methods_of(config)
    if not methods:
        return [Phase("", "train", config)]
    short = config.replace(epochs=config.compression_epochs, learning_rate=config.compression_learning_rate,
                           time_budget=0.0)
    plan = [] if config.initial_model or methods[0] == "distill" else [("train", config, (1, 1))]
    for method in methods:
        if method == "distill":
            if config.distill_hint == "features":
                plan.append(("hint", config.replace(epochs=config.distill_hint_epochs, time_budget=0.0), (1, 1)))
            plan.append(("distill", config, (1, 1)))
        else:
            count = config.prune_iterations if method == "prune" else 1
            plan += [(method, short, (i + 1, count)) for i in range(count)]
    return [Phase(f"{i:02d}_{method}", method, settings, iteration)
            for i, (method, settings, iteration) in enumerate(plan)]


def make_method(phase, *, representative=None, batches=None, loss=None, teachers=(), in_steps=False):
    """The object of `strategies.compression` for a phase; None for plain training.

    Args:
        phase: a `Phase`.
        representative: () -> inputs [N, ...], for quantize.
        batches: () -> iterable of (inputs, targets), for filters by Taylor ranking.
        loss: the loss of the model, for the same.
        teachers: models, for distill and hint.
        in_steps: as of `compression.Quantization`.
    """
    config = phase.config
    if phase.method == "train":
        return None
    if phase.method in ("hint", "distill"):
        layers = [tuple(pair.split(":")) for pair in filter(None, config.distill_hint_layers.split(","))]
        hint = {"hint": "features", "distill": "none" if config.distill_hint == "features" else config.distill_hint}
        return compression.Distillation(teachers, temperature=config.distill_temperature, alpha=config.distill_alpha,
                                        hint=hint[phase.method], hint_layers=layers or None,
                                        hint_weight=config.distill_hint_weight)
    if phase.method == "filters":
        data = {"batches": batches(), "loss": loss} if config.filters_ranking == "taylor" else {}
        return compression.FilterPruning(share=config.filters_share, ranking=config.filters_ranking, **data)
    if phase.method == "prune":
        return make_pruning(config, phase.iteration)
    if phase.method == "share":
        return compression.WeightSharing(clusters=config.share_clusters, select=config.prune_select)
    if phase.method == "quantize":
        if config.quantize_engine == "usagi":
            return compression.Quantization(representative(), in_steps=in_steps)
        from strategies.compression import tfmot_quantization  # slow to import

        return tfmot_quantization.TfmotQuantization()
    return compression.LowBit(bits=config.low_bit_bits, select=config.prune_select)


def make_supervision(phase, teachers):
    """`Distillation` by soft targets for a phase whose method is another one; None without teachers.

    What pruning or quantisation loses is then learnt again from what the teachers say, not from the labels alone.
    """
    if not teachers or phase.method in ("train", "hint", "distill"):
        return None
    config = phase.config
    return compression.Distillation(teachers, temperature=config.distill_temperature, alpha=config.distill_alpha)


def make_pruning(config, iteration=(1, 1)):
    """The `Pruning` that the flags describe. Of several iterations each keeps the same share of what was left."""
    number, count = iteration
    sparsity = 1 - (1 - config.prune_sparsity) ** (number / count)
    return compression.Pruning(
        criterion=config.prune_criterion, sparsity=sparsity, schedule=config.prune_schedule, ramp=config.prune_ramp,
        block=_numbers("prune_block", config.prune_block, "x"),
        m_by_n=_numbers("prune_m_by_n", config.prune_m_by_n, ":") if config.prune_m_by_n else None,
        threshold=config.prune_threshold, alpha=config.prune_alpha, select=config.prune_select)


def rehearse(phase, model, make, teachers=()):
    """Prepares a model for a phase and undoes it, so that what cannot work is refused before anything is trained.

    Args:
        phase: a `Phase`.
        model: untrained, like the one that will be compressed; of no other use afterwards.
        make: () -> what `make_method` gives for the phase.
        teachers: of the phase.

    Returns:
        a model like the one that the phase will leave.

    Raises:
        ValueError: from the method that cannot work.
    """
    for teacher in teachers:
        distillation.check_teacher(model, teacher)
    if phase.method == "share":  # clusters take long, and only the choice of weights can be wrong
        hooks.weight_slots(model, select=phase.config.prune_select)
        return model
    method = make()
    if method is None:
        return model
    model = method.prepare(model)
    # The weights are those of the run where its first phase goes on from a trained model.
    if phase.method == "prune" and method.criterion != "sparsity" and phase.config.initial_model and (
            phase.name == phases(phase.config)[0].name):
        method.update_masks(model)
    return method.finish(model)


def what_fits(config, build, make):
    """{method: "yes", or why it cannot work}, for `--explain`; distillation depends on the teacher and is left out.

    Args:
        config: `CompressionConfig`.
        build: () -> an untrained model.
        make: (phase) -> what `make_method` gives for it.
    """
    answers = {}
    for name in compression.METHODS:
        if name != "distill":
            try:
                phase = Phase(name, name, config)
                rehearse(phase, build(), lambda phase=phase: make(phase))
                answers[name] = "yes"
            except ValueError as error:
                answers[name] = str(error)
    return answers


def cached_logits(teachers, plain, stream, config):
    """What `computed_logits` gives, kept in the workdir of the first teacher for the phases and runs that follow.

    The file's name is a hash of all that the logits depend on: the teachers, the examples and the temperature. Where
    that folder cannot be written, or the teacher is a file, they are computed each time.
    """
    folder = pathlib.Path(config.distill_teacher.split(",")[0].strip())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        return computed_logits(teachers, plain, stream, config)
    digest = hashlib.sha256(str(config.distill_temperature).encode())
    for teacher in teachers:
        digest.update(teacher.to_json().encode())
        for weight in teacher.get_weights():
            digest.update(np.ascontiguousarray(weight))
    for inputs in _input_batches(plain, stream):
        for array in tf.nest.flatten(inputs):
            digest.update(np.ascontiguousarray(array))
    path = folder / "cache" / f"logits_{digest.hexdigest()[:16]}.npy"
    if not path.exists():
        with replacing(path) as temporary:
            np.save(temporary, computed_logits(teachers, plain, stream, config))
    return np.load(path)


def _input_batches(plain, stream):
    for start in range(0, stream.num_examples, stream.batch_size):
        inputs, _ = plain(np.arange(start, min(start + stream.batch_size, stream.num_examples)))
        yield inputs


def computed_logits(teachers, plain, stream, config):
    """Soft outputs of the teachers for each training example, as logits [N, K] whose softmax over T is their mean."""
    parts = []
    for inputs in _input_batches(plain, stream):
        logits = [teacher(inputs, training=False) for teacher in teachers]
        mean = distillation.mean_probabilities(logits, config.distill_temperature)
        parts.append(config.distill_temperature * np.log(np.maximum(mean, 1e-20)))
    return np.concatenate(parts).astype(np.float32)


def packed_rows(run, model, rows, samples, evaluate):
    """Writes the file of packed low-bit weights, reads it back and measures it.

    Args:
        run: `workdir.Run`; the file is `export/model.lbw`.
        model: what the run ends with.
        rows: those of `export.export_all` for that model.
        samples: inputs, on which the file is compared with the model.
        evaluate: function from a model to the metric.

    Returns:
        a list with the row of the file, as `export.export_all` has it; empty unless the last phase is `low_bit`.
    """
    if phases(run.config)[-1].method != "low_bit":
        return []
    path = run.folder("export") / "model.lbw"
    facts = low_bit.write_packed(path, model, run.config.low_bit_bits, select=run.config.prune_select)
    unpacked = copy_model(model)
    unpacked.set_weights(list(low_bit.read_packed(path).values()))
    outputs = (tf.nest.flatten(export.predict(one, samples)) for one in (unpacked, model))
    difference = max(float(np.max(np.abs(a - b))) for a, b in zip(*outputs))
    return [{**rows[0], "format": "lbw", "value": float(evaluate(unpacked)), "bytes": facts["bytes"],
             "gzip_bytes": export.gzip_bytes(path), "latency_ms": None, "peak_memory_bytes": None,
             "max_abs_diff": difference, "float_operators": None}]


def load_models(names, flag):
    """The trained models of workdirs or .keras files.

    Args:
        names: comma-separated.
        flag: the flag that they come from, for errors.

    Raises:
        ValueError: no such file, or none that Keras can read.
    """
    models = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        path = pathlib.Path(name)
        path = path / "model.keras" if path.is_dir() else path
        if not path.is_file():
            raise ValueError(f"--{flag}={name} has no trained model: expected {path}. Give the workdir of a run that "
                             "has ended, or a .keras file.")
        try:
            models.append(keras.models.load_model(path, compile=False))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"--{flag}: {path} cannot be read as a Keras model ({error}).") from None
    return models


def _numbers(flag, text, separator):
    parts = text.split(separator)
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise ValueError(f"--{flag} must be two whole numbers such as 4{separator}1; received {text!r}.")
    return tuple(int(part) for part in parts)
