"""The gambler's problem: Sutton & Barto 2018, example 4.3."""

import numpy as np

from apps.reinforcement.environments import finite


def gambler(goal=100, heads=0.4, *, max_steps=1000):
    """Bet on a coin until the goal is reached, reward 1, or all is lost.

    The state is the capital, 0 to `goal`. Action a stakes a + 1; more than the gambler has, or than is missing to the
    goal, is against the rules and loses all. To stake nothing, which the book allows, would change no value and never
    end. An episode begins with any capital.

    Args:
        goal: at least 2.
        heads: probability to win a stake.

    Raises:
        ValueError: no such goal or probability.
    """
    if goal < 2:
        raise ValueError(f"The gambler's goal must be at least 2; received {goal}.")
    if not 0 <= heads <= 1:
        raise ValueError(f"The probability of heads must be 0 to 1; received {heads}.")
    num_states, num_actions = goal + 1, goal // 2
    transitions = np.zeros([num_states, num_actions, num_states])
    rewards = np.zeros_like(transitions)
    for capital in range(1, goal):
        for action in range(num_actions):
            stake = action + 1
            if stake > min(capital, goal - capital):
                transitions[capital, action, 0] = 1
                continue
            transitions[capital, action, capital + stake] = heads
            transitions[capital, action, capital - stake] = 1 - heads
    rewards[1:goal, :, goal] = 1
    transitions[0, :, 0] = transitions[goal, :, goal] = 1
    terminal = np.isin(np.arange(num_states), (0, goal))
    table = finite.model(transitions, rewards, terminal, ~terminal / (goal - 1), 1.0)

    def draw(state):
        filled = round(50 * int(state) / goal)
        return f"{int(state):4d} of {goal} |{'$' * filled}{' ' * (50 - filled)}|"

    return finite.environment("gambler", table, max_steps=max_steps, draw=draw)
