"""Hyper-parameters of reinforcement learning. -1, or an empty text, takes the tuned value of `defaults.py`; in
`DistillConfig`, the teacher's."""

import dataclasses

from apps.common.config import Options, Range, TrainingConfig, field
from apps.common.optimization import OPTIMIZERS
from apps.common.training import SupervisedConfig
from apps.reinforcement import naming
from layers.checking import unknown_name

_TRIED = ("single", "sync", "async")  # strategies under which a learner has been tested


@dataclasses.dataclass(frozen=True)
class Config(TrainingConfig):
    """Any algorithm on any environment; the fields of all applications are in `TrainingConfig`."""

    env: str = field("cart_pole", "The environment: a name of the README's table, or gym:Name for one of gymnasium.")
    algorithm: str = field("ppo", "How it is learned.", choices=naming.ALGORITHMS)
    epochs: int = field(20, "Parts of the run; after each the greedy policy is tried and everything is kept.",
                        minimum=0)
    steps_per_epoch: int = field(-1, "Steps of the environments in an epoch, over all of them; of a table, episodes of "
                                     "each learner; of dynamic programming, sweeps; of a bandit, rounds.", minimum=-1)
    stop_return: str = field("", "Mean return of the greedy policy at which the run may end. Empty: never.")
    eval_episodes: int = field(-1, "Episodes in which the greedy policy is tried.", minimum=-1)
    eval_steps: int = field(1000, "Steps after which such an episode is cut where the environment has no limit.",
                            minimum=1)
    parallel_environments: int = field(-1, "Environments that are stepped together.", minimum=-1)
    rollout: int = field(-1, "Steps of each environment between two updates. reinforce with the discounted objective "
                             "plays whole episodes instead.", minimum=-1)
    discount: float = field(-1.0, "Gamma.", minimum=-1, maximum=1)

    learning_rate: float = field(-1.0, "Learning rate of Adam.", minimum=-1, search=Range(1e-4, 1e-2, log=True))
    final_rate: float = field(-1.0, "Share of the learning rate at the end of the run; it falls in equal steps. 1: "
                                    "constant.", minimum=-1, maximum=1)
    batch_size: int = field(-1, "Rows of a minibatch; for a2c and reinforce, always all.", minimum=-1,
                            search=Options((64, 128, 256)))
    gradient_clip: float = field(-1.0, "Largest global norm of the gradient. 0: not clipped.", minimum=-1)
    units: str = field("", "Units of the hidden layers, comma-separated.")
    activation: str = field("", "Of the hidden layers.", choices=("", *naming.ACTIVATIONS))
    deviation: float = field(1.0, "Standard deviation of a Gaussian policy at the beginning, in half ranges of the "
                                  "action.", above=0)

    advantage_decay: float = field(-1.0, "Lambda of the advantages (a2c, ppo).", minimum=-1, maximum=1,
                                   search=Range(0.8, 1.0))
    entropy_weight: float = field(-1.0, "Weight of the policy's entropy (reinforce, a2c, ppo).", minimum=-1,
                                  search=Range(1e-5, 0.03, log=True))
    value_weight: float = field(-1.0, "Weight of half the squared error of the value (reinforce, a2c, ppo).",
                                minimum=-1)
    normalize_advantages: bool = field(True, "Advantages with mean 0 and deviation 1 in each update.")
    clip: float = field(0.2, "Epsilon of PPO's ratio.", above=0, search=Range(0.1, 0.3))
    value_clip: float = field(0.0, "How far PPO's value may move from the old one. 0: anywhere.", minimum=0)
    passes: int = field(-1, "Passes of PPO over what was collected.", minimum=-1, search=Options((4, 10, 20)))
    baseline: bool = field(True, "A learned baseline for reinforce.")
    objective: str = field("discounted", "What reinforce climbs: the discounted return of episodes, or the average "
                                         "reward of a step.", choices=naming.OBJECTIVES)
    exact_discount: bool = field(False, "Step t of an episode counts gamma^t, as the discounted objective says and "
                                        "hardly anyone does (reinforce).")

    double: bool = field(False, "Double DQN.")
    dueling: bool = field(False, "Dueling DQN.")
    n_step: int = field(1, "Steps of DQN's returns.", minimum=1, search=Options((1, 3, 5)))
    prioritized: bool = field(False, "Prioritised replay.")
    priority_exponent: float = field(0.6, "Alpha of the priorities.", above=0, maximum=1)
    importance_exponent: float = field(0.4, "Beta of the importance weights at the beginning; 1 at the end.", minimum=0,
                                       maximum=1)
    replay_capacity: int = field(-1, "Steps that the replay buffer keeps, over all environments.", minimum=-1)
    warmup_steps: int = field(-1, "Steps of the environments before DQN learns.", minimum=-1)
    updates: int = field(-1, "Steps of learning after each rollout of DQN.", minimum=-1)
    target_period: int = field(-1, "Steps of learning between two updates of the target network.", minimum=-1)
    target_share: float = field(-1.0, "Part of the network that such an update takes over; 1 in the paper.", minimum=-1,
                                maximum=1)

    exploration: str = field("", "How a table is explored; dqn is epsilon_greedy.",
                             choices=("", *naming.EXPLORATIONS))
    exploration_start: float = field(-1.0, "Epsilon, temperature or width of the confidence at the beginning.",
                                     minimum=-1)
    exploration_end: float = field(-1.0, "The same from --exploration_steps on.", minimum=-1)
    exploration_steps: int = field(-1, "Steps over which it changes: of all environments together (dqn), of each "
                                       "learner (tables).", minimum=-1)
    confidence_width: float = field(-1.0, "Of ucb, linucb and linear_thompson. -1: the square root of 2.", minimum=-1)
    step_size: float = field(-1.0, "Share of the error that an entry of a table takes.", minimum=-1, maximum=1,
                             search=Range(0.01, 1.0, log=True))
    step_size_power: float = field(-1.0, "Its fall: the n-th change of an entry takes step_size / n^power.", minimum=-1,
                                   maximum=1)
    trace_decay: float = field(0.0, "Lambda of the traces of a table. 0: none.", minimum=0, maximum=1)
    traces: str = field("accumulating", "Kind of traces.", choices=naming.TRACES)
    visits: str = field("first", "Which visits Monte-Carlo counts.", choices=naming.VISITS)
    initial_value: float = field(0.0, "Of every entry of a table.")
    tolerance: float = field(1e-12, "Largest change of a value at which dynamic programming ends.", above=0)

    export: str = field("saved_model,float32,float16,dynamic,int8", "Comma-separated formats to export, or none.")
    num_representative: int = field(1000, "Observations that calibrate int8 and on which actions are compared.",
                                    minimum=1)
    jit_compile: bool = field(True, "Compile with XLA: collecting and, under --distribution=single, learning in the "
                                    "same program.")

    def validate(self):
        super().validate()
        if not self.workdir and not self.explain:
            raise ValueError("--workdir is missing: expected a folder for this run, such as --workdir=runs/cart_pole.")
        if self.distribution not in _TRIED:
            raise unknown_name("value of --distribution for an agent that collects its own data:", self.distribution,
                               _TRIED)
        if self.distribution != "single" and self.algorithm not in naming.DEEP:
            raise ValueError(f"--distribution={self.distribution} spreads the training of a network, and "
                             f"--algorithm={self.algorithm} has none. Use --distribution=single.")
        if self.stop_return:
            _number("stop_return", self.stop_return)
        check_units(self.units)

    @property
    def wanted_return(self):
        """--stop_return as a number, or None."""
        return _number("stop_return", self.stop_return) if self.stop_return else None


