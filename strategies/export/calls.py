"""Layers that are traced with another call, for files of one kind."""

import contextlib


@contextlib.contextmanager
def calls_replaced(layers, make_call):
    """Within it each layer's call is `make_call(layer)`.

    It is put into the layer's `__dict__`, where a hook or Keras may have put one before: that one comes back.
    """
    before = [(layer, layer.__dict__.get("call")) for layer in layers]
    try:
        for layer in layers:
            layer.__dict__["call"] = make_call(layer)
        yield
    finally:
        for layer, call in before:
            layer.__dict__.pop("call", None)
            if call is not None:
                layer.__dict__["call"] = call
