"""The player that searches with a network; its tree goes on from move to move."""

import dataclasses
import functools
import time

import numpy as np
import tensorflow as tf

from apps.alphago import games, networks
from apps.alphago.go import rules as go
from apps.alphago.players import RESIGN, Analysis, Candidate, Choice
from apps.alphago.search import policies, simulate
from apps.alphago.search import tree as trees
from layers.checking import unknown_name

_LOOK = 32  # simulations between two looks at whether a move is decided
_LONGEST_LINE = 12
_LEAST = {"simulations": 1, "leaves": 1, "capacity": 0, "sampled_moves": 0, "resign_below": 0, "first_pass": 0,
          "exploration": 0}
_SYMMETRIES = (0, 1, 2, 4, 8)


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """How a player searches.

    Attributes:
        simulations: before a move; what the search before has found out comes on top. Fewer where no other move could
            become the most visited one.
        leaves: positions that go through the network together.
        capacity: nodes of the tree; a search ends when it is full. 0: four times the simulations, at least 4096.
        sampled_moves: so many moves of a game are drawn in proportion to visits; after them the most visited is played.
        resign_below: win rate under which the player gives up; 0: never.
        first_play, exploration: as of `policies.Puct`.
        symmetries: of the board, under so many of which the network sees a position: 1, 2, 4 or 8, drawn by its stones,
            and the mean of what it says counts; 0: as the position stands.
        margin_share, first_pass, losing_pass: as of `games.go_game`, as the network has learned it.
        seed: of the drawn moves.
    """

    simulations: int = 400
    leaves: int = 8
    capacity: int = 0
    sampled_moves: int = 0
    resign_below: float = 0.0
    first_play: str = "parent"
    exploration: float = 1.25
    symmetries: int = 1
    margin_share: float = 0.1
    first_pass: int = 0
    losing_pass: float = 1.0
    seed: int = 0

    def __post_init__(self):
        for name, least in _LEAST.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} of a search must be at least {least}; received {getattr(self, name)}.")
        if not 0 <= self.margin_share < 0.5 or not -1 <= self.losing_pass <= 1:
            raise ValueError("margin_share of a search must be from 0 to below 0.5, losing_pass from -1 to 1; received "
                             f"{self.margin_share} and {self.losing_pass}.")
        if self.symmetries not in _SYMMETRIES:
            raise ValueError(f"symmetries of a search must be one of {_SYMMETRIES}; received {self.symmetries}.")
        if self.first_play not in policies.FIRST_PLAYS:
            raise unknown_name("first_play of a search", self.first_play, policies.FIRST_PLAYS)

    @property
    def num_nodes(self):
        """Nodes of the tree."""
        return (self.capacity or max(4096, 4 * self.simulations)) + self.leaves

    @property
    def game(self):
        """The arguments of `games.go_game`, {name: value}."""
        return {name: getattr(self, name) for name in ("margin_share", "first_pass", "losing_pass")}


DEFAULTS = SearchSettings()


