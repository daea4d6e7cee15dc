import functools

import numpy as np
import pytest

from apps.reinforcement import networks
from apps.reinforcement.environments import catalogue
from strategies import export

MAKERS = {"q": networks.q_network, "dueling": functools.partial(networks.q_network, dueling=True),
          "policy": networks.policy_network}


def network_for(name, env="acrobot"):
    environment = catalogue.make(env)
    model = MAKERS[name](environment.observation_spec, environment.action_spec, units=(8, 8))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 1, weights.shape) for weights in model.get_weights()])
    return model, rng.normal(0, 1, [500, *environment.observation_spec.shape]).astype(np.float32)


@pytest.mark.parametrize("name", MAKERS)
def test_acting_outputs_are_the_networks_less_their_mean(name):
    model, observations = network_for(name)
    outputs = model(observations)
    whole = outputs["policy" if name == "policy" else "q"].numpy()
    acting = networks.acting_network(model)
    np.testing.assert_allclose(acting(observations), whole - whole.mean(1, keepdims=True), atol=1e-4)
    np.testing.assert_allclose(networks.acting_network(acting)(observations), acting(observations), atol=1e-5)
    before = model.get_weights()
    acting.layers[-1].set_weights([2 * weights for weights in acting.layers[-1].get_weights()])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_means_of_a_continuous_action_are_as_they_were():
    model, observations = network_for("policy", "pendulum")
    parameters = model(observations)["policy"].numpy()
    np.testing.assert_array_equal(networks.acting_network(model)(observations), parameters[:, :1])


def test_values_that_differ_by_little_decide_alike_in_8_bits(tmp_path):
    """Values of about 100, as those of CartPole, whose steps in 8 bits are nearly as large as what they differ by."""
    model, observations = network_for("q", "cart_pole")
    kernel, bias = model.get_layer("q").get_weights()
    common = np.abs(kernel[:, :1])
    model.get_layer("q").set_weights([common * 5 + 0.02 * kernel, bias * 0.02 + 80])
    q = model(observations)["q"].numpy()
    assert 80 < q.mean() and np.abs(q[:, 0] - q[:, 1]).mean() < 0.01 * np.ptp(q)
    agreement = {}
    for name, exported in (("acting", networks.acting_network(model)), ("whole", model)):
        path = tmp_path / f"{name}.tflite"
        export.convert(exported, path, "int8", representative=observations)
        found = export.Runner(path)(observations)
        found = found["q"] if isinstance(found, dict) else found
        agreement[name] = np.mean(found.argmax(1) == q.argmax(1))
    assert agreement["acting"] > 0.97 > 0.8 > agreement["whole"]
