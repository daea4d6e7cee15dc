"""Exact methods for finite models: evaluation, policy iteration, value iteration, and the objective of a policy.

Everything in float64 and compiled. Sutton & Barto 2018, chapter 4 and sections 13.2 and 13.6. A policy is the
probability of each action, [S, A], or an action for each state, int [S]. S states, A actions.
"""

import typing

import numpy as np
import tensorflow as tf

from layers.checking import unknown_name

TOLERANCE = 1e-12  # of the largest change of a sweep
_MAX_SWEEPS = 1_000_000
_TIE = 1e-9  # values this close, relative to the largest, count as equal: rounding must not choose a policy
OBJECTIVES = ("discounted", "average")


class Solution(typing.NamedTuple):
    """What was found; arrays of NumPy."""

    values: np.ndarray  # float64 [S]
    action_values: np.ndarray  # float64 [S, A]
    policy: np.ndarray  # int32 [S]: the first of the best actions
    sweeps: int  # passes over all states, or changes of the policy


class _Tables(typing.NamedTuple):
    """A model as tensors; what follows a terminal state is worth nothing."""

    rewards: tf.Tensor  # [S, A]
    transitions: tf.Tensor  # [S * A, S], times the discount; 0 into a terminal state
    alive: tf.Tensor  # [S]: 0 for terminal states


def linear_values(model, policy):
    """V of a policy, float64 [S], by solving V = r + discount P V.

    Raises:
        ValueError: under the policy an undiscounted episode need not end.
    """
    chances = probabilities(model, policy)
    rewards, transitions = _of_policy(_tables(model), chances)
    matrix = np.eye(model.num_states) - transitions.numpy()
    if np.linalg.cond(matrix) > 1e13:
        raise ValueError("The values of this policy are not finite: with a discount of 1, an episode must end from "
                         "every state. Lower the discount or take a policy that ends.")
    return np.linalg.solve(matrix, rewards.numpy())


def evaluate(model, policy, *, tolerance=TOLERANCE, max_sweeps=_MAX_SWEEPS):
    """The same by sweeps V <- r + discount P V (section 4.1), until the largest change is at most `tolerance`.

    Returns:
        `Solution`, with the best actions with respect to the policy's values.

    Raises:
        ValueError: that does not come within `max_sweeps`.
    """
    tables = _tables(model)
    rewards, transitions = _of_policy(tables, probabilities(model, policy))
    values, sweeps, change = _iterate(rewards[:, None], transitions, tables.alive, tolerance, max_sweeps)
    _check_end(change, tolerance, max_sweeps)
    return _solution(tables, values, int(sweeps))


def value_iteration(model, *, tolerance=TOLERANCE, max_sweeps=_MAX_SWEEPS):
    """The optimum by sweeps V <- max_a (r + discount P V) (section 4.4).

    Returns:
        `Solution`.

    Raises:
        ValueError: no end within `max_sweeps`.
    """
    tables = _tables(model)
    values, sweeps, change = _iterate(tables.rewards, tables.transitions, tables.alive, tolerance, max_sweeps)
    _check_end(change, tolerance, max_sweeps)
    return _solution(tables, values, int(sweeps))


def policy_iteration(model, policy=None, *, evaluation="linear", max_changes=1000):
    """The optimum by evaluating a policy and then making it greedy, until nothing changes (section 4.3).

    Args:
        model: `Model`.
        policy: to begin with; None: all actions alike, from which every state that can end does.
        evaluation: "linear" or "sweeps".
        max_changes: of the policy.

    Returns:
        `Solution`.

    Raises:
        ValueError: unknown evaluation; a policy on the way whose values are not finite; no end within `max_changes`.
    """
    evaluations = {"linear": linear_values, "sweeps": lambda *given: evaluate(*given).values}
    if evaluation not in evaluations:
        raise unknown_name("evaluation", evaluation, evaluations)
    tables = _tables(model)
    chances = uniform_policy(model) if policy is None else probabilities(model, policy)
    for change in range(1, max_changes + 1):
        values = evaluations[evaluation](model, chances)
        solution = _solution(tables, tf.constant(values), change)
        gains = solution.action_values.max(axis=1) - np.sum(chances * solution.action_values, axis=1)
        if np.all(gains <= _TIE * max(1.0, np.abs(solution.action_values).max())):
            return solution
        chances = probabilities(model, solution.policy)
    raise ValueError(f"The policy still changed after {max_changes} changes. Give more max_changes.")


def action_values(model, values):
    """Q, float64 [S, A], of state values [S]; 0 for terminal states."""
    return _look_ahead(_tables(model), tf.constant(values, tf.float64)).numpy()


def best_actions(values, tie=_TIE):
    """Which actions are best, bool [S, A], of action values [S, A]; those closer than `tie` x the largest are alike."""
    values = np.asarray(values)
    return values >= values.max(axis=1, keepdims=True) - tie * max(1.0, np.abs(values).max())


def uniform_policy(model):
    """All actions alike, [S, A]."""
    return np.full([model.num_states, model.num_actions], 1 / model.num_actions)


def probabilities(model, policy):
    """A policy as probabilities, float64 [S, A].

    Raises:
        ValueError: it is neither actions [S] nor probabilities [S, A].
    """
    policy = np.asarray(policy)
    shape = (model.num_states, model.num_actions)
    if policy.shape == shape[:1] and np.issubdtype(policy.dtype, np.integer):
        if policy.min() >= 0 and policy.max() < shape[1]:
            return np.eye(shape[1])[policy]
    elif policy.shape == shape and np.all(policy >= 0) and np.allclose(policy.sum(axis=1), 1, rtol=0, atol=1e-9):
        return policy.astype(np.float64)
    raise ValueError(f"A policy must be probabilities {list(shape)} that sum to 1, or actions 0 to {shape[1] - 1} of "
                     f"the shape {list(shape[:1])}; received {policy.dtype} {list(policy.shape)}.")


