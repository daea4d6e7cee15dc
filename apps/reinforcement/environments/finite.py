"""Problems of few states: their tables, and the environment that follows from them.

S states, A actions, K largest number of states that can follow a state and action, B batch.
"""

import typing

import numpy as np
import tensorflow as tf

from apps.reinforcement.environments.environment import Environment, uniform
from apps.reinforcement.trajectories import Spec

_SUM = 1e-9  # by how much probabilities may miss 1


class Model(typing.NamedTuple):
    """A finite Markov decision process; `model` makes a checked one. Arrays of NumPy, float64."""

    transitions: np.ndarray  # [S, A, S]: probability of the next state
    rewards: np.ndarray  # [S, A, S]: reward of each transition
    terminal: np.ndarray  # bool [S]: an episode ends on reaching it
    initial: np.ndarray  # [S]: probability that an episode begins there
    discount: float  # of the return that the problem asks for

    @property
    def num_states(self):
        return self.transitions.shape[0]

    @property
    def num_actions(self):
        return self.transitions.shape[1]

    @property
    def expected_rewards(self):
        """[S, A]: mean reward of an action in a state."""
        return np.sum(self.transitions * self.rewards, axis=2)


def model(transitions, rewards, terminal, initial, discount):
    """A checked `Model`.

    Args:
        transitions: [S, A, S], each row sums to 1.
        rewards: [S, A] or [S, A, S].
        terminal: bool [S]. What transitions and rewards say of a terminal state is not used.
        initial: [S], sums to 1, nothing on terminal states.
        discount: 0 to 1.

    Raises:
        ValueError: shapes do not agree, probabilities are not, or a number is not finite.
    """
    transitions, rewards = np.asarray(transitions, np.float64), np.asarray(rewards, np.float64)
    terminal, initial = np.asarray(terminal, bool), np.asarray(initial, np.float64)
    if transitions.ndim != 3 or transitions.shape[0] != transitions.shape[2]:
        raise ValueError(f"Transitions must have the shape [S, A, S]; received {list(transitions.shape)}.")
    num_states = transitions.shape[0]
    if rewards.shape == transitions.shape[:2]:
        rewards = np.broadcast_to(rewards[:, :, None], transitions.shape)
    for name, array, shape in (("Rewards", rewards, transitions.shape), ("Terminal", terminal, (num_states,)),
                               ("Initial", initial, (num_states,))):
        if array.shape != shape:
            raise ValueError(f"{name} must have the shape {list(shape)} of {num_states} states; received "
                             f"{list(array.shape)}.")
    if not np.all(np.isfinite(rewards)):
        raise ValueError(f"Rewards must be finite; received {rewards[~np.isfinite(rewards)][0]}.")
    _check_probabilities("transitions", transitions)
    _check_probabilities("initial", initial)
    if initial[terminal].any():
        raise ValueError("No episode may begin in a terminal state; received an initial probability of "
                         f"{initial[terminal].max():g} for one.")
    if not 0 <= discount <= 1:
        raise ValueError(f"The discount must be 0 to 1; received {discount}.")
    return Model(transitions, rewards, terminal, initial, float(discount))


def environment(name, table, *, max_steps=None, draw=None, picture=None):
    """The environment that plays a `Model`: observation and state are the number of the state, int32 [B].

    Args:
        name: of the environment.
        table: `Model`.
        max_steps, draw, picture: as of `Environment`; the latter two get the number of the state.
    """
    following, chances, rewards = (tf.constant(array) for array in _successors(table))
    begins = tf.constant(_limits(table.initial), tf.float32)
    terminal = tf.constant(table.terminal)

    def initial(batch, seed):
        return _pick(begins[None], uniform([batch], seed))

    def dynamics(state, action, seed):
        row = state * table.num_actions + tf.cast(action, tf.int32)
        place = 0 * row  # where all is certain, no number is drawn
        if following.shape[1] > 1:
            place = _pick(tf.gather(chances, row), uniform([state.shape[0]], seed))
        after = tf.gather(following, row, axis=0)
        after = tf.gather(after, place, batch_dims=1)
        return after, tf.gather(tf.gather(rewards, row), place, batch_dims=1), tf.gather(terminal, after)

    states, actions = (Spec((), tf.int32, 0, number - 1) for number in (table.num_states, table.num_actions))
    return Environment(name, states, actions, initial, dynamics, lambda state: state, max_steps, draw, picture, table)


def path(table, policy, state):
    """The states that a policy goes through from `state`, most probable successors only, to an end or a circle.

    Args:
        table: `Model`.
        policy: int [S], an action for each state.
        state: where to begin.
    """
    states = [int(state)]
    while not table.terminal[states[-1]]:
        after = int(np.argmax(table.transitions[states[-1], policy[states[-1]]]))
        if after in states:
            return states
        states.append(after)
    return states


def path_text(table, policy, state):
    """That path as text: "0 -> 1 -> 4", with what it earns, undiscounted."""
    states = path(table, policy, state)
    gained = sum(table.rewards[a, policy[a], b] for a, b in zip(states[:-1], states[1:]))
    end = "" if table.terminal[states[-1]] else ", and goes round from there"
    return f"{' -> '.join(map(str, states))}{end}: {len(states) - 1} steps, return {gained:g}"


def _check_probabilities(name, array):
    sums = array.sum(axis=-1)
    if not np.all(array >= 0) or not np.all(np.abs(sums - 1) <= _SUM):
        worst = sums.flat[np.argmax(np.abs(sums - 1))]
        raise ValueError(f"Probabilities of {name} must not be negative and sum to 1; received a smallest of "
                         f"{array.min():g} and a sum of {worst:g}.")


def _limits(probabilities):
    """Float32 [..., K] such that a uniform number below limit i and not below limit i - 1 means i."""
    limits = np.cumsum(probabilities, axis=-1)
    last = probabilities.shape[-1] - 1 - np.argmax(probabilities[..., ::-1] > 0, axis=-1)
    limits[np.arange(probabilities.shape[-1]) >= last[..., None]] = 2  # rounding must lead to nothing impossible
    return limits.astype(np.float32)


def _pick(limits, numbers):
    """int32 [B]: the outcome that uniform numbers [B] mean, for limits [B or 1, K]."""
    return tf.reduce_sum(tf.cast(numbers[:, None] >= limits, tf.int32), axis=1)


def _successors(table):
    """States that can follow int32 [S * A, K], their limits float32 [S * A, K], rewards float32 [S * A, K]."""
    flat = table.transitions.reshape(-1, table.num_states)
    width = int(np.max(np.count_nonzero(flat, axis=1)))
    order = np.argsort(flat == 0, axis=1, kind="stable")[:, :width]  # possible ones first, in the order of states
    rewards = np.take_along_axis(table.rewards.reshape(flat.shape), order, axis=1)
    return order.astype(np.int32), _limits(np.take_along_axis(flat, order, axis=1)), rewards.astype(np.float32)
