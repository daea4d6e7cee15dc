"""Hyper-parameters of AlphaGo Zero."""

import dataclasses

from apps.alphago.networks import HEADS, PRESETS
from apps.alphago.search.policies import FIRST_PLAYS
from apps.alphago.selfplay import POLICIES
from apps.common.config import Range, TrainingConfig, field
from apps.common.training import SupervisedConfig
from layers.checking import unknown_name

GAMES = ("go", "tic_tac_toe")
_TRIED = ("single",)  # strategies under which self-play and learning in one program have been tested


@dataclasses.dataclass(frozen=True)
class ZeroConfig(TrainingConfig):
    """Learning from self-play alone; the fields of all applications are in `TrainingConfig`."""

    game: str = field("go", "The game.", choices=GAMES)
    size: int = field(9, "Points a side of the board.", minimum=5, maximum=19)
    komi: float = field(7.0, "Points for white.")
    superko: bool = field(False, "No position may come again; otherwise simple ko.")
    margin_share: float = field(0.1, "Part of a game's value that its margin makes; 0 in the paper. Go only.",
                                minimum=0, below=0.5)
    model: str = field("zero_4x48", f"Network, blocks x filters: {', '.join(PRESETS)}; others as zero_<b>x<f>.")
    pooling_every: int = field(2, "Each so manieth block sees the whole board. 0: none, as in the paper.", minimum=0)
    hidden: int = field(64, "Units of the value head; 256 in the paper.", minimum=1)
    heads: str = field("pooled", "pooled: a logit a point by convolution, pass and value from what is pooled over the "
                                 "board; dense: the paper's.", choices=HEADS)
    liberties: bool = field(True, "The network is shown which chains have one, two or three liberties, and where the "
                                  "board ends; not so in the paper. Go only.")
    ownership: bool = field(True, "A head that learns whose each point will be. Go only.")
    score: bool = field(False, "A head that learns the margin. Go only.")

    epochs: int = field(100, "Generations: self-play, then learning. A run that has ended goes on when it is given "
                             "more.", minimum=0, volatile=True)
    time_budget: float = field(0.0, "Minutes of self-play and learning in all, over all starts; replaces --epochs. 0: "
                                    "no budget. As with --epochs a run can be given more.", minimum=0, volatile=True)
    parallel_games: int = field(64, "Games at the same time, in each process that plays.", minimum=1)
    actors: int = field(0, "Processes that play on while this one learns. 0: it plays and learns in turn.", minimum=0)
    actor_timeout: float = field(600.0, "Seconds without a move after which such a process is replaced.", above=0)
    policy: str = field("gumbel", "The search of self-play: gumbel (sequential halving) or puct, as in the paper.",
                        choices=POLICIES)
    simulations: int = field(32, "Simulations before a move that is learned from; with puct, 1600 in the paper, visits "
                                 "of the root.", minimum=2)
    fast_simulations: int = field(16, "The same before other moves (playout cap randomisation). puct only.", minimum=2)
    full_share: float = field(0.25, "Part of the moves that are learned from; 1 in the paper. puct only.", above=0,
                              maximum=1)
    noise_alpha: float = field(0.0, "Alpha of the Dirichlet noise at the root. 0: 0.03 x 361 / points. puct only.",
                               minimum=0)
    noise_share: float = field(0.25, "Part of the noise in the root's prior. puct only.", minimum=0, maximum=1)
    sampled_moves: int = field(-1, "Moves of a game that are drawn in proportion to visits; after them the most "
                                   "visited is played. -1: 30 x points / 361, at least 4. puct only.", minimum=-1)
    opening_moves: int = field(-1, "Random moves, at most, that a game of self-play begins with; 0 in the paper. -1: a "
                                   "tenth of the points.", minimum=-1)
    first_pass: int = field(-1, "Moves of a game before a search considers a pass; 0 in the paper. -1: half of the "
                                "points. Go only.", minimum=-1)
    losing_pass: float = field(-0.75, "A pass that would end a game and lose it is considered where the network's "
                                      "value is less than this; 1: always, as in the paper. Go only.", minimum=-1,
                               maximum=1)
    symmetric: bool = field(True, "A search shows the network each position under one of the eight symmetries, as in "
                                  "the paper.")
    first_play: str = field("parent", "What a move that was not tried counts as: parent, the position's value less a "
                                      "reduction, or zero, as in the paper. puct only.", choices=FIRST_PLAYS)

    window: int = field(250_000, "Positions in the replay window, at most.", minimum=1)
    first_window: int = field(20_000, "Positions in it before it grows with all that were played (Wu 2019). 0: it does "
                                      "not grow, and holds --window from the beginning.", minimum=0)
    reuse: float = field(4.0, "How often a position is learned from, on average.", above=0)
    value_lambda: float = field(0.95, "Lambda of the return that a value learns, from the searches' values of the "
                                      "moves to come; 1: the game's result alone, as in the paper.", minimum=0,
                                maximum=1)
    steps_per_generation: int = field(100, "Training steps between two updates of the player.", minimum=1)
    batch_size: int = field(256, "Positions a step, over all devices.", minimum=1)
    learning_rate: float = field(0.03, "Learning rate of SGD; 0.3 of it from 60 % of the run on, a tenth from 85 %.",
                                 above=0)
    momentum: float = field(0.9, "Nesterov momentum.", minimum=0, below=1)
    weight_decay: float = field(1e-4, "Decoupled decay of kernels, relative to the learning rate.", minimum=0)
    average: float = field(0.75, "Share of the old weights in the moving average, from generation to generation, that "
                                 "plays and is kept. 0: none.", minimum=0, below=1)
    gate: float = field(0.0, "Share of points that new weights must win against those that play, to play; 0.55 in the "
                             "paper. 0: they always play.", minimum=0, below=1)
    gate_games: int = field(0, "Games of this test, even; 400 in the paper.", minimum=0)

    rate_every: int = field(10, "Generations between two rungs of the Elo ladder. 0: no ladder.", minimum=0)
    rate_games: int = field(64, "Games of a rung against the one below, even.", minimum=2)
    rate_simulations: int = field(32, "Simulations a move in them.", minimum=1)
    deterministic: bool = field(False, "Only deterministic kernels in learning.")

    @property
    def positions_per_generation(self):
        """New positions to learn from that a generation asks for, so that each is seen `reuse` times."""
        return self.steps_per_generation * self.batch_size / self.reuse

    def validate(self):
        super().validate()
        if not self.workdir and not self.explain:
            raise ValueError("--workdir is missing: expected a folder for this run, such as --workdir=runs/zero.")
        if self.distribution not in _TRIED:
            raise unknown_name("value of --distribution for self-play and learning in one program:", self.distribution,
                               _TRIED)
        if self.rate_games % 2 or self.gate_games % 2:
            raise ValueError("Each opening is played twice: --rate_games and --gate_games must be even; received "
                             f"{self.rate_games} and {self.gate_games}.")
        if bool(self.gate) != bool(self.gate_games):
            raise ValueError("--gate and --gate_games go together; received "
                             f"--gate={self.gate:g} --gate_games={self.gate_games}.")
        if self.policy == "puct" and self.fast_simulations > self.simulations:
            raise ValueError("--fast_simulations is at most --simulations; received "
                             f"{self.fast_simulations} and {self.simulations}.")


