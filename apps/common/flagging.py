"""Flags from a configuration class, and the `main` that every binary shares.

Flags are defined only when a binary runs (`run_app` is called under `if __name__ == "__main__"`); importing a module
defines none.
"""

import dataclasses
import importlib
import sys

from absl import app, flags, logging

from strategies import cluster


def define_flags(cls, flag_values=flags.FLAGS):
    """Defines one flag for each field of the configuration class `cls`."""
    define = {bool: flags.DEFINE_boolean, int: flags.DEFINE_integer, float: flags.DEFINE_float,
              str: flags.DEFINE_string}
    for item in dataclasses.fields(cls):
        # Choices and bounds are checked by the configuration itself, so that flags, files and code raise one message.
        choices = item.metadata["choices"]
        help_text = item.metadata["help"] + (f" One of: {', '.join(map(str, choices))}." if choices else "")
        define[item.type](item.name, item.default, help_text, flag_values=flag_values)


def config_from_flags(cls, flag_values=flags.FLAGS):
    """The configuration that the parsed flags describe; raises ValueError when it is not legal."""
    return cls(**{item.name: flag_values[item.name].value for item in dataclasses.fields(cls)})


def check_no_arguments(argv):
    """Raises ValueError for what stands on the command line and is no flag."""
    if len(argv) > 1:
        raise ValueError(f"Unexpected argument {argv[1]!r}: every option is a flag, as --name=value.")


def early_value(argv, name, default):
    """The value of `--name` in `argv`, read before the flags are defined; `default` where it is not given."""
    for position, argument in enumerate(argv):
        if argument.startswith((f"--{name}=", f"-{name}=")):
            return argument.split("=", 1)[1]
        if argument in (f"--{name}", f"-{name}") and position + 1 < len(argv):
            return argv[position + 1]
    return default


def run_for_app(name_of, main):
    """Defines the flags of the application that the command line names and runs `main(argv)`.

    Args:
        name_of: command line without the program -> name of the application; its ValueError ends the program.
        main: what `run` runs.
    """
    try:
        name = name_of(sys.argv[1:])
    except ValueError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    define_flags(importlib.import_module(f"apps.{name}.config").Config)
    run(main)


def run_app(cls, main):
    """Parses the flags of `cls` and calls `main(config)`.

    A ValueError (bad input) ends the program with one line on standard error and exit code 2; an interrupt with 130.
    """
    define_flags(cls)

    def entry(argv):
        check_no_arguments(argv)
        main(config_from_flags(cls))

    run(entry)


def run(entry):
    """Runs `entry(argv)` under absl: bad input is one line and exit code 2, an error with an `exit_code` that code."""

    def guarded(argv):
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # TensorFlow's savers talk at INFO
        try:
            entry(argv)
        except ValueError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(2)
        except Exception as error:
            code = getattr(error, "exit_code", None)
            if code is None:
                raise
            cluster.give_up(" ".join(str(error).split()), code)  # TensorFlow's own way out waits for who is gone
        except KeyboardInterrupt:
            print("interrupted: run the same command again to resume", file=sys.stderr)
            sys.exit(130)

    app.run(guarded, flags_parser=_parse)


def _parse(argv):
    """absl's parser; an unknown or malformed flag is one line and exit code 2."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