def objective(model, policy, kind="discounted"):
    """What a policy gradient climbs, as a differentiable float64 scalar.

    Args:
        model: `Model`.
        policy: probabilities [S, A], a float64 tensor.
        kind: "discounted": the return that an episode begins with, sum_s initial(s) V(s) (section 13.2); "average":
            the mean reward of a step (equation 13.15), where each end of an episode is followed by the next beginning.

    Raises:
        ValueError: unknown kind.
    """
    if kind not in OBJECTIVES:
        raise unknown_name("objective", kind, OBJECTIVES)
    if kind == "discounted":
        rewards, transitions = _of_policy(_tables(model), policy)
        values = tf.linalg.solve(tf.eye(model.num_states, dtype=tf.float64) - transitions, rewards[:, None])[:, 0]
        return tf.reduce_sum(tf.constant(model.initial) * values)
    return tf.reduce_sum(stationary(model, policy)[:, None] * policy * tf.constant(model.expected_rewards))


def policy_gradient(model, policy, kind="discounted"):
    """Derivative of the objective to the probabilities pi(a|s), [S, A], by the policy gradient theorem: mu(s) Q(s, a).

    mu is the discounted number of visits of an episode, or the stationary share of steps; Q the action values, or the
    differential ones (equation 13.17). Parameters: sum_sa of this times the derivative of pi(a|s) (equation 13.5).

    Raises:
        ValueError: unknown kind.
    """
    if kind not in OBJECTIVES:
        raise unknown_name("objective", kind, OBJECTIVES)
    policy = np.asarray(policy, np.float64)
    if kind == "discounted":
        transitions = _of_policy(_tables(model), policy)[1].numpy()
        visits = np.linalg.solve((np.eye(model.num_states) - transitions).T, model.initial)
        visits = np.where(model.terminal, 0, visits)
        return visits[:, None] * action_values(model, linear_values(model, policy))
    following = _going_on(model)
    share = stationary(model, tf.constant(policy)).numpy()
    mean = np.sum(share[:, None] * policy * model.expected_rewards)
    # V = r - mean + P V has a solution up to a constant: fix the mean of V under mu.
    chain = np.einsum("sa,sat->st", policy, following)
    rewards = np.sum(policy * model.expected_rewards, axis=1) - mean
    values = np.linalg.solve(np.eye(model.num_states) - chain + share[None], rewards)
    return share[:, None] * (model.expected_rewards - mean + following @ values)


def stationary(model, policy):
    """The share of steps spent in each state when episode follows episode, float64 [S]; differentiable.

    Raises:
        tf.errors.InvalidArgumentError: the chain falls into parts that do not meet.
    """
    chain = tf.einsum("sa,sat->st", tf.cast(policy, tf.float64), tf.constant(_going_on(model)))
    # mu (I - P) = 0 and sum(mu) = 1: adding 1 to every entry of I - P makes it mu (I - P + 1) = 1.
    number = model.num_states
    matrix = tf.eye(number, dtype=tf.float64) - chain + 1
    return tf.linalg.solve(tf.transpose(matrix), tf.ones([number, 1], tf.float64))[:, 0]


def _going_on(model):
    """Transitions [S, A, S] in which a terminal state is the beginning of the next episode: it is never lingered in."""
    ends = np.sum(model.transitions * model.terminal, axis=2, keepdims=True)
    return model.transitions * ~model.terminal + ends * model.initial


def _tables(model):
    alive = (~model.terminal).astype(np.float64)
    transitions = model.discount * model.transitions * alive[:, None, None] * alive
    return _Tables(tf.constant(model.expected_rewards * alive[:, None]),
                   tf.constant(transitions.reshape(-1, model.num_states)), tf.constant(alive))


def _of_policy(tables, chances):
    """Mean reward [S] and discounted transitions [S, S] under probabilities [S, A]."""
    chances = tf.cast(chances, tf.float64)
    transitions = tf.reshape(tables.transitions, [*tables.rewards.shape, -1])
    return tf.reduce_sum(chances * tables.rewards, axis=1), tf.einsum("sa,sat->st", chances, transitions)


@tf.function(jit_compile=True)
def _iterate(rewards, transitions, alive, tolerance, max_sweeps):
    """(V [S], sweeps, last change) of V <- max_a (r [S, A] + P [S * A, S] V) from 0."""
    def sweep(values, sweeps, _):
        after = tf.reduce_max(rewards + tf.reshape(tf.linalg.matvec(transitions, values), tf.shape(rewards)), axis=1)
        return alive * after, sweeps + 1, tf.reduce_max(tf.abs(alive * after - values))

    tolerance = tf.cast(tolerance, tf.float64)
    return tf.while_loop(lambda _, sweeps, change: (sweeps < max_sweeps) & (change > tolerance), sweep,
                         (tf.zeros_like(alive), tf.constant(0), tf.constant(np.inf, tf.float64)))


def _look_ahead(tables, values):
    return tables.rewards + tf.reshape(tf.linalg.matvec(tables.transitions, values), tables.rewards.shape)


def _solution(tables, values, sweeps):
    ahead = _look_ahead(tables, values).numpy()
    return Solution(np.asarray(values), ahead, np.argmax(best_actions(ahead), axis=1).astype(np.int32), sweeps)


def _check_end(change, tolerance, max_sweeps):
    if not change <= tolerance:
        raise ValueError(f"Values still changed by {float(change):.3g} after {max_sweeps} sweeps; expected at most "
                         f"{tolerance:g}. Give more sweeps, or a discount below 1 where episodes need not end.")
