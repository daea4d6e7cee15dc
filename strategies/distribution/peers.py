"""What the processes of a synchronous group must agree on: when to save, when to stop, what was there before.

Each process runs the same program. One of them, the chief, writes the run; the others work in a copy of their own, so
that every line of the program, and every collective operation in it, is reached by all.
"""

import contextlib
import json
import os
import pathlib
import sys
import time

import numpy as np
import tensorflow as tf

from strategies import cluster

_CHUNK = 64 << 20  # bytes of a file sent at once
_LOST = (tf.errors.UnavailableError, tf.errors.DeadlineExceededError, tf.errors.AbortedError, tf.errors.CancelledError,
         tf.errors.InternalError)


@contextlib.contextmanager
def lost_peers():
    """Within it TensorFlow's errors about other processes are a `ClusterError`."""
    try:
        yield
    except _LOST as error:
        raise cluster.ClusterError(f"another process of the group is gone or silent ({cluster.reason(error)}). Start "
                                   "the group again: training resumes from its checkpoint.") from error


def _silence_native_code():
    """Only Python goes on writing to stderr: TensorFlow would report that the chief has ended as a failure."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


class Alone:
    """The peers of a process that trains by itself."""

    is_chief = True
    interval = 1  # steps between two questions

    def any(self, flags):
        """Which of the flags are set in any process: a list of bools."""
        return list(flags)

    def agree(self, value):
        """What the chief says: any value that JSON can write."""
        return value

    def share_folder(self, path, patterns):
        """Gives all processes the chief's files of these patterns."""

    def wait_for_chief(self):
        """Returns when the chief has ended, which counts on the others being there."""


class Peers:
    """The processes of a `tf.distribute.MultiWorkerMirroredStrategy`.

    Args:
        strategy: the strategy.
        own: `cluster.Cluster` of this process.
    """

    interval = 5

    def __init__(self, strategy, own):
        self.is_chief = own.is_chief
        self._strategy, self._chief = strategy, own.chief
        signature = [tf.TensorSpec([None], tf.int32)]
        self._sum = tf.function(lambda values: self._all_reduce(values, of_chief=False), input_signature=signature)
        self._of_chief = tf.function(lambda values: self._all_reduce(values, of_chief=True), input_signature=signature)

    def any(self, flags):
        """As of `Alone`; all processes call it at the same step."""
        with lost_peers():
            return [bool(value) for value in self._sum(tf.constant(flags, tf.int32)).numpy()]

    def agree(self, value):
        """As of `Alone`; all processes call it, and what the others say is not heard."""
        return json.loads(self._share(json.dumps(value).encode()))

    def share_folder(self, path, patterns):
        """As of `Alone`: the files are written to `path` in the other processes, where it is another folder."""
        path = pathlib.Path(path)
        found = {file for pattern in patterns for file in path.glob(pattern) if file.is_file()}
        for name, size in self.agree(sorted((str(file.relative_to(path)), file.stat().st_size) for file in found)):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            with open(path / name, "rb" if self.is_chief else "wb") as file:
                for _ in range(0, size, _CHUNK):
                    content = self._share(file.read(_CHUNK) if self.is_chief else b"")
                    if not self.is_chief:
                        file.write(content)

    def wait_for_chief(self):
        """As of `Alone`. From then on TensorFlow's own code writes nothing more to stderr."""
        _silence_native_code()
        while cluster.answers(self._chief):
            time.sleep(1)

    def _share(self, content):
        """The chief's bytes."""
        with lost_peers():
            size = int(self._of_chief(tf.constant([len(content)], tf.int32)).numpy()[0])
            padded = content.ljust(-(-size // 4) * 4, b"\0") if self.is_chief else bytes(-(-size // 4) * 4)
            return self._of_chief(tf.constant(np.frombuffer(padded, np.int32))).numpy().tobytes()[:size]

    def _all_reduce(self, values, of_chief):
        def in_replica(values):
            replica = tf.distribute.get_replica_context()
            # The chief's first replica is replica 0.
            heard = tf.logical_or(not of_chief, tf.equal(replica.replica_id_in_sync_group, 0))
            values = tf.where(heard, values, tf.zeros_like(values))  # on the replica's device, also when it is heard
            return replica.all_reduce(tf.distribute.ReduceOp.SUM, values)

        return self._strategy.experimental_local_results(self._strategy.run(in_replica, [values]))[0]
