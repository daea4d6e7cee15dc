"""Errors that several layers and backbones raise in the same words."""

import difflib
import numbers


def unknown_name(kind, name, known):
    """A ValueError for a `name` that is not among `known`: it lists those, and names the nearest match.

    Args:
        kind: what the name stands for ("normalization", "stem").
        name: what was received.
        known: the legal names.
    """
    known = [str(k) for k in known]
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ValueError(f"Unknown {kind} {name!r}: expected one of {', '.join(known)}.{hint}")


def positive_integer(name, value):
    """`value`, when it is a whole number above 0; a ValueError that names it otherwise."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive integer; received {value!r}.")
    return int(value)
