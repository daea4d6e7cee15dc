"""Networks of agents: ordinary Keras models from an observation to values, logits or means.

Inputs [B, ...] as the environment shows them; whole numbers go through an embedding, anything else is flattened.
"""

import math

import numpy as np
import tf_keras as keras

from apps.reinforcement.action_heads import head_of

ACTIVATIONS = ("tanh", "relu")


@keras.utils.register_keras_serializable("usagi")
class WithDeviation(keras.layers.Layer):
    """Appends the logarithm of the standard deviation, the same for every observation: [B, D] -> [B, 2D].

    (Schulman et al. 2015, arXiv 1502.05477, appendix D.)
    """

    def __init__(self, initial=0.0, **options):
        super().__init__(**options)
        self.initial = initial

    def build(self, shape):
        self.logarithm = self.add_weight("log_deviation", [shape[-1]],
                                         initializer=keras.initializers.Constant(self.initial))

    def call(self, mean):
        return keras.layers.concatenate([mean, keras.backend.zeros_like(mean) + self.logarithm])

    def get_config(self):
        return {**super().get_config(), "initial": self.initial}


def q_network(observation_spec, action_spec, *, units, activation="relu", dueling=False, seed=0):
    """Values of all actions, output `q` [B, A] (Mnih et al. 2015; dueling: Wang et al. 2016, arXiv 1511.06581, eq. 9).

    Args:
        observation_spec, action_spec: `Spec`; the action discrete.
        units: of the hidden layers, a tuple.
        activation: of `ACTIVATIONS`.
        dueling: a state's value and the actions' advantages from layers of their own, the last of `units` each.
        seed: of the weights.
    """
    inputs, hidden = _inputs(observation_spec)
    seeds = _seeds(seed)
    num_actions = head_of(action_spec).num_outputs
    if not dueling:
        hidden = _tower(hidden, units, activation, seeds, "hidden")
        return keras.Model(inputs, {"q": keras.layers.Dense(num_actions, name="q")(hidden)}, name="q_network")
    hidden = _tower(hidden, units[:-1], activation, seeds, "hidden")
    value = _dense(1, None, 1.0, seeds, "state_value")(_tower(hidden, units[-1:], activation, seeds, "value_hidden"))
    advantage = _dense(num_actions, None, 1.0, seeds, "advantage")(
        _tower(hidden, units[-1:], activation, seeds, "advantage_hidden"))
    mean = keras.layers.AveragePooling1D(num_actions, name="mean_advantage")(
        keras.layers.Reshape([num_actions, 1])(advantage))
    centred = keras.layers.Subtract(name="centred")([advantage, keras.layers.Flatten()(mean)])
    return keras.Model(inputs, {"q": keras.layers.Add(name="q")([centred, value])}, name="dueling_q_network")


def policy_network(observation_spec, action_spec, *, units, activation="tanh", value=True, deviation=1.0, seed=0):
    """Parameters of a policy, output `policy` [B, P], and of a baseline, output `value` [B, 1], with layers of its own.

    Orthogonal weights, the policy's last layer scaled by 0.01 (Andrychowicz et al. 2021, arXiv 2006.05990, 3.2).

    Args:
        observation_spec, action_spec, units, activation, seed: as of `q_network`; actions of either kind.
        value: whether there is a baseline.
        deviation: standard deviation of a Gaussian policy at the beginning, in half ranges of the action.
    """
    inputs, features = _inputs(observation_spec)
    seeds, head = _seeds(seed), head_of(action_spec)
    hidden = _tower(features, units, activation, seeds, "policy_hidden")
    if head.num_parameters == head.num_outputs:
        outputs = {"policy": _dense(head.num_outputs, None, 0.01, seeds, "policy")(hidden)}
    else:
        mean = _dense(head.num_outputs, None, 0.01, seeds, "mean")(hidden)
        outputs = {"policy": WithDeviation(math.log(deviation), name="policy")(mean)}
    if value:
        hidden = _tower(features, units, activation, seeds, "value_hidden")
        outputs["value"] = _dense(1, None, 1.0, seeds, "value")(hidden)
    return keras.Model(inputs, outputs, name="policy_network")


def acting_network(network):
    """The part of a network that acts: observation -> values, logits or means [B, A or D].

    Dense values and logits come out less their mean over the actions, which changes neither their order nor a softmax
    of them: values near 100 that differ by a half would all be alike in 8 bits. So their last layer has weights of its
    own; the others are shared with the network.

    Raises:
        ValueError: the network has no layer called q, mean or policy.
    """
    layers = {layer.name: layer for layer in network.layers}
    name = next((name for name in ("q", "mean", "policy") if name in layers), None)
    if name is None:
        raise ValueError(f"Network {network.name!r} has no layer called q, mean or policy; received {sorted(layers)}.")
    last = layers["advantage"] if name == "q" and "advantage" in layers else layers[name]
    if name == "mean" or not isinstance(last, keras.layers.Dense):
        return keras.Model(network.input, last.output, name="acting")
    centred = keras.layers.Dense(last.units, name=name)
    model = keras.Model(network.input, centred(last.input), name="acting")
    centred.set_weights([weights - weights.mean(-1, keepdims=True) for weights in last.get_weights()])
    return model


def _inputs(spec):
    """(input, features [B, D])."""
    inputs = keras.Input(spec.shape, dtype=spec.dtype, name="observation")
    if spec.is_discrete and not spec.shape:
        # A table: a row of the first layer's weights for each state.
        embedded = keras.layers.Embedding(spec.num_values, spec.num_values, name="one_hot", trainable=False,
                                          embeddings_initializer=keras.initializers.Identity())
        return inputs, embedded(inputs)
    if spec.is_discrete:
        scale = 1.0 / float(np.max(spec.maximum)) if spec.maximum is not None else 1.0
        return inputs, keras.layers.Flatten()(keras.layers.Rescaling(scale)(inputs))
    return inputs, inputs if len(spec.shape) == 1 else keras.layers.Flatten()(inputs)


def _tower(x, units, activation, seeds, name):
    for number, size in enumerate(units, 1):
        x = _dense(size, activation, math.sqrt(2.0), seeds, f"{name}_{number}")(x)
    return x


def _dense(size, activation, gain, seeds, name):
    initializer = keras.initializers.Orthogonal(gain, seed=next(seeds))
    return keras.layers.Dense(size, activation, kernel_initializer=initializer, name=name)


def _seeds(seed):
    """Endless numbers, so that every layer has initial weights of its own."""
    noise = np.random.default_rng([seed, 0x5EED])
    while True:
        yield int(noise.integers(2**31 - 1))
