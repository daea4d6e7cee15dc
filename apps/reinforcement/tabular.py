"""Learning a table of action values from episodes: Monte-Carlo, SARSA, expected SARSA, Q-learning, and their traces.

Sutton & Barto 2018, chapters 5 to 7 and 12. Several learners, each with its own table, episodes and random numbers,
learn at once; all episodes run within one program. N learners, S states, A actions, E episodes, T steps.
"""

import dataclasses
import typing

import numpy as np
import tensorflow as tf

from apps.reinforcement import exploration, monte_carlo, temporal_difference
from layers.checking import unknown_name

ALGORITHMS = ("monte_carlo", "sarsa", "expected_sarsa", "q_learning")
VISITS = ("first", "every")
TRACES = ("accumulating", "replacing")


@dataclasses.dataclass(frozen=True)
class Options:
    """What is learned and how.

    Attributes:
        algorithm: of `ALGORITHMS`. "monte_carlo": on-policy, with the mean of returns (section 5.4); "sarsa" (6.4);
            "expected_sarsa" (6.6, on-policy); "q_learning" (Watkins 1989; 6.5).
        discount: of the return, 0 to 1.
        step_size, step_size_power: the n-th change of an entry takes the share step_size / n^step_size_power of the
            error: power 0 is a constant, 1 and power 1 the mean of the targets, powers above 0.5 up to 1 converge.
        exploration: of `exploration.EXPLORATIONS`.
        schedule, start, end, steps: `exploration.schedule` of its amount, over the steps that a learner has taken.
        visits: "first" or "every" visit of a state and action counts. monte_carlo only.
        trace_decay: lambda. 0: only the last state and action learn. Above: SARSA(lambda), and Watkins' Q(lambda),
            whose traces end where the action is not a best one (12.10). Not for monte_carlo, which is lambda = 1.
        traces: "accumulating" or "replacing".
        initial_value: of every entry at the beginning; above what can be reached, it makes the learner explore.
        num_learners: N.
    """

    algorithm: str = "q_learning"
    discount: float = 1.0
    step_size: float = 0.1
    step_size_power: float = 0.0
    exploration: str = "epsilon_greedy"
    schedule: str = "constant"
    start: float = 0.1
    end: float = 0.1
    steps: int = 1
    visits: str = "first"
    trace_decay: float = 0.0
    traces: str = "accumulating"
    initial_value: float = 0.0
    num_learners: int = 1

    def __post_init__(self):
        for kind, name, known in (("algorithm", self.algorithm, ALGORITHMS), ("kind of visits", self.visits, VISITS),
                                  ("exploration", self.exploration, exploration.EXPLORATIONS),
                                  ("kind of traces", self.traces, TRACES)):
            if name not in known:
                raise unknown_name(kind, name, known)
        for name, low in (("discount", 0), ("trace_decay", 0), ("step_size_power", 0)):
            if not low <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be 0 to 1; received {getattr(self, name)}.")
        if not 0 < self.step_size <= 1:
            raise ValueError(f"step_size must be above 0 and at most 1; received {self.step_size}.")
        if self.trace_decay and self.algorithm == "monte_carlo":
            raise ValueError(f"monte_carlo has no traces; received trace_decay={self.trace_decay:g}. Take sarsa, or 0.")
        if self.exploration == "boltzmann" and min(self.start, self.end) <= 0:
            raise ValueError("The temperature of boltzmann must stay above 0; received "
                             f"{self.start:g} to {self.end:g}.")
        exploration.schedule(self.schedule, self.start, self.end, self.steps)

    def chances(self, values, counts, steps):
        """Probabilities [N, A] of the actions, of a row of the table [N, A] and of counts [N, A], after steps [N]."""
        amount = exploration.schedule(self.schedule, self.start, self.end, self.steps)(steps)
        return exploration.probabilities(self.exploration, values, counts, amount)

    def share(self, counts):
        """Share of the error that the n-th change of an entry takes, float64 [N], of n, int32 [N]."""
        if not self.step_size_power:
            return tf.fill(counts.shape, tf.constant(self.step_size, tf.float64))
        return self.step_size * tf.cast(tf.maximum(counts, 1), tf.float64) ** -self.step_size_power