@dataclasses.dataclass(frozen=True)
class GamesConfig(SupervisedConfig):
    """Learning from games that there are; the fields of all applications with given data are in `SupervisedConfig`."""

    data: str = field("sgf", "sgf (--data_dir: a folder or .zip of records) or replay (--data_dir: the workdir of a "
                             "run of train_zero, whose network's structure is taken over).")
    size: int = field(0, "Points a side. 0: 9, or the run's.", minimum=0, maximum=19)
    window: int = field(500_000, "Positions of a replay at most, the newest ones.", minimum=1)
    validation_fraction: float = field(0.05, "Part set aside to choose the best epoch, where the data have no such "
                                             "part. 0: none.", minimum=0, below=0.5)
    test_fraction: float = field(0.1, "Part set aside for the test where the data have no such part.", above=0,
                                 below=0.5)
    model: str = field("", f"Network, blocks x filters: {', '.join(PRESETS)}; others as zero_<b>x<f>. Empty: "
                           "zero_4x48, or the run's.")
    pooling_every: int = field(-1, "Each so manieth block sees the whole board; 0: none. -1: 2, or the run's.",
                               minimum=-1)
    hidden: int = field(0, "Units of the value head; 256 in the paper. 0: 64, or the run's.", minimum=0)
    heads: str = field("", "Heads of policy and value: pooled or dense. Empty: pooled, or the run's.",
                       choices=("", *HEADS))
    value_weight: float = field(-1.0, "Weight of the value's loss. -1: of records 0.01, as in the paper, so that the "
                                      "value does not learn games by heart; of a replay 1.", maximum=100)
    batch_size: int = field(256, "Positions a step, over all devices.", minimum=1)
    learning_rate: float = field(0.05, "Peak learning rate.", above=0, search=Range(1e-3, 0.2, log=True))
    weight_decay: float = field(1e-4, "Decoupled decay of kernels, relative to the learning rate (sgd, adamw).",
                                minimum=0, search=Range(1e-5, 1e-2, log=True))
    num_scored: int = field(2000, "Test positions on which each exported file is scored.", minimum=1)

    def validate(self):
        super().validate()
        if self.value_weight < 0 and self.value_weight != -1:
            raise ValueError(f"--value_weight must be at least 0, or -1; received {self.value_weight:g}.")
        if self.size and self.size < 5:
            raise ValueError(f"--size must be 5 to 19, or 0; received {self.size}.")

    @property
    def weight_of_value(self):
        """`--value_weight`, with -1 decided."""
        if self.value_weight >= 0:
            return self.value_weight
        return 0.01 if self.data == "sgf" else 1.0
