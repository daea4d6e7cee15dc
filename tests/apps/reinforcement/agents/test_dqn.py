"""What DQN learns from, and its target network, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from apps.reinforcement import networks
from apps.reinforcement.agents import dqn
from apps.reinforcement.trajectories import Spec, Trajectory

OBSERVATION, ACTION = Spec((3,), tf.float32), Spec((), tf.int32, 0, 3)


def experience():
    """Five windows of two steps: going on, ending for good after one and after two, cut after one, a boundary."""
    noise = np.random.default_rng(0)
    kind = np.array([[1, 1, 1], [1, 2, 0], [1, 1, 2], [1, 2, 0], [2, 0, 1]], np.int32)
    discount = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1], [1, 1, 1]], np.float32)
    reward = noise.normal(size=[5, 3]).astype(np.float32)
    observation = noise.normal(size=[5, 3, 3]).astype(np.float32)
    action = noise.integers(0, 4, [5, 3]).astype(np.int32)
    return Trajectory(*map(tf.constant, (kind, observation, action)), (), tf.constant(np.roll(kind, -1, axis=1)),
                      *map(tf.constant, (reward, discount)))


def model(seed, **options):
    return networks.q_network(OBSERVATION, ACTION, units=(8,), seed=seed, **options)


@pytest.mark.parametrize("double", [False, True])
def test_targets(double):
    online, target, rows = model(1), model(2), experience()
    weight = np.array([1, 0.5, 0.25, 1, 0], np.float32)
    batch, error = dqn.rows_of(online, target, dqn.Options(discount=0.9, double=double), rows, tf.constant(weight))
    r, observation = rows.reward.numpy(), rows.observation.numpy()

    def ahead(i, k):
        values = target(observation[i:i + 1, k])["q"].numpy()[0]
        chosen = online(observation[i:i + 1, k])["q"].numpy()[0].argmax() if double else values.argmax()
        return values[chosen]

    expected = [r[0, 0] + 0.9 * r[0, 1] + 0.81 * ahead(0, 2), r[1, 0], r[2, 0] + 0.9 * r[2, 1],
                r[3, 0] + 0.9 * ahead(3, 1)]
    np.testing.assert_allclose(batch.targets["q"][:4, 1], expected, rtol=1e-5)
    np.testing.assert_allclose(batch.targets["q"][:, 0], weight)
    np.testing.assert_array_equal(batch.targets["q"][:, 2], rows.action[:, 0])
    q = online(observation[:, 0])["q"].numpy()[range(5), rows.action.numpy()[:, 0]]
    np.testing.assert_allclose(error[:4], np.abs(expected - q[:4]), rtol=1e-4)


def test_the_loss_is_hubers_weighted():
    values, action = np.array([[0.0, 2], [1, 0], [5, 5]]), [1, 0, 1]
    found = dqn.ValuesLoss()(tf.constant([[1.0, 2.5, 1], [0.5, 4, 0], [0, 99, 1]]), tf.constant(values, tf.float32))
    assert action and found.numpy() == pytest.approx((0.125 + 0.5 * 2.5 + 0) / 3)


@pytest.mark.parametrize("period, share", [(3, 1.0), (1, 0.25)])
def test_the_target_network_follows(period, share):
    options = dqn.Options(target_period=period, target_share=share)
    agent = dqn.make(model(1), keras.optimizers.Adam(0.01), ACTION, options)
    names = sorted(name for name in agent.variables if name.startswith("target_"))
    rows, weight = experience(), tf.ones([5])
    expected = [agent.variables[name].numpy() for name in names]
    train = tf.function(agent.train, autograph=False)
    for step in range(1, 8):
        info = train(rows, weight)
        if step % period == 0:
            expected = [old + share * (new - old) for old, new in zip(expected, agent.network.get_weights())]
        for name, value in zip(names, expected, strict=True):
            np.testing.assert_allclose(agent.variables[name].numpy(), value, atol=1e-6)
    assert info.loss.numpy() > 0 and info.extra["td_error"].shape == [5]


def test_several_steps_move_it_as_one_after_the_other():
    target, weights = [tf.Variable([0.0])], [tf.constant([1.0])]
    dqn.move_target(weights, target, dqn.Options(target_period=2, target_share=0.5), 1, 6)  # due at 2, 4 and 6
    assert target[0].numpy() == [1 - 0.5**3]


def test_epsilon_goes_with_the_steps_of_the_environments():
    agent = dqn.make(model(1), keras.optimizers.Adam(0.01), ACTION, dqn.Options(start=1.0, end=0.0, steps=100))
    step = Trajectory(*(None,) * 7)._replace(observation=tf.zeros([8000, 3]))
    best = agent.policy.action(step).action.numpy()[0]
    for number, expected in ((0, 0.25), (50, 0.625), (100, 1.0), (1000, 1.0)):
        agent.variables["num_steps"].assign(number)
        found = agent.collect_policy.action(step, (), tf.constant([number, 1])).action.numpy()
        assert np.mean(found == best) == pytest.approx(expected, abs=0.02)


def test_dueling_values_are_state_value_and_centred_advantages():
    network = model(4, dueling=True)
    observation = np.random.default_rng(1).normal(size=[6, 3]).astype(np.float32)
    parts = keras.Model(network.input, [network.get_layer(name).output for name in ("state_value", "advantage")])
    value, advantage = (part.numpy() for part in parts(observation))
    expected = value + advantage - advantage.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(network(observation)["q"], expected, atol=1e-6)
