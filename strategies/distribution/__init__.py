"""How a model is trained elsewhere: each strategy has `check(model, train)`, `scope()`, `fit(...)`, `gather(model)`."""

import inspect

from layers.checking import unknown_name
from strategies.distribution.asynchronous import Asynchronous
from strategies.distribution.federated import Federated
from strategies.distribution.model_parallel import ModelParallel
from strategies.distribution.multi_worker import MultiWorker
from strategies.distribution.pipeline import Pipeline
from strategies.distribution.single import Single
from strategies.distribution.synchronous import Synchronous

DISTRIBUTIONS = {"single": Single, "sync": Synchronous, "multi_worker": MultiWorker, "async": Asynchronous,
                 "federated": Federated, "model_parallel": ModelParallel, "pipeline": Pipeline}


def create(name, **options):
    """The distribution strategy of that name.

    Args:
        name: one of `DISTRIBUTIONS`.
        **options: arguments of its class. Make it before TensorFlow has run anything.

    Raises:
        ValueError: unknown name, an option that this strategy does not have, or one that cannot work here.
    """
    if name not in DISTRIBUTIONS:
        raise unknown_name("distribution", name, DISTRIBUTIONS)
    known = inspect.signature(DISTRIBUTIONS[name]).parameters
    for option in options:
        if option not in known:
            others = [other for other, cls in DISTRIBUTIONS.items() if option in inspect.signature(cls).parameters]
            raise ValueError(f"--{option} does not apply to --distribution={name}, only to {', '.join(others)}. "
                             "Leave it out or choose another --distribution.")
    return DISTRIBUTIONS[name](**options)
