"""Errors that several layers and backbones raise in the same words."""

import difflib


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
