"""Grids: any plan, certain or slippery ground, and the cliff walk."""

import numpy as np

from apps.reinforcement.environments import drawing, finite

ACTIONS = ("up", "right", "down", "left")
_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
_SIGNS = "SG.#CH"
_COLORS = {"S": drawing.SKY, "G": drawing.GREEN, ".": "white", "#": drawing.INK, "C": drawing.RED, "H": drawing.STEEL}
_EXAMPLE = """
S.....
.##.#.
....#.
.#H...
...#.G"""
_CLIFF = """
............
............
............
SCCCCCCCCCCG"""


def grid_world(plan=_EXAMPLE, *, slip=0.2, step_reward=-0.04, goal_reward=1.0, hole_reward=-1.0, fall_reward=-1.0,
               discount=0.99, max_steps=200, name="grid_world"):
    """Walk on a grid by one of `ACTIONS`; walls and the edge leave one where one is.

    The state is row x columns + column.

    Args:
        plan: lines of signs: S start, G goal and H hole, which end the episode, . ground, # wall, C cliff: one falls
            and begins again at the start.
        slip: probability that one goes to the left or right of the way chosen, each with half of it; 2/3 is the ice
            of gymnasium's FrozenLake.
        step_reward, goal_reward, hole_reward, fall_reward: of a step to ground, the goal, a hole, a cliff.
        discount: of the problem.
        max_steps: limit of an episode.
        name: of the environment.

    Raises:
        ValueError: the plan is not a rectangle of these signs with one start and a goal.
    """
    signs = parse(plan)
    rows, columns = signs.shape
    start = int(np.flatnonzero(signs == "S")[0])
    transitions = np.zeros([rows * columns, 4, rows * columns])
    rewards = np.zeros_like(transitions)
    gains = {"G": goal_reward, "H": hole_reward, "C": fall_reward}
    for state in range(rows * columns):
        for action in range(4):
            for turn, chance in ((0, 1 - slip), (1, slip / 2), (3, slip / 2)):
                place, sign = _walk(signs, state, _MOVES[(action + turn) % 4])
                after = start if sign == "C" else place
                # A fall to the start and a step to it must not be mixed up: the mean of both is as good.
                reward = gains.get(sign, step_reward)
                before = transitions[state, action, after]
                transitions[state, action, after] += chance
                if chance:
                    rewards[state, action, after] = (before * rewards[state, action, after] + chance * reward) / (
                        before + chance)
    flat = signs.ravel()
    table = finite.model(transitions, rewards, np.isin(flat, ("G", "H")), flat == "S", discount)
    draw, picture = drawing.painters(lambda canvas, state: _scene(canvas, signs, int(state)), (0, columns, 0, rows),
                                     width=40 * columns, columns=2 * columns)
    return finite.environment(name, table, max_steps=max_steps, draw=draw, picture=picture)


def cliff_walk(max_steps=10_000):
    """Sutton & Barto 2018, example 6.6: -1 a step, -100 for a fall, after which one goes on from the start."""
    return grid_world(_CLIFF, slip=0.0, step_reward=-1.0, goal_reward=-1.0, fall_reward=-100.0, discount=1.0,
                      max_steps=max_steps, name="cliff_walk")


def parse(plan):
    """The signs of a plan, [rows, columns]; raises ValueError when they make no grid."""
    lines = plan.strip("\n").splitlines()
    if not lines or len({len(line) for line in lines}) != 1:
        raise ValueError(f"A plan must have lines of one length; received lengths {[len(line) for line in lines]}.")
    signs = np.array([list(line) for line in lines])
    unknown = sorted(set(signs.ravel()) - set(_SIGNS))
    if unknown:
        raise ValueError(f"A plan is made of the signs {_SIGNS}; received {str(unknown[0])!r}.")
    if np.sum(signs == "S") != 1 or not np.any(signs == "G"):
        raise ValueError(f"A plan has one start S and at least one goal G; received {np.sum(signs == 'S')} and "
                         f"{np.sum(signs == 'G')}.")
    return signs


def show_policy(environment, plan, policy):
    """A plan with an arrow on each piece of ground, as text.

    Args:
        environment: `Environment` of the grid.
        plan: as given to `grid_world`.
        policy: int [S].
    """
    signs, arrows = parse(plan), "^>v<"
    terminal = environment.model.terminal.reshape(signs.shape)
    moves = np.asarray(policy).reshape(signs.shape)
    return "\n".join(" ".join(arrows[move] if sign in "S." and not end else sign for sign, move, end in zip(*row))
                     for row in zip(signs, moves, terminal))


def _walk(signs, state, move):
    """(state, sign) that a move leads to; a cliff's own place."""
    row, column = divmod(state, signs.shape[1])
    target = row + move[0], column + move[1]
    inside = 0 <= target[0] < signs.shape[0] and 0 <= target[1] < signs.shape[1]
    if not inside or signs[target] == "#":
        target = row, column
    return target[0] * signs.shape[1] + target[1], signs[target]


def _scene(canvas, signs, state):
    rows, columns = signs.shape
    if isinstance(canvas, drawing.Text):
        for place, sign in enumerate(signs.ravel()):
            canvas.disc((place % columns, rows - place // columns - 0.01), 0, "@" if place == state else sign)
        return
    canvas.polygon(_square(0, 0, columns, rows), " ", "#bbbbbb")
    for place, sign in enumerate(signs.ravel()):
        row, column = divmod(place, columns)
        canvas.polygon(_square(column + 0.02, rows - row - 0.98, 0.96, 0.96), sign, _COLORS[sign])
    canvas.disc((state % columns + 0.5, rows - state // columns - 0.5), 0.3, "@", drawing.AMBER)


def _square(left, bottom, width, height):
    return [(left, bottom), (left + width, bottom), (left + width, bottom + height), (left, bottom + height)]
