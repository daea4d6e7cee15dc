"""Other programs that a benchmark measures in turn with this suite: a process each, which stays and rests meanwhile."""

import json
import os
import subprocess

from benchmarks import runs


class Worker:
    """One side, in a process of its own that reads a case a line, as JSON, and answers each with a line of JSON.

    Args:
        python: the interpreter, perhaps of another environment.
        script: what it runs, with arguments.
        **environment: variables beside those of this process.
    """

    def __init__(self, python, script, **environment):
        self._process = subprocess.Popen([python, *script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                         cwd=runs.ROOT, env={**os.environ, **environment})

    def measure(self, case):
        """The answer to a case."""
        print(json.dumps(case), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The worker ended with code {self._process.wait()} at {case}.")
        return json.loads(line)

    def close(self):
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait(60)
