"""Runs a training command as a cluster of processes on this machine, and starts again what dies.

    python -m apps.cluster --workers=3 --servers=1 -- python -m apps.image_classification.train --distribution=async ...
    python -m apps.cluster --workers=2 -- python -m apps.image_classification.train --distribution=multi_worker ...

Exit code: that of the training; 143 or 130 after SIGTERM or an interrupt, by which the training is saved first.
"""

import sys

from absl import flags

from apps.common import flagging
from strategies.supervisor import Supervisor


def define_flags(flag_values=flags.FLAGS):
    """Flags of the cluster; those of the training follow its command."""
    flags.DEFINE_integer("workers", 2, "Processes that compute.", lower_bound=1, flag_values=flag_values)
    flags.DEFINE_integer("servers", 0, "Parameter servers, for --distribution=async. 0: a synchronous group, for "
                                       "--distribution=multi_worker.", lower_bound=0, flag_values=flag_values)
    flags.DEFINE_integer("max_restarts", 100, "Deaths that are made good before giving up.", lower_bound=0,
                         flag_values=flag_values)


def main(argv):
    values, command = flags.FLAGS, argv[1:]
    if not command:
        raise ValueError("No command: expected -- and a training command after the flags, as -- python -m "
                         "apps.image_classification.train --distribution=multi_worker --workdir=runs/group.")
    supervisor = Supervisor(command, workers=values.workers, servers=values.servers, max_restarts=values.max_restarts,
                            report=lambda line: print(line, file=sys.stderr, flush=True))
    try:
        code = supervisor.run()
    except FileNotFoundError:
        raise ValueError(f"Command {command[0]!r} is not there. Give a program after --, as -- python -m ...") from None
    sys.exit(code)


if __name__ == "__main__":
    define_flags()
    flagging.run(main)