@dataclasses.dataclass(frozen=True)
class DistillConfig(SupervisedConfig):
    """Imitation of a trained policy; the fields of all applications with given data are in `SupervisedConfig`."""

    teacher: str = field("", "The policy that is imitated: the workdir of a run of train, or a .keras file.")
    env: str = field("", "The environment. Empty: the teacher's.")
    units: str = field("", "Units of the student's hidden layers, comma-separated. Empty: it begins as the teacher.")
    activation: str = field("tanh", "Of these layers.", choices=naming.ACTIVATIONS)
    steps: int = field(50_000, "Steps of the teacher's that are learned from.", minimum=1)
    random_share: float = field(0.1, "Part of them at which a random action is taken instead of the teacher's.",
                                minimum=0, maximum=1)
    temperature: float = field(-1.0, "T: probabilities to learn are softmax(outputs / T). -1: 1, and 0.01 of a teacher "
                                     "that values actions (Rusu et al. 2016).", minimum=-1)
    validation_fraction: float = field(0.1, "Part of the environments set aside to choose the best epoch. 0: none.",
                                       minimum=0, below=0.5)
    test_fraction: float = field(0.1, "Part set aside for the test.", above=0, below=0.5)
    eval_episodes: int = field(100, "Episodes in which policies and files are tried.", minimum=1)
    eval_steps: int = field(1000, "Steps after which such an episode is cut where the environment has no limit.",
                            minimum=1)
    epochs: int = field(-1, "Passes over what was seen. -1: 20 for a new network, 0 for the teacher's own.", minimum=-1)
    batch_size: int = field(256, "Observations a step, over all devices.", minimum=1, search=Options((64, 256, 1024)))
    optimizer: str = field("adam", "sgd is with Nesterov momentum.", choices=OPTIMIZERS)
    learning_rate: float = field(3e-3, "Peak learning rate.", above=0, search=Range(1e-4, 1e-2, log=True))
    compression_learning_rate: float = field(1e-3, "Peak learning rate of the phases of compression.", above=0)
    export: str = field("saved_model,float32,float16,dynamic,int8", "Comma-separated formats to export, or none.")
    num_representative: int = field(1000, "Observations that calibrate int8.", minimum=1)

    def validate(self):
        super().validate()
        if not self.temperature > 0 and self.temperature != -1:
            raise ValueError(f"--temperature must be above 0, or -1; received {self.temperature:g}.")
        check_units(self.units)


def check_units(text):
    """Raises ValueError unless a text is empty or whole numbers above 0, comma-separated."""
    if text and not all(part.strip().isdigit() and int(part) for part in text.split(",")):
        raise ValueError(f"--units must be whole numbers above 0, comma-separated, such as 64,64; received {text!r}.")


def _number(name, text):
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--{name} must be a number; received {text!r}.") from None
