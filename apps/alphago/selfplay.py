"""Games of a network against itself, many at a time, in one program for XLA.

One simulation is made for every game at once. With PUCT each game goes at its own pace: every few simulations those
whose root has enough visits move and go on from what their search knows already. With Gumbel AlphaZero all games move
after as many simulations as sequential halving plans; what lies below the move stays, the root's visits begin anew. A
game that has ended makes way for a new one; nothing ever waits for the others. Moves come out as they are made;
`Collector` puts the games together.

Playout cap randomisation (Wu 2019, arXiv 1902.10565, section 3.1): a share of the moves is searched in full, with noise
at the root, and learned from; the others are searched quickly, to get on to the result.

Openings (ibid., section 4.2.1, there drawn from the network): some random moves begin a game, so that games differ and
either side may be ahead.
"""

import dataclasses
import typing

import numpy as np
import tensorflow as tf

from apps.alphago.search import policies, simulate
from apps.alphago.search import tree as trees

NOTHING = -1  # in place of a move
POLICIES = ("gumbel", "puct")
_CERTAIN = 1e6  # more than any logit


@dataclasses.dataclass(frozen=True)
class Settings:
    """How games are played.

    Attributes:
        games: B, at the same time.
        policy: "puct" or "gumbel". With Gumbel every move is searched in full.
        simulations: visits of the root, those it had from the search before included, before a move that is learned
            from.
        fast_simulations: the same for other moves.
        full_share: share of the moves that are learned from.
        alpha: of the Dirichlet noise at the root.
        noise_share: part of the noise in the root's prior.
        sampled_moves: so many moves of a game are drawn in proportion to visits; after them the most visited is played.
        opening_moves: random moves, at most, that a game begins with; no passes, and not learned from.
        first_play: as of `policies.Puct`.
        interval: simulations between two looks at who can move.
    """

    games: int = 64
    policy: str = "puct"
    simulations: int = 128
    fast_simulations: int = 24
    full_share: float = 0.25
    alpha: float = 0.13
    noise_share: float = 0.25
    sampled_moves: int = 12
    opening_moves: int = 0
    first_play: str = "parent"
    interval: int = 8

    @property
    def is_gumbel(self):
        """Whether the searches are those of Gumbel AlphaZero."""
        return self.policy == "gumbel"

    @property
    def rounds(self):
        """Simulations between two moments at which games can move."""
        return self.simulations if self.is_gumbel else self.interval

    @property
    def capacity(self):
        """Nodes of a tree."""
        if self.is_gumbel:
            return 3 * self.simulations + 1
        return max(self.simulations, self.fast_simulations) + self.interval + 1


class Play(typing.NamedTuple):
    """Games under way.

    Attributes:
        tree: `Tree`, its roots the present positions.
        noise: float32 [B, A], Dirichlet or Gumbel noise of the roots; in an opening largest for the move to come.
        full: bool [B], whether the present move is searched in full.
        number: int32 [B], moves made in the game.
        opening: int32 [B], how many of its moves are random.
        draws: int32 [], moments at which moves were made so far: with the seed it determines every random number.
    """

    tree: trees.Tree
    noise: tf.Tensor
    full: tf.Tensor
    number: tf.Tensor
    opening: tf.Tensor
    draws: tf.Tensor


class Moves(typing.NamedTuple):
    """What came out of R moments at which games could move, each part [R, B, ...].

    Attributes:
        action: int32, -1 where a game did not move.
        target: float16 [R, B, A], shares of the root's visits.
        value: float32, the search's value for the side that moved.
        full: bool, whether the move is to be learned from.
        over: bool, whether the game ended with it.
        result: float32, for the side that made the last move; counts where it ended.
    """

    action: tf.Tensor
    target: tf.Tensor
    value: tf.Tensor
    full: tf.Tensor
    over: tf.Tensor
    result: tf.Tensor


def begin(game, network, settings, new_state, seed):
    """`Play` of new games.

    Args:
        game: `Game`.
        network: planes -> (logits, value).
        settings: `Settings`.
        new_state: number -> states of so many new games.
        seed: int64 scalar.
    """
    tree = trees.plant(game, network, new_state(settings.games), settings.capacity)
    number, draws = tf.zeros([settings.games], tf.int32), tf.constant(0)
    opening = _openings(settings, seed, draws)
    full, noise = _draw(settings, seed, draws, tree, number < opening, tf.zeros([settings.games, game.num_actions]))
    return Play(tree, noise, full, number, opening, draws)


def advance(game, network, settings, new_state, play, gammas, seed):
    """Plays on.

    Args:
        game, network, settings, new_state, seed: as of `begin`.
        play: `Play`.
        gammas: float32 [R, B, A], of the gamma distribution with shape `settings.alpha`: from them comes the noise of
            the R moments at which games move. XLA cannot draw them.

    Returns:
        (`Play`, `Moves`).
    """
    moments = gammas.shape[0]
    fresh = trees.plant(game, network, new_state(1), settings.capacity)

    def moment(index, play, moves):
        # Under Gumbel a long line of moves without a choice keeps more nodes than there is room for: begin anew.
        tree = trees.without_children(play.tree, play.tree.size > play.tree.capacity - settings.rounds)
        tree = simulate.search(game, network, _policy(settings, play), tree, settings.rounds)
        play, made = _move(game, settings, play._replace(tree=tree), fresh, gammas[index], seed)
        moves = tf.nest.map_structure(
            lambda all_of, row: tf.tensor_scatter_nd_update(all_of, [[index]], row[None]), moves, made)
        return index + 1, play, moves

    batch, actions = settings.games, game.num_actions
    empty = Moves(tf.zeros([moments, batch], tf.int32), tf.zeros([moments, batch, actions], tf.float16),
                  tf.zeros([moments, batch]), tf.zeros([moments, batch], tf.bool), tf.zeros([moments, batch], tf.bool),
                  tf.zeros([moments, batch]))
    return tf.while_loop(lambda index, *_: index < moments, moment, (0, play, empty))[1:]


