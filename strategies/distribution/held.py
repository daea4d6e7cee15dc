"""Optimizer updates in which every variable is read once and written once.

Keras' optimizers write a slot and read it again within one step. Under DTensor such a read may give the old value, and
the update is silently wrong. Here a stand-in holds the value of each variable during the step, and what it holds in the
end is written.
"""

import contextlib

import tensorflow as tf

from strategies.replacing import replaced


class Held:
    """Stands in for a variable: what is assigned is seen by what reads later."""

    def __init__(self, variable):
        self.variable, self.value, self.written = variable, variable.read_value(), False

    def __getattr__(self, name):
        return getattr(self.variable, name)

    def assign(self, value, **kwargs):
        """As of a variable."""
        self.value, self.written = tf.convert_to_tensor(value, self.variable.dtype), True
        return self

    def assign_add(self, value, **kwargs):
        """As of a variable."""
        return self.assign(self.value + tf.convert_to_tensor(value, self.variable.dtype))

    def assign_sub(self, value, **kwargs):
        """As of a variable."""
        return self.assign(self.value - tf.convert_to_tensor(value, self.variable.dtype))


def _operator(name):
    def apply(self, *others):
        return getattr(self.value, name)(*(other.value if isinstance(other, Held) else other for other in others))

    return apply


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "neg"):
    setattr(Held, f"__{_name}__", _operator(f"__{_name}__"))
tf.register_tensor_conversion_function(
    Held, lambda held, dtype=None, name=None, as_ref=False: held.value if dtype is None else tf.cast(held.value, dtype))


@contextlib.contextmanager
def held_updates(optimizer, adapt):
    """Within it `apply_gradients` of an optimizer works on stand-ins.

    Args:
        optimizer: Keras optimizer, built.
        adapt: `adapt(tensor, variable)`: what is done to gradients and new values for a variable.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    apply = inner.apply_gradients

    def apply_held(grads_and_vars, *args, **kwargs):
        stand_ins = {}

        def hold(value):
            if isinstance(value, tf.Variable):
                return stand_ins.setdefault(id(value), Held(value))
            if isinstance(value, list):
                return [hold(item) for item in value]
            return value

        pairs = [(g, v) for g, v in grads_and_vars if g is not None]
        before = dict(inner.__dict__)
        inner.__dict__.update({name: hold(value) for name, value in before.items() if _has_variables(value)})
        # Called after clipping, for which Keras takes the rows of a sparse gradient as they are.
        inner._deduplicate_sparse_grad = lambda gradients: [
            adapt(tf.convert_to_tensor(gradient), variable) for gradient, (_, variable) in zip(gradients, pairs)]
        try:
            apply([(gradient, hold(variable)) for gradient, variable in pairs], *args, **kwargs)
        finally:
            inner.__dict__.update(before)
            del inner._deduplicate_sparse_grad
        for held in stand_ins.values():
            if held.written:
                held.variable.assign(adapt(held.value, held.variable))

    # With a mesh Keras leaves out what belongs to `tf.distribute`.
    with replaced(inner, apply_gradients=apply_held, _mesh=True):
        yield


def _has_variables(value):
    return isinstance(value, tf.Variable) or isinstance(value, list) and any(_has_variables(item) for item in value)
