"""Policies: what to do at a time step. Names and meaning as in TF-Agents.

A policy is a pure function of a time step, its own state and a seed, so it compiles together with the environment.
"""

import typing
from collections.abc import Callable

import tensorflow as tf

from apps.reinforcement.action_heads import bounds, head_of
from apps.reinforcement.environments.environment import split, uniform
from apps.reinforcement.trajectories import PolicyStep


class Policy(typing.NamedTuple):
    """How actions are chosen.

    Attributes:
        action: (time_step, policy_state, seed int32 [2]) -> `PolicyStep` for B environments. Of a Gaussian policy the
            step's `info` is the raw action [B, D] before it was clipped.
        initial_state: B -> state at the beginning; () of a policy without memory.
    """

    action: Callable
    initial_state: Callable = lambda batch: ()


def greedy(parameters, action_spec):
    """The likeliest action, or the one of the highest value.

    Args:
        parameters: observation [B, ...] -> logits, values or means [B, P], such as a Keras model.
        action_spec: `Spec`.
    """
    head = head_of(action_spec)

    def action(time_step, policy_state=(), seed=None):
        del seed
        raw = head.mode(parameters(time_step.observation))
        return _step(action_spec, head, raw, policy_state)

    return Policy(action)


def sampling(parameters, action_spec):
    """Draws from the categorical or Gaussian that the network describes; arguments as of `greedy`."""
    head = head_of(action_spec)

    def action(time_step, policy_state, seed):
        raw = head.sample(parameters(time_step.observation), seed)
        return _step(action_spec, head, raw, policy_state)

    return Policy(action)


def epsilon_greedy(values, action_spec, epsilon):
    """With probability epsilon any action, all alike; otherwise the one of the highest value.

    Args:
        values: observation -> [B, A].
        action_spec: discrete `Spec`.
        epsilon: () -> number, read at every step.
    """
    best = greedy(values, action_spec)

    def action(time_step, policy_state, seed):
        step = best.action(time_step, policy_state)
        seeds = split(seed, 2)
        batch = step.action.shape
        tries = uniform(batch, seeds[0]) < epsilon()
        return step._replace(action=tf.where(tries, _any(batch, action_spec, seeds[1]), step.action))

    return Policy(action)


def random(action_spec):
    """Any action, all alike, within bounds that must be finite."""
    if not action_spec.is_discrete:
        low, high = (tf.constant(value, tf.float32) for value in bounds(action_spec))

    def action(time_step, policy_state, seed):
        batch = time_step.step_type.shape
        if action_spec.is_discrete:
            return PolicyStep(_any(batch, action_spec, seed), policy_state)
        share = uniform([*batch, *action_spec.shape], seed)
        return PolicyStep(low + share * (high - low), policy_state, share * 2 - 1)

    return Policy(action)


def by_rule(rule):
    """A fixed rule: observation [B, ...] -> action [B, ...]."""
    return Policy(lambda time_step, policy_state=(), seed=None: PolicyStep(rule(time_step.observation), policy_state))


def _any(shape, action_spec, seed):
    share = uniform(shape, seed)
    return tf.minimum(tf.cast(share * action_spec.num_values, tf.int32), action_spec.num_values - 1)


def _step(action_spec, head, raw, policy_state):
    return PolicyStep(head.legal(raw), policy_state, () if action_spec.is_discrete else raw)