def _policy(settings, play):
    """How the present moves are searched."""
    if settings.is_gumbel:
        return policies.Gumbel(noise=play.noise, num_simulations=settings.simulations)
    share = tf.where(play.number < play.opening, 1.0, tf.where(play.full, settings.noise_share, 0.0))
    return policies.Puct(first_play=settings.first_play, noise=play.noise, noise_share=share[:, None])


def _move(game, settings, play, fresh, gammas, seed):
    """Moves in the games that are ready: (`Play`, `Moves` without R)."""
    batch, is_opening = settings.games, play.number < play.opening
    roots = trees.rows(play.tree, tf.zeros([batch], tf.int32))
    draws, policy = play.draws + 1, _policy(settings, play)
    if settings.is_gumbel:
        ready, action = tf.ones([batch], tf.bool), policy.choose(roots)
    else:
        wanted = tf.where(play.full, float(settings.simulations), float(settings.fast_simulations))
        is_known = tf.reduce_sum(play.noise * roots.visits, axis=1) > 0  # the move of an opening
        ready = tf.where(is_opening, is_known, tf.reduce_sum(roots.visits, axis=1) >= wanted)
        temperature = tf.where(play.number < settings.sampled_moves, 1.0, 0.0)
        action = policy.choose(roots, temperature, _gumbel(settings, game.num_actions, seed, draws))
        action = tf.where(is_opening, tf.argmax(play.noise, axis=1, output_type=tf.int32), action)
    action = tf.where(ready, action, NOTHING)
    tree, _ = trees.replant(play.tree, action)
    over, result = tree.over[:, 0], -tree.value[:, 0]
    over &= ready
    made = Moves(action, tf.cast(policy.target(roots), tf.float16), policy.value(roots), play.full, over, result)
    if settings.is_gumbel:
        tree = trees.without_visits(tree)

    tree = trees.select(over, fresh, tree)
    number = tf.where(over, 0, play.number + tf.cast(ready, tf.int32))
    opening = tf.where(over, _openings(settings, seed, draws), play.opening)
    full, noise = _draw(settings, seed, draws, tree, number < opening, gammas)
    return Play(tree, tf.where(ready[:, None], noise, play.noise), tf.where(ready, full, play.full), number, opening,
                draws), made


def _openings(settings, seed, draws):
    """int32 [B]: lengths of the openings of new games."""
    return tf.random.stateless_uniform([settings.games], _key(seed, draws, 2), 0, settings.opening_moves + 1, tf.int32)


def _draw(settings, seed, draws, tree, is_opening, gammas):
    """(bool [B]: whether the next move is to be learned from, float32 [B, A]: noise of its root)."""
    legal = tree.prior[:, 0] >= 0
    if settings.is_gumbel:
        full, noise = tf.ones([settings.games], tf.bool), _gumbel(settings, legal.shape[1], seed, draws)
    else:
        full = tf.random.stateless_uniform([settings.games], _key(seed, draws, 1)) < settings.full_share
        gammas = tf.where(legal, gammas, 0)
        noise = gammas / tf.maximum(tf.reduce_sum(gammas, axis=1, keepdims=True), 1e-30)
    order = tf.random.stateless_uniform(legal.shape, _key(seed, draws, 3))
    # The last action, Go's pass, comes only where there is no other.
    order = tf.where(legal, tf.where(tf.range(legal.shape[1]) < legal.shape[1] - 1, 1 + order, 0), -1)
    random_move = tf.one_hot(tf.argmax(order, axis=1), legal.shape[1], _CERTAIN if settings.is_gumbel else 1.0)
    return full & ~is_opening, tf.where(is_opening[:, None], random_move, noise)


def _gumbel(settings, actions, seed, draws):
    """float32 [B, A] of the Gumbel distribution."""
    uniform = tf.random.stateless_uniform([settings.games, actions], _key(seed, draws, 0), minval=1e-30)
    return -tf.math.log(-tf.math.log(uniform))


def _key(seed, draws, purpose):
    return tf.stack([tf.cast(seed, tf.int64), tf.cast(draws, tf.int64) * 4 + purpose])


@dataclasses.dataclass
class PlayedGame:
    """A game that has ended: for each move the action, whether it is learned from, the search's value for the side that
    moved and, float16 [A], the visits' shares; `result` for the side that moved first."""

    actions: list = dataclasses.field(default_factory=list)
    full: list = dataclasses.field(default_factory=list)
    values: list = dataclasses.field(default_factory=list)
    targets: list = dataclasses.field(default_factory=list)
    result: float = 0.0


class Collector:
    """Puts games together from `Moves`."""

    def __init__(self, games):
        self._open = [PlayedGame() for _ in range(games)]

    def add(self, moves):
        """The games that ended with these moves, a list of `PlayedGame`."""
        moves, ended = Moves(*(part.numpy() for part in moves)), []
        for r, b in np.argwhere(moves.action != NOTHING):
            game = self._open[b]
            game.actions.append(int(moves.action[r, b]))
            game.full.append(bool(moves.full[r, b]))
            game.values.append(float(moves.value[r, b]))
            game.targets.append(moves.target[r, b])
            if moves.over[r, b]:
                game.result = float(moves.result[r, b]) * (1 if len(game.actions) % 2 else -1)
                ended.append(game)
                self._open[b] = PlayedGame()
        return ended
