"""Which roundings of an int8 step cost an LSTM and a GRU their sums?

    python -m benchmarks.step_rounding [--folder=runs/zoo_sequences]

`folder` is that of `zoo_sequences`, whose models after 8-bit training are taken, their weights on the 8-bit grid.
Each is computed in NumPy step by step as its file does it, with all rounded that an int8 file rounds or one kind of
tensor only: to 256 codes between the extremes met without rounding, gates between the bounds of their function.
"""

import argparse
import pathlib

import numpy as np
import tf_keras as keras

from apps.language_model.config import Config
from apps.language_model.data import load
from benchmarks import common
from benchmarks.zoo_sequences import FLAGS, NUM_WINDOWS, determined_tokens

KINDS = {"embedding": "embedding", "products": "f c and i g; z h, (1 - z) h~ and r (U h)",
         "sums": "W x, U h, and what goes into gates", "gates": "sigmoids and tanhs", "state": "h, c"}
_SIGMOID, _TANH = (0.0, 1.0), (-1.0, 1.0)


class Rounding:
    """Extremes of each tensor at first, then 256 codes between them for the kinds that are chosen."""

    def __init__(self):
        self._extremes, self.kinds = {}, None

    def __call__(self, kind, name, value, bounds=None):
        if self.kinds is None:
            low, high = self._extremes.get(name, (0.0, 0.0))
            self._extremes[name] = min(low, value.min()), max(high, value.max())
            return value
        if kind not in self.kinds:
            return value
        low, high = bounds or self._extremes[name]
        scale = (high - low) / 255
        return low + scale * np.clip(np.round((value - low) / scale), 0, 255)


def lstm(x, state, weights, name, rounded):
    """A step: (h, state)."""
    kernel, recurrent, bias = weights
    h, c = state
    sums = rounded("sums", f"{name}_x", x @ kernel + bias) + rounded("sums", f"{name}_h", h @ recurrent)
    i, f, g, o = np.split(rounded("sums", f"{name}_sums", sums), 4, axis=1)
    i, f, o = (rounded("gates", "", sigmoid(gate), _SIGMOID) for gate in (i, f, o))
    kept = rounded("products", f"{name}_fc", f * c)
    new = rounded("products", f"{name}_ig", i * rounded("gates", "", np.tanh(g), _TANH))
    c = rounded("state", f"{name}_c", kept + new)
    h = rounded("state", f"{name}_output", o * rounded("gates", "", np.tanh(c), _TANH))
    return h, (h, c)


def gru(x, state, weights, name, rounded):
    """A step: (h, state); Keras' form, whose reset gate comes after the product with h."""
    kernel, recurrent, (bias, recurrent_bias) = weights
    h = state[0]
    from_x = np.split(rounded("sums", f"{name}_x", x @ kernel + bias), 3, axis=1)
    from_h = np.split(rounded("sums", f"{name}_h", h @ recurrent + recurrent_bias), 3, axis=1)
    z, r = (rounded("gates", "", sigmoid(rounded("sums", f"{name}_gate_{k}", from_x[k] + from_h[k])), _SIGMOID)
            for k in (0, 1))
    seen = rounded("products", f"{name}_seen", r * from_h[2])
    new = rounded("gates", "", np.tanh(rounded("sums", f"{name}_new", from_x[2] + seen)), _TANH)
    kept = rounded("products", f"{name}_kept", z * h)
    taken = rounded("products", f"{name}_taken", rounded("gates", "", 1 - z, _SIGMOID) * new)
    h = rounded("state", f"{name}_h_new", kept + taken)
    return h, (h,)


STEPS = {"lstm": (lstm, 2), "gru": (gru, 1)}


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def run(name, model, inputs, rounded):
    """Logits [N, T, V] of tokens int [N, T]."""
    step, states = STEPS[name]
    table, (kernel, bias) = model.get_layer("embedding").embeddings.numpy(), model.get_layer("logits").get_weights()
    layers = [layer for layer in model.layers if layer.name.startswith("layer_")]
    weights = [layer.get_weights() for layer in layers]
    found, state = [], [(np.zeros([len(inputs), layer.units]),) * states for layer in layers]
    for t in range(inputs.shape[1]):
        x = rounded("embedding", "embedding", table[inputs[:, t]])
        for k, layer in enumerate(layers):
            x, state[k] = step(x, state[k], weights[k], layer.name, rounded)
        found.append(x @ kernel + bias)
    return np.stack(found, axis=1)


def measured(name, folder):
    """Rows of a model."""
    config = Config(workdir="unused", model=name, **{key: value for key, value in FLAGS.items() if key != "export"})
    splits = load(config)
    batches = [(x.numpy(), y.numpy()) for x, y in splits.test()]
    inputs, targets = (np.concatenate(parts)[:NUM_WINDOWS] for parts in zip(*batches))
    determined = determined_tokens(inputs, targets, splits.spec)
    model = keras.models.load_model(folder / f"{name}_quantized" / "model.keras", compile=False)
    rounded = Rounding()
    exact = run(name, model, inputs, rounded)
    np.testing.assert_allclose(exact, model.predict(inputs, verbose=0), atol=1e-3)  # it is the model's step
    named, rows = exact.argmax(-1), []
    for label, kinds in (("nothing", ()), *((kind, (kind,)) for kind in KINDS), ("all", tuple(KINDS))):
        rounded.kinds = kinds
        found = run(name, model, inputs, rounded).argmax(-1)
        rows.append({"model": name, "rounded": label,
                     "determined_accuracy": float(np.mean((found == targets)[determined])),
                     "determined_agreement": float(np.mean((found == named)[determined])),
                     "agreement": float(np.mean(found == named))})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default="runs/zoo_sequences")
    folder = pathlib.Path(parser.parse_args().folder)
    common.write("step_rounding", [row for name in STEPS for row in measured(name, folder)])


if __name__ == "__main__":
    main()
