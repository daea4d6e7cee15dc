"""How a model is trained elsewhere: each strategy has `scope()`, `fit(...)` and `gather(model)`."""

from layers.checking import unknown_name
from strategies.distribution.single import Single

DISTRIBUTIONS = {"single": Single}


def create(name):
    """The distribution strategy of that name.

    Raises:
        ValueError: unknown name.
    """
    if name not in DISTRIBUTIONS:
        raise unknown_name("distribution", name, DISTRIBUTIONS)
    return DISTRIBUTIONS[name]()
