"""What environment and agent tell each other. Names and meaning as in TF-Agents.

A batch of B environments is stepped at once. An episode is FIRST, MID, ..., MID, LAST; `step` after LAST ignores the
action and gives FIRST of the next episode. The discount of a time step is 0 where the episode ended for good, and 1
everywhere else: also at a LAST that only the time limit brought, after which there would have been more to come.
"""

import enum
import typing

import tensorflow as tf


class StepType(enum.IntEnum):
    """Where in its episode a time step is."""

    FIRST = 0
    MID = 1
    LAST = 2


class Spec(typing.NamedTuple):
    """One observation or action, without the batch; minimum and maximum inclusive, numbers or arrays."""

    shape: tuple
    dtype: tf.DType
    minimum: typing.Any = None
    maximum: typing.Any = None

    @property
    def is_discrete(self):
        """Whether the values are whole numbers."""
        return self.dtype.is_integer

    @property
    def num_values(self):
        """How many values a discrete scalar can have; they begin with 0."""
        return int(self.maximum) + 1


class TimeStep(typing.NamedTuple):
    """What an environment shows after a step: [B] each, the observation [B, ...]."""

    step_type: tf.Tensor  # int32, of StepType
    reward: tf.Tensor  # float32, for the action before; 0 at FIRST
    discount: tf.Tensor  # float32
    observation: tf.Tensor

    def is_first(self):
        return tf.equal(self.step_type, StepType.FIRST)

    def is_last(self):
        return tf.equal(self.step_type, StepType.LAST)


class PolicyStep(typing.NamedTuple):
    """What a policy answers: actions [B, ...]; its state (recurrent policies); what else it wants to be kept, such as
    the logarithm of the probability of the action."""

    action: tf.Tensor
    state: typing.Any = ()
    info: typing.Any = ()


class Trajectory(typing.NamedTuple):
    """One step of experience, as TF-Agents keeps it: a time step, the action, and what it led to.

    A step of type LAST leads to the FIRST of the next episode, whatever the action: `is_boundary`. Agents give it no
    weight. Its reward is 0 and its discount 1.
    """

    step_type: tf.Tensor
    observation: tf.Tensor
    action: tf.Tensor
    policy_info: typing.Any
    next_step_type: tf.Tensor
    reward: tf.Tensor
    discount: tf.Tensor

    def is_boundary(self):
        return tf.equal(self.step_type, StepType.LAST)


def from_transition(time_step, policy_step, next_time_step):
    """The `Trajectory` of a time step, the policy's answer, and the time step after it."""
    return Trajectory(time_step.step_type, time_step.observation, policy_step.action, policy_step.info,
                      next_time_step.step_type, next_time_step.reward, next_time_step.discount)
