"""Agents that follow the policy gradient: REINFORCE, with or without baseline; A2C; PPO.

They differ in what an action is compared with (a return, or an advantage), in the loss, and in how often a batch of
experience is learned from. Experience is a `Trajectory` [B, T, ...] that the collect policy has made with the present
weights. B environments, T steps, N = B T rows, P parameters of a policy.
"""

import dataclasses

import tensorflow as tf
import tf_keras as keras

from apps.reinforcement import losses, policies
from apps.reinforcement.action_heads import head_of
from apps.reinforcement.agents.agent import Agent, LossInfo, Rows, compile_network, minibatches, train_on_rows
from apps.reinforcement.trajectories import StepType
from layers.checking import unknown_name

KINDS = ("reinforce", "a2c", "ppo")
OBJECTIVES = ("discounted", "average")


@dataclasses.dataclass(frozen=True)
class Options:
    """How an agent learns.

    Attributes:
        kind: of `KINDS`.
        discount: gamma.
        decay: lambda of the advantages (a2c, ppo).
        clip: epsilon of PPO's ratio; 0 takes the plain policy gradient.
        value_clip: how far PPO's value may move; 0: anywhere.
        value_weight, entropy_weight: in the loss.
        normalize: advantages with mean 0 and deviation 1 over the rows of an update.
        objective: "discounted" return, or the "average" reward of a step (reinforce only).
        exact: weighs step t of an episode with gamma^t, as the discounted objective asks for and hardly anyone does
            (Sutton & Barto 2018, section 13.3); reinforce only.
        passes, minibatch: over the rows of an update, and rows of a minibatch; 0: all.
    """

    kind: str
    discount: float = 0.99
    decay: float = 0.95
    clip: float = 0.0
    value_clip: float = 0.0
    value_weight: float = 0.5
    entropy_weight: float = 0.0
    normalize: bool = True
    objective: str = "discounted"
    exact: bool = False
    passes: int = 1
    minibatch: int = 0

    def __post_init__(self):
        for word, name, known in (("agent", self.kind, KINDS), ("objective", self.objective, OBJECTIVES)):
            if name not in known:
                raise unknown_name(word, name, known)


class PolicyLoss(keras.losses.Loss):
    """PPO's clipped loss, or the plain policy gradient, less the entropy: of targets [N, 3 + k] and parameters [N, P].

    Args:
        head: `action_heads.Head`.
        clip: 0 takes the plain policy gradient.
        entropy_weight: of the entropy.

    Call arguments:
        targets: columns weight, advantage, logarithm of the old probability, raw action.
    """

    def __init__(self, head, *, clip=0.0, entropy_weight=0.0):
        super().__init__(name="policy_loss")
        self._head, self._clip, self._entropy_weight = head, clip, entropy_weight

    def call(self, targets, parameters):
        weight, advantage, old, action = targets[:, 0], targets[:, 1], targets[:, 2], targets[:, 3:]
        if self._head.num_parameters == self._head.num_outputs:
            action = tf.cast(action[:, 0], tf.int32)
        log_prob = self._head.log_prob(parameters, action)
        loss = losses.clipped_policy_loss(log_prob, old, advantage, self._clip) if self._clip \
            else losses.policy_gradient_loss(log_prob, advantage)
        return weight * (loss - self._entropy_weight * self._head.entropy(parameters))


class ValueLoss(keras.losses.Loss):
    """`losses.value_loss` of targets [N, 3], columns weight, return, old value, and values [N, 1]."""

    def __init__(self, clip=0.0):
        super().__init__(name="value_loss")
        self._clip = clip or None

    def call(self, targets, values):
        return targets[:, 0] * losses.value_loss(values[:, 0], targets[:, 1], targets[:, 2], self._clip)


def objectives_of(network, head, options):
    """({output: loss}, {output: weight}) with which a network is compiled."""
    losses_of = {"policy": PolicyLoss(head, clip=options.clip, entropy_weight=options.entropy_weight)}
    if "value" in network.output_names:
        losses_of["value"] = ValueLoss(options.value_clip)
    return losses_of, {name: {"policy": 1.0, "value": options.value_weight}[name] for name in losses_of}


