"""What REINFORCE, A2C and PPO learn from, and their losses and steps, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from apps.reinforcement import networks
from apps.reinforcement.action_heads import head_of
from apps.reinforcement.agents import agent as agent_lib
from apps.reinforcement.agents import policy_gradient
from apps.reinforcement.agents.policy_gradient import Options
from apps.reinforcement.trajectories import Spec, TimeStep, Trajectory

OBSERVATION, ACTION = Spec((3,), tf.float32), Spec((), tf.int32, 0, 1)
BATCH, TIME = 2, 5


def experience(seed=0, action=None):
    """[B, T] with an end for good, its boundary, and a cut episode."""
    noise = np.random.default_rng(seed)
    kind = np.array([[0, 1, 2, 0, 1], [1, 1, 1, 2, 0]], np.int32)
    following = np.array([[1, 2, 0, 1, 1], [1, 1, 2, 0, 1]], np.int32)
    discount = np.array([[1, 0, 1, 1, 1], [1, 1, 1, 1, 1]], np.float32)
    reward = noise.normal(size=[BATCH, TIME]).astype(np.float32) * (kind != 2)
    chosen = noise.integers(0, 2, [BATCH, TIME]).astype(np.int32) if action is None else action
    observation = noise.normal(size=[BATCH, TIME, 3]).astype(np.float32)
    last = TimeStep(*(tf.zeros([BATCH]),) * 3, tf.constant(noise.normal(size=[BATCH, 3]), tf.float32))
    return Trajectory(*map(tf.constant, (kind, observation, chosen)), () if action is None else tf.constant(action),
                      *map(tf.constant, (following, reward, discount))), last


def network(action=ACTION, **options):
    return networks.policy_network(OBSERVATION, action, units=(8,), seed=3, **options)


def softmax_log(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def values_of(model, observation):
    return model(tf.reshape(observation, [-1, 3]))["value"].numpy().reshape(observation.shape[:-1])


def test_ppo_learns_from_generalised_advantages():
    model, (rows, last) = network(), experience()
    options = Options("ppo", discount=0.9, decay=0.8, clip=0.2, normalize=False)
    batch, extra = policy_gradient.rows_of(model, head_of(ACTION), options, rows, last)
    value = values_of(model, rows.observation)
    following = np.concatenate([value[:, 1:], values_of(model, last.observation)[:, None]], axis=1)
    weight, advantage = (rows.step_type.numpy() != 2).astype(float), np.zeros([BATCH, TIME])
    for b in range(BATCH):
        for t in reversed(range(TIME)):
            if weight[b, t]:
                error = rows.reward[b, t] + 0.9 * rows.discount[b, t] * following[b, t] - value[b, t]
                goes_on = t + 1 < TIME and rows.next_step_type[b, t] != 2
                advantage[b, t] = error + 0.9 * 0.8 * (advantage[b, t + 1] if goes_on else 0)
    log_prob = softmax_log(model(batch.inputs)["policy"].numpy())
    taken = np.take_along_axis(log_prob, rows.action.numpy().reshape(-1, 1), axis=1)[:, 0]
    expected = np.stack([weight.ravel() / weight.mean(), advantage.ravel(), taken, rows.action.numpy().ravel()], axis=1)
    np.testing.assert_allclose(batch.targets["policy"], expected, atol=1e-5)
    target = np.stack([expected[:, 0], ((advantage + value) * weight).ravel(), value.ravel()], axis=1)
    np.testing.assert_allclose(batch.targets["value"], target, atol=1e-5)
    entropy = -(np.exp(log_prob) * log_prob).sum(axis=1)
    assert extra["entropy"].numpy() == pytest.approx((entropy * weight.ravel()).sum() / weight.sum(), rel=1e-5)


def test_reinforce_learns_from_returns():
    rows, last = experience()
    model = network(value=False)
    options = Options("reinforce", discount=0.5, normalize=False, exact=True)
    batch, _ = policy_gradient.rows_of(model, head_of(ACTION), options, rows, last)
    r = rows.reward.numpy()
    returns = [r[0, 0] + 0.5 * r[0, 1], r[0, 1], 0, r[0, 3] + 0.5 * r[0, 4], r[0, 4],
               r[1, 0] + 0.5 * r[1, 1] + 0.25 * r[1, 2], r[1, 1] + 0.5 * r[1, 2], r[1, 2], 0, r[1, 4]]
    power = [1, 0.5, 0, 1, 0.5, 1, 0.5, 0.25, 0, 1]
    np.testing.assert_allclose(batch.targets["policy"][:, 1], np.multiply(returns, power), atol=1e-5)
    assert set(batch.targets) == {"policy"}
    average = Options("reinforce", objective="average", normalize=False)
    batch, extra = policy_gradient.rows_of(model, head_of(ACTION), average, rows, last)
    mean = r[rows.step_type.numpy() != 2].mean()
    assert extra["average_reward"].numpy() == pytest.approx(mean, abs=1e-6)
    assert batch.targets["policy"][0, 1].numpy() == pytest.approx(r[0].sum() - 4 * mean, abs=1e-5)


@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_the_policy_loss(clip):
    noise = np.random.default_rng(1)
    logits, advantage, old, weight = noise.normal(size=[20, 2]), *noise.normal(size=[2, 20]), noise.uniform(size=20)
    action = noise.integers(0, 2, 20)
    found = policy_gradient.PolicyLoss(head_of(ACTION), clip=clip, entropy_weight=0.1)(
        tf.constant(np.stack([weight, advantage, old, action], axis=1)), tf.constant(logits))
    log_prob = softmax_log(logits)
    total = 0
    for i in range(20):
        new = log_prob[i, action[i]]
        ratio = np.exp(new - old[i])
        loss = -min(ratio * advantage[i], np.clip(ratio, 0.8, 1.2) * advantage[i]) if clip else -new * advantage[i]
        total += weight[i] * (loss + 0.1 * (np.exp(log_prob[i]) * log_prob[i]).sum())
    assert found.numpy() == pytest.approx(total / 20, rel=1e-5)


def test_gaussian_actions_are_the_raw_ones():
    box = Spec((2,), tf.float32, -1.0, 1.0)
    raw = np.random.default_rng(2).normal(0, 3, size=[BATCH, TIME, 2]).astype(np.float32)
    rows, last = experience(action=raw)
    model = network(box, deviation=0.5)
    batch, _ = policy_gradient.rows_of(model, head_of(box), Options("a2c"), rows, last)
    np.testing.assert_allclose(batch.targets["policy"][:, 3:], raw.reshape(-1, 2))
    parameters = model(batch.inputs)["policy"]
    np.testing.assert_allclose(parameters[:, 2:], np.log(0.5), rtol=1e-6)
    np.testing.assert_allclose(batch.targets["policy"][:, 2], head_of(box).log_prob(parameters, raw.reshape(-1, 2)),
                               rtol=1e-5)


def test_training_is_that_of_keras_fit():
    """The compiled loop and `fit` take the same steps; without leave it takes none."""
    (rows, last), seed = experience(), tf.constant([1, 2])
    options = Options("ppo", clip=0.2, passes=3, minibatch=5, entropy_weight=0.01)
    agents = [policy_gradient.make(network(), keras.optimizers.Adam(0.01), ACTION, options) for _ in range(2)]
    train = tf.function(agents[0].train, autograph=False)
    start = agents[0].network.get_weights()
    train(rows, last, seed, tf.constant(False))
    for a, b in zip(agents[0].network.get_weights(), start, strict=True):
        np.testing.assert_array_equal(a, b)
    info = train(rows, last, seed, tf.constant(True))
    batch, _ = agents[1].rows(rows, last)
    order = policy_gradient.batches_of(batch, options, seed)
    assert order.shape == (6, 5) and all(sorted(order.numpy()[2 * i:2 * i + 2].ravel()) == list(range(10))
                                         for i in range(3))
    steps = [agents[1].network.train_on_batch(*tf.nest.map_structure(lambda part, index=index: tf.gather(part, index),
                                                                     tuple(batch)), return_dict=True,
                                              reset_metrics=True) for index in order]
    for a, b in zip(agents[0].network.get_weights(), agents[1].network.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert info.loss.numpy() == pytest.approx(np.mean([step["loss"] for step in steps]), rel=1e-4)
    assert not np.allclose(start[0], agents[0].network.get_weights()[0])


def test_a_pass_leaves_out_what_does_not_fill_a_minibatch():
    order = agent_lib.minibatches(10, 2, 4, tf.constant([1, 1])).numpy()
    assert order.shape == (4, 4) and all(len(set(order[i:i + 2].ravel())) == 8 for i in (0, 2))


@pytest.mark.parametrize("options, words", [({"kind": "pqo"}, "Unknown agent 'pqo'.*'ppo'"),
                                            ({"kind": "a2c", "objective": "mean"}, "Unknown objective 'mean'")])
def test_unknown_options(options, words):
    with pytest.raises(ValueError, match=words):
        Options(**options)
