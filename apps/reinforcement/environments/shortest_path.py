"""The shortest path between nine rooms, given by a 9x9 matrix of rewards."""

import numpy as np

from apps.reinforcement.environments import finite

NO_WAY = -1.0
# Row: where one is; column: where one goes, which is the action. The doors:
#     0-1-2
#       | |
#     3 4 5
#     | |
#     6-7-8
REWARDS = np.array([
    [-1, 0, -1, -1, -1, -1, -1, -1, -1],
    [0, -1, 0, -1, 0, -1, -1, -1, -1],
    [-1, 0, -1, -1, -1, 0, -1, -1, -1],
    [-1, -1, -1, -1, -1, -1, 0, -1, -1],
    [-1, 0, -1, -1, -1, -1, -1, 0, -1],
    [-1, -1, 0, -1, -1, -1, -1, -1, -1],
    [-1, -1, -1, 0, -1, -1, -1, 0, -1],
    [-1, -1, -1, -1, 0, -1, 0, -1, 100],
    [-1, -1, -1, -1, -1, -1, -1, 0, -1]], np.float64)
GOAL = 8


def shortest_path(rewards=REWARDS, goal=GOAL, *, discount=0.9, max_steps=100):
    """Go from room to room until the goal is reached; an episode begins in any other room.

    The action is the number of the room to go to. Where the matrix says `NO_WAY`, one stays where one is and the
    reward is -1; elsewhere the entry is the reward. With a reward at the goal only and a discount below 1, the shortest
    path is the best.

    Args:
        rewards: [S, S].
        goal: number of the room where episodes end.

    Raises:
        ValueError: the matrix is not square, or the goal is no room.
    """
    rewards = np.asarray(rewards, np.float64)
    if rewards.ndim != 2 or rewards.shape[0] != rewards.shape[1]:
        raise ValueError(f"The matrix of rewards must be square; received the shape {list(rewards.shape)}.")
    number = rewards.shape[0]
    if not 0 <= goal < number:
        raise ValueError(f"The goal must be a state from 0 to {number - 1}; received {goal}.")
    states = np.arange(number)
    after = np.where(rewards == NO_WAY, states[:, None], states[None])
    transitions = (after[:, :, None] == states).astype(np.float64)
    terminal = states == goal
    table = finite.model(transitions, rewards, terminal, ~terminal / (number - 1), discount)
    draw = _plan if rewards.shape == REWARDS.shape and np.array_equal(rewards != NO_WAY, REWARDS != NO_WAY) else None
    return finite.environment("shortest_path", table, max_steps=max_steps, draw=draw)


def _plan(state):
    """The nine rooms as text: who is where in brackets."""
    rooms = [f"[{s}]" if s == state else f" {s} " for s in range(9)]
    lines = []
    for row in range(3):
        line = rooms[3 * row]
        for column in (1, 2):
            room = 3 * row + column
            line += ("-" if REWARDS[room - 1, room] != NO_WAY else " ") + rooms[room]
        lines.append(line)
        if row < 2:
            lines.append(" ".join(" | " if REWARDS[3 * row + c, 3 * row + c + 3] != NO_WAY else "   "
                                  for c in range(3)).rstrip())
    return "\n".join(lines)