def make(network, optimizer, action_spec, options):
    """An `Agent`.

    Args:
        network: of `networks.policy_network`; a2c and ppo need its value.
        optimizer: of Keras, new.
        action_spec: `Spec`.
        options: `Options`.

    Returns:
        `Agent`. Its `train(experience, next_time_step, seed, is_on)` makes all steps of an update: the time step is the
        one after the experience, the seed that of the minibatches, and without `is_on` the weights stay.
    """
    head = head_of(action_spec)
    objectives, weights = objectives_of(network, head, options)
    compile_network(network, optimizer, objectives, weights)

    def parameters(observation):
        return network(observation)["policy"]

    def rows(experience, next_time_step):
        return rows_of(network, head, options, experience, next_time_step)

    def train(experience, next_time_step, seed, is_on=True):
        batch, extra = rows(experience, next_time_step)
        found = train_on_rows(network, objectives, weights, batch, batches_of(batch, options, seed), is_on)
        return LossInfo(tf.add_n([weights[name] * value for name, value in found.items()]),
                        extra | {f"{name}_loss": value for name, value in found.items()})

    reports = ("entropy", *(("average_reward",) if options.objective == "average" else ()),
               *(f"{name}_loss" for name in objectives))
    return Agent(network, policies.greedy(parameters, action_spec), policies.sampling(parameters, action_spec), train,
                 rows, reports, {})


def batches_of(rows, options, seed):
    """int32 [U, M]: the minibatches of an update."""
    number = rows.inputs.shape[0]
    return minibatches(number, options.passes, min(options.minibatch or number, number), seed)


def rows_of(network, head, options, experience, next_time_step):
    """(`Rows` [B T, ...], {name: scalar}): what the network is to learn from experience, under its present weights."""
    weight = 1.0 - tf.cast(experience.is_boundary(), tf.float32)
    outputs = _apply(network, experience.observation)
    action = experience.action if head.num_parameters == head.num_outputs else experience.policy_info
    log_prob = head.log_prob(outputs["policy"], _flat(action))
    value = tf.reshape(outputs["value"], weight.shape) if "value" in outputs else tf.zeros_like(weight)
    advantage, target, extra = advantages(network, options, experience, next_time_step, value, weight)
    share = weight / tf.maximum(tf.reduce_mean(weight), 1e-8)  # so that a mean over all rows is one over the real ones
    actions = tf.reshape(tf.cast(action, tf.float32), [log_prob.shape[0], -1])
    columns = [_flat(share), _flat(advantage), log_prob]
    targets = {"policy": tf.concat([tf.stack(columns, axis=1), actions], axis=1)}
    if "value" in outputs:
        targets["value"] = tf.stack([_flat(share), _flat(target), _flat(value)], axis=1)
    entropy = tf.reduce_sum(head.entropy(outputs["policy"]) * _flat(weight)) / tf.maximum(tf.reduce_sum(weight), 1.0)
    rows = Rows(_flat(experience.observation), tf.nest.map_structure(tf.stop_gradient, targets))
    return rows, extra | {"entropy": entropy}


def advantages(network, options, experience, next_time_step, value, weight):
    """(advantage [B, T], target of the value [B, T], {name: scalar}); 0 at boundaries."""
    reward = experience.reward * weight
    discount = options.discount * experience.discount * weight
    goes_on = weight * tf.cast(tf.not_equal(experience.next_step_type, int(StepType.LAST)), tf.float32)
    extra = {}
    if options.kind != "reinforce":
        last = tf.reshape(network(next_time_step.observation)["value"], [-1, 1])
        following = tf.concat([value[:, 1:], last], axis=1)
        advantage = losses.generalized_advantages(reward, discount, goes_on, value * weight, following, options.decay)
        target = advantage + value
    else:
        if options.objective == "average":
            target, mean = losses.differential_returns(reward, weight)
            extra["average_reward"] = mean
        else:
            target = losses.returns(reward, discount, goes_on)
        advantage = target - value
    advantage = losses.normalized(advantage, weight) if options.normalize else advantage * weight
    if options.exact:
        advantage *= _powers(options.discount, experience.step_type)
    return advantage, target * weight, extra


def _powers(discount, step_type):
    """gamma^t, [B, T], t counted from the FIRST of each episode."""
    time = tf.range(step_type.shape[1])
    first = tf.where(tf.equal(step_type, int(StepType.FIRST)), time, 0)
    began = tf.scan(tf.maximum, tf.transpose(first))
    return discount ** tf.cast(time - tf.transpose(began), tf.float32)


def _apply(network, observation):
    return network(_flat(observation))


def _flat(tensor):
    """[B, T, ...] as [B T, ...]."""
    return tf.reshape(tensor, [tensor.shape[0] * tensor.shape[1], *tensor.shape[2:]])