class State(typing.NamedTuple):
    """All that a learner has to know to go on exactly; tensors, or arrays after loading."""

    values: tf.Tensor  # float64 [N, S, A]
    counts: tf.Tensor  # int32 [N, S, A], changes of each entry
    steps: tf.Tensor  # int32 [N], actions taken
    episode: tf.Tensor  # int32, episodes played
    seed: tf.Tensor  # int32 [2]


class Result(typing.NamedTuple):
    """What `learn` gives back; arrays of NumPy."""

    values: np.ndarray  # float64 [N, S, A]: Q
    returns: np.ndarray  # float64 [E, N]: undiscounted, of every episode
    lengths: np.ndarray  # int32 [E, N]: its steps
    state: State


def learn(environment, options, seed=0, *, num_episodes, state=None):
    """Learns for a number of episodes. `program` saves the compilation where it is called again and again.

    Args:
        environment: `Environment` with numbered states and actions, and a limit of steps.
        options: `Options`.
        seed: of everything random.
        num_episodes: how many, each learner.
        state: of a `Result`, to go on from; then `seed` is not used, and the tables are the same, bit for bit, as
            if there had been no interruption.

    Returns:
        `Result`.

    Raises:
        ValueError: the environment's states or actions are not numbered, or it has no limit of steps.
    """
    if state is None:
        state = begin(environment, options, seed)
    state, returns, lengths = program(environment, options, num_episodes)(State(*map(tf.convert_to_tensor, state)))
    return Result(state.values.numpy(), returns.numpy(), lengths.numpy(), State(*(part.numpy() for part in state)))


def begin(environment, options, seed):
    """The `State` before the first episode."""
    check(environment)
    shape = [options.num_learners, environment.observation_spec.num_values, environment.action_spec.num_values]
    return State(tf.fill(shape, tf.constant(options.initial_value, tf.float64)), tf.zeros(shape, tf.int32),
                 tf.zeros(shape[:1], tf.int32), tf.constant(0), tf.constant([seed, 0], tf.int32))


def check(environment):
    """Raises ValueError when an environment is none that a table can be learned of."""
    for word, spec in (("observations", environment.observation_spec), ("actions", environment.action_spec)):
        if not spec.is_discrete or spec.shape != ():
            raise ValueError(f"A table needs numbered {word}; those of {environment.name} are {spec.dtype.name} of the "
                             f"shape {list(spec.shape)}. Take an algorithm with a network.")
    if environment.max_steps is None:
        raise ValueError(f"{environment.name} has no limit of steps, so that an episode need not end. Give it one with "
                         "environment._replace(max_steps=...).")


def program(environment, options, num_episodes):
    """Compiles `num_episodes` episodes: State -> (State, returns [E, N] float64, lengths [E, N] int32)."""
    check(environment)
    play = monte_carlo if options.algorithm == "monte_carlo" else temporal_difference
    episode = play.episode(environment, options)

    @tf.function(jit_compile=True)
    def episodes(state):
        rows = [tf.TensorArray(dtype, num_episodes, element_shape=state.steps.shape)
                for dtype in (tf.float64, tf.int32)]

        def one(number, state, returns, lengths):
            after, gained = episode(state)
            return (number + 1, after, returns.write(number, gained),
                    lengths.write(number, after.steps - state.steps))

        _, state, returns, lengths = tf.while_loop(lambda number, *_: number < num_episodes, one, (0, state, *rows))
        return state, returns.stack(), lengths.stack()

    return episodes


def greedy(values):
    """The best action of each state [..., S], int32, of action values [..., S, A]; the first where several are best."""
    return tf.argmax(values, axis=-1, output_type=tf.int32)
