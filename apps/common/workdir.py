"""The folder of a run: who owns it, what it holds, and how a second run with the same folder resumes."""

import dataclasses
import fcntl
import os
import pathlib
import tempfile

import tensorflow as tf
import tf_keras as keras

from apps.common import config as config_lib
from strategies import checkpoint, cluster, distribution
from strategies.distribution import asynchronous

DISTRIBUTION_FLAGS = ("num_devices", "micro_batches", "synchronize_batch_norm", "placement", "mesh", "layout",
                      "max_staleness", "n_push", "n_fetch", "cluster_timeout", "clients", "client_share", "local_steps",
                      "client_skew", "client_dropout", "late_clients")
_OF_THE_CHIEF = ("config.json", "checkpoints/**/*", "phases/*/checkpoints/**/*")  # what a run goes on from


class Run:
    """A workdir with the configuration it belongs to.

    Attributes:
        config: the configuration of this run.
        path: the folder.
        resolved: values fixed once for the whole run, such as `total_steps`; kept in `config.json`.
        checkpoints: the `checkpoints/` folder.
    """

    def __init__(self, config):
        """Checks that the folder can be used; writes nothing but, where it is missing, the empty folder.

        Raises:
            ValueError: not a folder, not writable, holds something else, or a run with another configuration.
        """
        self.config = config
        self.path = pathlib.Path(config.workdir)
        self.checkpoints = checkpoint.Directory(self.path / "checkpoints")
        self.resolved = {}
        self._lock = None
        self._check_folder()
        if self.has_begun:
            self._check_same_run()

    @property
    def has_begun(self):
        """Whether the folder holds a run already."""
        return (self.path / config_lib.CONFIG_FILE).exists()

    def _check_folder(self):
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--workdir={self.path} is not a folder. Choose another name.")
        existing = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise ValueError(f"--workdir={self.path} cannot be written (no permission on {existing}). Choose another "
                             "folder or change its permissions.")
        strangers = [p.name for p in self.path.iterdir() if p.name != ".lock"] if self.path.exists() else []
        if strangers and config_lib.CONFIG_FILE not in strangers:
            raise ValueError(f"--workdir={self.path} holds files of something else ({', '.join(sorted(strangers)[:3])}"
                             f"{', …' if len(strangers) > 3 else ''}). Expected a new or empty folder, or a run's own.")

    def _check_same_run(self):
        old, self.resolved = config_lib.load(type(self.config), self.path)
        changed = config_lib.differences(old, self.config)
        if changed:
            values = ", ".join(f"--{n} was {getattr(old, n)!r}, now {getattr(self.config, n)!r}" for n in changed[:5])
            raise ValueError(f"--workdir={self.path} holds a run with another configuration: {values}. Repeat its "
                             "flags to resume it, or choose another --workdir.")

    def begin(self):
        """Takes the folder for this process and writes `config.json`. Call it once all input has been checked, and
        again when something has been resolved.

        Raises:
            ValueError: another process runs in the folder.
        """
        if self._lock is None:
            self._take()
        config_lib.save(self.config, self.path, **self.resolved)

    def _take(self):
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / ".lock", "w")  # noqa: SIM115 - held until the process ends
        except OSError as error:
            raise ValueError(f"--workdir={self.path} cannot be written ({error.strerror}). Choose another.") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise ValueError(f"--workdir={self.path} is in use by another running process. Wait for it to end or "
                             "choose another --workdir.") from None
        self._lock = lock

    def part(self, name, config):
        """The part of this run that trains under `config`, in `phases/<name>/`; the run itself when `name` is empty."""
        return Part(self, name, config) if name else self

    def folder(self, name):
        """A subfolder of the workdir, made when missing."""
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def end(self):
        """Gives the folder back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


class Part:
    """One of several trainings of a run; with the attributes and methods that training uses of a `Run`."""

    def __init__(self, run, name, config):
        self._run = run
        self.config = config
        self.path = run.path / "phases" / name
        self.checkpoints = checkpoint.Directory(self.path / "checkpoints")
        self.resolved = run.resolved.setdefault(name, {})

    def begin(self):
        self._run.begin()
        self.path.mkdir(parents=True, exist_ok=True)

    def folder(self, name):
        """A subfolder of the part, made when missing."""
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def make_distribution(config):
    """The distribution strategy that a configuration describes. Call it before anything is computed.

    Raises:
        ValueError: it cannot work on this machine, or a flag was given that does not belong to it.
    """
    defaults = {item.name: item.default for item in dataclasses.fields(config)}
    given = {name: getattr(config, name) for name in DISTRIBUTION_FLAGS if getattr(config, name) != defaults[name]}
    if config.jit_compile and not distribution.DISTRIBUTIONS[config.distribution].compiles:
        raise ValueError(f"--jit_compile compiles for one device, and --distribution={config.distribution} spreads a "
                         "model over several. Leave one of them out.")
    if config.distribution == "async" and config.precision == "mixed_float16":
        raise ValueError("--precision=mixed_float16 scales the loss by a number that all updates share, and "
                         "--distribution=async has no such place. Use --precision=mixed_bfloat16 or float32.")
    if config.distribution == "async" and getattr(config, "compression", "none") != "none":
        given["split_weights"] = False  # what compresses a weight reads and writes it as a whole
    if config.distribution == "federated":
        given["seed"] = config.seed
    return distribution.create(config.distribution, **given)


def open_run(config, strategy):
    """The run of a configuration. Processes other than the chief get a copy of it in a folder of their own, which is
    removed when they end: so all go the same way, and one writes.

    Raises:
        ValueError: from `Run`, or the processes have different flags.
    """
    if strategy.peers.is_chief:
        run = Run(config)
    else:
        folder = tempfile.TemporaryDirectory(prefix="usagi_worker_")
        cluster.at_end(folder.cleanup)
        run = Run(config.replace(workdir=folder.name))
    values = strategy.peers.agree(config_lib.to_dict(config))
    changed = config_lib.differences(config_lib.from_dict(type(config), values), config)
    if changed:
        raise ValueError(f"The processes of the cluster have different flags: --{changed[0]} is "
                         f"{getattr(config, changed[0])!r} here, {values[changed[0]]!r} in the chief. Start all with "
                         "the same command.")
    strategy.peers.share_folder(run.path, _OF_THE_CHIEF)
    return run if strategy.peers.is_chief else Run(run.config)


def serves(config):
    """Works for the coordinator of --distribution=async, where this process is a worker or parameter server: returns
    True when that has ended. False, at once, where this process is to train."""
    if config.distribution != "async" or cluster.read(asynchronous.JOBS).job == "chief":
        return False
    asynchronous.serve(config.cluster_timeout)
    return True


def prepare_runtime(config):
    """Deterministic kernels and the precision policy of this process, before anything is built."""
    keras.backend.clear_session()
    tf.get_logger().setLevel("WARNING")
    if config.deterministic and not config.jit_compile:
        # XLA refuses some gradients in this mode (maximum pooling), and its programs for processors repeat without it.
        tf.config.experimental.enable_op_determinism()
    if config.precision == "mixed_bfloat16" and not computes_bfloat16():
        print("--precision=mixed_bfloat16: this processor lacks AVX-512, without which TensorFlow emulates "
              "bfloat16. --precision=float32 is made for it.", flush=True)
    set_precision(config.precision)


def computes_bfloat16(cpuinfo="/proc/cpuinfo"):
    """Whether there are instructions for bfloat16 here: False only where there is no GPU and the processor is known to
    lack those that oneDNN asks for."""
    if tf.config.list_physical_devices("GPU"):
        return True
    try:
        flags = pathlib.Path(cpuinfo).read_text().split()
    except OSError:
        return True
    return "avx512f" in flags or "avx2" not in flags  # other architectures have other words


def set_precision(precision):
    """The Keras policy of a precision: `mixed_*` keep float32 variables; float64 also changes the default float."""
    keras.backend.set_floatx("float64" if precision == "float64" else "float32")
    keras.mixed_precision.set_global_policy(precision)