class SearchPlayer:
    """Chooses moves by Monte-Carlo tree search.

    Args:
        network: `networks.Evaluator`, or a function of planes [K, N, N, C] in NumPy, such as a file for phones
            (`networks.lite_network`), to (logits [K, A], value [K]); its attribute `planes` is C.
        size: points a side of the boards that the network knows.
        settings: `SearchSettings`.
        name: of the player.
    """

    def __init__(self, network, size, settings=DEFAULTS, *, name="usagi"):
        self.name, self._network, self._size, self._settings = name, network, size, settings
        self._noise, self._programs, self._tree = np.random.default_rng(settings.seed), None, None

    @property
    def sizes(self):
        """The board sizes that the player can play."""
        return (self._size,)

    def begin(self, rules):
        """A new game: nothing is known of it. The first one under its rules waits for the compiler.

        Raises:
            ValueError: the network is for another size.
        """
        if rules.size != self._size:
            raise ValueError(f"{self.name} plays on boards of {self._size}; received a board of {rules.size}.")
        settings = self._settings
        self._programs = programs(rules, self._network, leaves=settings.leaves, capacity=settings.num_nodes,
                                  symmetries=settings.symmetries, first_play=settings.first_play,
                                  exploration=settings.exploration, **settings.game)
        self._tree = None

    @property
    def kind(self):
        """Players of the same kind can `choose_together`; None before a game has begun, or where the network cannot."""
        if self._programs is None or not isinstance(self._network, networks.Evaluator):
            return None
        return self._programs, dataclasses.replace(self._settings, seed=0)

    def choose(self, board, seconds=None):
        """`Choice` after a search of as many simulations as the settings say, or of so many seconds."""
        began = time.monotonic()
        self._turn_to(board)
        if seconds is not None:
            self._search(until=began + seconds)
        else:
            self._search(is_decided=lambda left: self._is_decided(board, self._root_visits(), left))
        return self._choice(board)

    @staticmethod
    def choose_together(players, boards):
        """`Choice`s of players of one `kind`, a board each, without a limit of time.

        Their trees grow in one program, whose network sees leaves of all of them at once; each makes the simulations
        that it makes in `choose`. The first time that so many think together (rounded up to a power of two) waits for
        the compiler.
        """
        for player, board in zip(players, boards):
            player._turn_to(board)
        searching = [(player, board) for player, board in zip(players, boards) if not bool(player._tree.over[0, 0])]
        if searching:
            _search_together(*zip(*searching))
        return [player._choice(board) for player, board in zip(players, boards)]

    def _choice(self, board):
        """What to play after the search."""
        if bool(self._tree.over[0, 0]):
            return Choice(board.rules.num_points)
        visits = self._root_visits()
        if self._draws(board):
            move = int(self._noise.choice(len(visits), p=visits / visits.sum()))
        else:
            move = int(np.argmax(visits))
        analysis = self._analysis()
        if analysis.win_rate < self._settings.resign_below:
            return Choice(RESIGN, analysis)
        return Choice(move, analysis)

    def analyse(self, board, interval):
        """An `Analysis` about every `interval` seconds while the tree has room; then the last one again and again."""
        self._turn_to(board)
        while True:
            began = time.monotonic()
            self._search(until=began + interval)
            yield self._analysis()
            time.sleep(max(0.0, began + interval - time.monotonic()))

    def _turn_to(self, board):
        """Makes the tree that of the board: what is known of it, or a new one."""
        if self._programs is None or self._programs.rules != board.rules:
            self.begin(board.rules)
        tree = self._known_tree(board)
        self._tree = self._programs.plant(board.state) if tree is None else tree
        self._known = _setup(board), list(board.moves)

    def _known_tree(self, board):
        """The part of the tree that lies below the moves since the last search; None where there is none."""
        if self._tree is None:
            return None
        tree, (setup, moves) = self._tree, self._known
        if setup != _setup(board) or moves != board.moves[:len(moves)]:
            return None
        for colour, move in board.moves[len(moves):]:
            if _turn(tree) != colour:
                return None
            tree, there = self._programs.replant(tree, tf.constant([move]))
            if not there[0]:
                return None
        return tree if _turn(tree) == board.turn and bool(tree.over[0, 0]) == board.is_over else None

    def _search(self, until=None, is_decided=lambda left: False):
        """Grows the tree by the simulations of the settings or, with `until`, to that moment or to its capacity."""
        leaves, rounds, done, began = self._settings.leaves, 1, 0, time.monotonic()
        while not bool(self._tree.over[0, 0]):
            if until is None:
                left = self._settings.simulations - done * leaves
                if is_decided(left):
                    return
                rounds = min(max(1, _LOOK // leaves), -(-left // leaves))
            elif done:
                now = time.monotonic()
                rounds = min(2 * rounds, int((until - now) * done / max(now - began, 1e-9)))
            rounds = min(rounds, (self._settings.num_nodes - int(self._tree.size[0])) // leaves)
            if rounds < 1:
                return
            self._tree = self._programs.grow(self._tree, rounds)
            done += rounds

    def _draws(self, board):
        return len(board.moves) < self._settings.sampled_moves

    def _is_decided(self, board, visits, left):
        """Whether no other move can overtake the most visited one within the simulations that are left."""
        visits = np.sort(visits)
        return not self._draws(board) and visits[-1] - visits[-2] > left

    def _root_visits(self):
        return self._tree.visits[0, 0].numpy()

    def _analysis(self):
        tree = trees.Tree(*(part if name == "state" else part.numpy()[0]
                            for name, part in zip(trees.Tree._fields, self._tree)))
        visits, total = tree.visits[0], tree.total[0]
        order = [int(move) for move in np.lexsort((-tree.prior[0], -visits)) if tree.prior[0, move] >= 0]
        mean = (tree.value[0] + total.sum()) / (1 + visits.sum())
        candidates = tuple(Candidate(
            move=move, visits=int(visits[move]), prior=float(tree.prior[0, move]), line=_line(tree, move),
            win_rate=float(total[move] / visits[move] + 1) / 2 if visits[move] else float(mean + 1) / 2)
            for move in order)
        best = candidates[0]
        return Analysis(int(visits.sum()), best.win_rate, candidates)


def _search_together(players, boards):
    """Grows the trees of players of one kind."""
    settings, program = players[0]._settings, players[0]._programs
    left, rounds = settings.simulations, max(1, _LOOK // settings.leaves)
    padding = (1 << (len(players) - 1).bit_length()) - len(players)
    tree = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0),
                                 *(player._tree for player in (*players, *players[:1] * padding)))
    wanted = np.arange(len(players) + padding) < len(players)  # of the trees: those that go on
    while left > 0:
        rounds = min(rounds, -(-left // settings.leaves))
        visits, room = tree.visits[:, 0].numpy(), settings.num_nodes - tree.size.numpy()
        for row, (player, board) in enumerate(zip(players, boards)):
            wanted[row] &= room[row] >= rounds * settings.leaves and not player._is_decided(board, visits[row], left)
        if not wanted.any():
            break
        tree = program.grow(tree, rounds, tf.constant(wanted))
        left -= rounds * settings.leaves
    for row, player in enumerate(players):
        player._tree = tf.nest.map_structure(functools.partial(_row, row), tree)


def _row(row, part):
    return part[row:row + 1]


def _setup(board):
    return None if board.setup is None else board.setup.tobytes()


def _turn(tree):
    return int(tree.state.turn[0, 0])


def _line(tree, move):
    """What the search expects after a move: the most visited answers."""
    line, node = [move], tree.child[0, move]
    while node >= 0 and len(line) < _LONGEST_LINE and tree.visits[node].any():
        move = int(np.argmax(tree.visits[node]))
        line.append(move)
        node = tree.child[node, move]
    return tuple(line)


class Programs:
    """A search compiled for rules and a network: `plant(state)`, `replant(tree, action)` and `grow(tree, rounds)`.

    A network that is no `Evaluator` is called between two halves of each round.
    """

    def __init__(self, rules, network, *, leaves, capacity, symmetries, first_play, exploration, **game):
        self.rules, self._leaves, self._capacity = rules, leaves, capacity
        self._game = games.go_game(rules, planes=network.planes, **game)
        self._compiled = isinstance(network, networks.Evaluator)
        if symmetries:
            network = functools.partial(networks.seen_under_symmetries, rules.size, network, number=symmetries)
        self._see = network
        self._policy = policies.Puct(first_play=first_play, exploration=exploration)
        self.replant = tf.function(trees.replant, jit_compile=True)
        self._grow = tf.function(self._grown, jit_compile=True)
        self._observe = tf.function(self._game.observe, jit_compile=True)
        self._planted = tf.function(self._plant, jit_compile=True)
        self._down = tf.function(self._way_down, jit_compile=True)
        self._up = tf.function(self._way_up, jit_compile=True)

    def plant(self, state):
        """A tree of one node."""
        if self._compiled:
            return self._planted(state, None, None)
        return self._planted(state, *self._evaluated(self._observe(state)))

    def grow(self, tree, rounds, wanted=None):
        """The trees after so many rounds of `leaves` simulations. `wanted`, bool [B], are those that take part: an
        evaluator's only; None: all."""
        if self._compiled:
            return self._grow(tree, tf.constant(rounds), wanted)
        for _ in range(rounds):
            tree, found, planes = self._down(tree)
            tree = self._up(tree, found, *self._evaluated(planes))
        return tree

    def _evaluated(self, planes):
        logits, value = self._see(planes.numpy())
        return tf.constant(logits, tf.float32), tf.constant(value, tf.float32)

    def _plant(self, state, logits, value):
        network = self._see if logits is None else lambda planes: (logits, value)
        return trees.plant(self._game, network, state, self._capacity)

    def _grown(self, tree, rounds, wanted):
        return simulate.search(self._game, self._see, self._policy, tree, rounds * self._leaves, self._leaves,
                               wanted)

    def _way_down(self, tree):
        tree, found = simulate.choose_leaves(self._game, self._policy, tree, self._leaves)
        return tree, found, self._game.observe(found.state)

    def _way_up(self, tree, found, logits, value):
        return simulate.take_back(self._game, lambda planes: (logits, value), tree, found)


@functools.lru_cache(maxsize=8)
def programs(rules, network, **settings):
    """`Programs`, compiled once for all games."""
    made = Programs(rules, network, **settings)
    tree = made.grow(made.plant(go.new(rules, 1)), 1)
    made.replant(tree, tf.constant([rules.num_points]))
    return made
