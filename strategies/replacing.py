"""Attributes, mostly functions, that stand aside for others for a while."""

import contextlib

from strategies.compression.hooks import forget_traces


@contextlib.contextmanager
def replaced(owner, **attributes):
    """Within it an object, or a module, has other attributes under these names.

    They are put into its `__dict__`: set in the usual way on a Keras object they would be tracked as part of its state.
    """
    before = {name: owner.__dict__[name] for name in attributes if name in owner.__dict__}
    owner.__dict__.update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            del owner.__dict__[name]
        owner.__dict__.update(before)


@contextlib.contextmanager
def trained_by(model, train_step):
    """Within it a compiled model trains by another step: `train_step(data) -> metrics`."""
    with replaced(model, train_step=train_step), traced_anew(model):
        yield


@contextlib.contextmanager
def traced_anew(model):
    """Keras traces `fit`, `evaluate` and `predict` for what is within, and anew after it."""
    forget_traces(model)
    try:
        yield
    finally:
        forget_traces(model)
