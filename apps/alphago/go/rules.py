"""The rules of Go as pure functions over a batch of games, for XLA.

Nothing here looks for chains or liberties by following stones. Every stone carries the name of its chain and the set of
points that its chain's stones touch, as bits. The liberties of a chain are that set without the occupied points, so a
move, a capture, a merger of chains and the legality of all points are a few operations on whole arrays.

Shapes: B games, P = size² points in rows from the upper left corner, W = ⌈P / 64⌉ words of bits. A move is a point, or
P for a pass. Black is +1, white -1.
"""

import dataclasses
import functools
import math
import typing

import numpy as np
import tensorflow as tf

BLACK, WHITE = 1, -1
HISTORY = 8  # positions that a state remembers, the present one first
_BITS = 64


@dataclasses.dataclass(frozen=True)
class Rules:
    """What may differ between games.

    Attributes:
        size: points a side, 5 to 19.
        komi: points for white.
        superko: whether no position may come again (positional superko); otherwise only the one before the last move
            may not (simple ko).
        suicide: whether a move may take its own chain, of two stones or more, off the board.
        max_moves: a game ends after so many moves; 0: twice the number of points.

    Raises:
        ValueError: size or max_moves out of range, or a komi that is no multiple of one half.
    """

    size: int = 9
    komi: float = 7.0
    superko: bool = False
    suicide: bool = False
    max_moves: int = 0

    def __post_init__(self):
        if not 5 <= self.size <= 19:
            raise ValueError(f"A board has 5 to 19 points a side; received {self.size}.")
        if not 0 <= self.max_moves < 2**15:
            raise ValueError(f"max_moves must be 0 to {2**15 - 1}; received {self.max_moves}.")
        if not math.isfinite(self.komi) or self.komi * 2 % 1:
            raise ValueError(f"Komi must be a multiple of one half; received {self.komi}.")

    @property
    def num_points(self):
        """P."""
        return self.size**2

    @property
    def num_words(self):
        """W."""
        return -(-self.num_points // _BITS)

    @property
    def last_move(self):
        """Number of moves after which a game ends in any case."""
        return self.max_moves or 2 * self.num_points


class State(typing.NamedTuple):
    """B games.

    Attributes:
        stones: int8 [B, P], +1, -1 or 0.
        chain: int16 [B, P], name of the chain that a stone belongs to: one of its points. P where there is none.
        reach: int64 [B, P, W], the points next to any stone of the chain, as bits; means nothing where there is none.
        history: int64 [B, 8, 2, W], black and white stones after the last moves, as bits; the present first.
        turn: int8 [B], who is to move.
        ko: int16 [B], the point that simple ko forbids, or -1.
        passes: int8 [B], passes in a row.
        moves: int16 [B], moves played.
        prisoners: int16 [B, 2], stones taken by black and by white.
        sums: int64 [B, P], exclusive or of the keys of a chain's stones; P is 0 without superko.
        seen: int64 [B, last_move + 1], keys of all positions so far, the last one repeated; empty without superko.
    """

    stones: tf.Tensor
    chain: tf.Tensor
    reach: tf.Tensor
    history: tf.Tensor
    turn: tf.Tensor
    ko: tf.Tensor
    passes: tf.Tensor
    moves: tf.Tensor
    prisoners: tf.Tensor
    sums: tf.Tensor
    seen: tf.Tensor


@functools.cache
def neighbours(size):
    """int32 [P, 4]: the points above, below, left and right of each; P where the board ends."""
    points = np.pad(np.arange(size * size, dtype=np.int32).reshape(size, size), 1, constant_values=size * size)
    return np.stack([points[:-2, 1:-1], points[2:, 1:-1], points[1:-1, :-2], points[1:-1, 2:]], -1).reshape(-1, 4)


@functools.cache
def _bits(size):
    """int64 [P + 1, W]: the bit of each point, and none."""
    number = size * size
    table = np.zeros([number + 1, -(-number // _BITS)], np.uint64)
    points = np.arange(number)
    table[points, points // _BITS] = np.uint64(1) << (points % _BITS).astype(np.uint64)
    return table.view(np.int64)


@functools.cache
def _touches(size):
    """int64 [P, W]: the neighbours of each point as bits."""
    return np.bitwise_or.reduce(_bits(size)[neighbours(size)], axis=1)


@functools.cache
def _full(size):
    """int64 [W]: all points."""
    return np.bitwise_or.reduce(_bits(size), axis=0)


@functools.cache
def _keys(size):
    """int64 [P, 2]: random numbers of a black and of a white stone on each point (Zobrist 1970)."""
    return np.random.default_rng(size).integers(-2**63, 2**63, [size * size, 2], np.int64)


def new(rules, batch):
    """`batch` games before the first move."""
    points, words = rules.num_points, rules.num_words
    kept = points if rules.superko else 0
    return State(
        stones=tf.zeros([batch, points], tf.int8), chain=tf.fill([batch, points], tf.constant(points, tf.int16)),
        reach=tf.zeros([batch, points, words], tf.int64), history=tf.zeros([batch, HISTORY, 2, words], tf.int64),
        turn=tf.ones([batch], tf.int8), ko=tf.fill([batch], tf.constant(-1, tf.int16)),
        passes=tf.zeros([batch], tf.int8), moves=tf.zeros([batch], tf.int16), prisoners=tf.zeros([batch, 2], tf.int16),
        sums=tf.zeros([batch, kept], tf.int64),
        seen=tf.zeros([batch, rules.last_move + 1 if rules.superko else 0], tf.int64))


def from_stones(rules, stones, turn=BLACK):
    """One game that begins with stones on the board.

    Args:
        rules: `Rules`.
        stones: int [N, N] or [P], +1, -1, 0.
        turn: who is to move.

    Returns:
        State with B = 1; the positions before count as the same.

    Raises:
        ValueError: wrong shape, or a chain without liberties.
    """
    stones = np.asarray(stones, np.int8)
    if stones.size != rules.num_points:
        raise ValueError(f"A board of {rules.size} has {rules.num_points} points; received an array of shape "
                         f"{stones.shape}.")
    stones, table, number = stones.ravel(), neighbours(rules.size), rules.num_points
    chain = np.full(number, number, np.int16)
    reach = np.zeros([number, rules.num_words], np.int64)
    sums = np.zeros(number if rules.superko else 0, np.int64)
    taken = np.bitwise_or.reduce(_bits(rules.size)[:-1][stones != 0], axis=0, initial=0)
    for start in np.flatnonzero(stones):
        if chain[start] < number:
            continue
        found, to_see = {int(start)}, [int(start)]
        while to_see:
            beside = [int(other) for other in table[to_see.pop()] if other < number and stones[other] == stones[start]]
            to_see += [other for other in beside if other not in found]
            found.update(beside)
        found = sorted(found)
        chain[found], reach[found] = start, np.bitwise_or.reduce(_touches(rules.size)[found], axis=0)
        if not (reach[start] & ~taken).any():
            row, column = divmod(int(start), rules.size)
            raise ValueError(f"The chain with the stone in row {row}, column {column} (from 0, from above and from the "
                             "left) has no liberty: such a position does not come about.")
        if rules.superko:
            sums[found] = np.bitwise_xor.reduce(_keys(rules.size)[found, 0 if stones[start] == BLACK else 1])
    sides = [np.bitwise_or.reduce(_bits(rules.size)[:-1][stones == side], axis=0, initial=0) for side in (BLACK, WHITE)]
    keys = np.bitwise_xor.reduce(_keys(rules.size)[stones == BLACK, 0], initial=0) ^ \
        np.bitwise_xor.reduce(_keys(rules.size)[stones == WHITE, 1], initial=0)
    begin = new(rules, 1)
    return begin._replace(
        stones=tf.constant(stones[None]), chain=tf.constant(chain[None]), reach=tf.constant(reach[None]),
        history=tf.constant(np.broadcast_to(np.stack(sides), begin.history.shape).astype(np.int64)),
        turn=tf.constant([turn], tf.int8), sums=tf.constant(sums[None]),
        seen=tf.fill(begin.seen.shape, tf.constant(keys, tf.int64)))


def play(rules, state, move):
    """The games after a legal move of the side to move in each.

    Args:
        rules: `Rules`.
        state: `State`.
        move: int32 [B], points, or P to pass. In a game that is over, and for an illegal move, what follows means
            nothing.
    """
    size, points = rules.size, rules.num_points
    passed = move >= points
    point = tf.minimum(move, points - 1)
    here = np.arange(points, dtype=np.int32) == point[:, None]  # [B, P]
    here &= ~passed[:, None]
    turn = state.turn

    around = tf.gather(neighbours(size), point)  # [B, 4]
    inside = (around < points) & ~passed[:, None]
    around = tf.minimum(around, points - 1)
    colour = tf.where(inside, tf.gather(state.stones, around, batch_dims=1), tf.zeros([], tf.int8))
    name = tf.gather(state.chain, around, batch_dims=1)
    reach = tf.gather(state.reach, around, batch_dims=1)  # [B, 4, W]

    bit = tf.gather(_bits(size), tf.minimum(move, points))  # [B, W]
    black, white = state.history[:, 0, 0], state.history[:, 0, 1]
    empty = _full(size) & ~(black | white | bit)
    dead = (colour == -turn[:, None]) & _none(reach & empty[:, None])
    friend = colour == turn[:, None]
    captured = _any_chain(state.chain, name, dead)
    merged = _any_chain(state.chain, name, friend) | here
    own_reach = tf.gather(_touches(size), point) | _or(tf.where(friend[..., None], reach, tf.zeros_like(reach)))

    stones = tf.where(captured, tf.zeros([], tf.int8), tf.where(here, turn[:, None], state.stones))
    chain = tf.where(captured, tf.constant(points, tf.int16),
                     tf.where(merged, tf.cast(point, tf.int16)[:, None], state.chain))
    reach_after = tf.where(merged[..., None], own_reach[:, None], state.reach)
    gone = _pack(captured, rules)
    is_black = turn == BLACK
    black, white = (tf.where(is_black[:, None], black | bit, black & ~gone),
                    tf.where(is_black[:, None], white & ~gone, white | bit))
    number = tf.reduce_sum(tf.cast(captured, tf.int16), axis=1)

    suicides = tf.zeros_like(passed)
    if rules.suicide:
        suicides = _none(own_reach & _full(size) & ~(black | white)) & ~passed
        leaves = merged & suicides[:, None]
        stones = tf.where(leaves, tf.zeros([], tf.int8), stones)
        chain = tf.where(leaves, tf.constant(points, tf.int16), chain)
        bits = tf.where(suicides[:, None], _pack(merged, rules), tf.zeros_like(black))
        black, white = (tf.where(is_black[:, None], black & ~bits, black),
                        tf.where(is_black[:, None], white, white & ~bits))

    # Simple ko: one stone took one, and stands alone with that point as its only liberty.
    alone = ~tf.reduce_any(friend, axis=1)
    liberties = tf.gather(_touches(size), point) & _full(size) & ~(black | white)
    is_ko = (number == 1) & alone & _one(liberties)
    prey = tf.argmax(captured, axis=1, output_type=tf.int32)
    prisoners = state.prisoners + _taken_by(is_black, number)
    if rules.suicide:
        lost = tf.where(suicides, tf.reduce_sum(tf.cast(merged, tf.int16), axis=1), tf.zeros_like(number))
        prisoners += _taken_by(~is_black, lost)
    sums, seen = state.sums, state.seen
    if rules.superko:
        sums, seen = _remember(rules, state, point, passed, name, dead, friend, merged, suicides)
    return State(
        stones=stones, chain=chain, reach=reach_after,
        history=tf.concat([tf.stack([black, white], axis=1)[:, None], state.history[:, :-1]], axis=1), turn=-turn,
        ko=tf.where(is_ko, tf.cast(prey, tf.int16), tf.constant(-1, tf.int16)),
        passes=tf.where(passed, state.passes + 1, tf.zeros([], tf.int8)), moves=state.moves + 1, prisoners=prisoners,
        sums=sums, seen=seen)


def _taken_by(is_black, number):
    """Prisoners [B, 2] of black and of white, where a side, bool [B] whether black, takes `number`, int16 [B]."""
    none = tf.zeros_like(number)
    return tf.stack([tf.where(is_black, number, none), tf.where(is_black, none, number)], axis=1)


def _remember(rules, state, point, passed, name, dead, friend, merged, suicides):
    """Sums of keys and keys of positions after a move."""
    sum_of = tf.gather(state.sums, tf.minimum(tf.cast(name, tf.int32), rules.num_points - 1), batch_dims=1)  # [B, 4]
    zero = tf.zeros([], tf.int64)
    side = tf.where(state.turn == BLACK, 0, 1)
    own = tf.where(passed, zero, tf.gather_nd(_keys(rules.size), tf.stack([point, side], axis=1)))
    friends = _xor(tf.where(friend & _first(name, friend), sum_of, zero))
    prey = _xor(tf.where(dead & _first(name, dead), sum_of, zero))
    present, together = _present(state) ^ own ^ prey, own ^ friends
    present = tf.where(suicides, present ^ together, present)
    number = tf.cast(state.moves, tf.int32)[:, None] + 1
    later = np.arange(rules.last_move + 1, dtype=np.int32) >= number
    return (tf.where(merged, together[:, None], state.sums),
            tf.where(later, present[:, None], state.seen))


def _present(state):
    """Key of the present position, int64 [B]: what `seen` holds from now on."""
    return state.seen[:, -1]


def legal(rules, state):
    """bool [B, P + 1]: the moves that the side to move has; the last is the pass, which is always there."""
    size, points = rules.size, rules.num_points
    own, enemy = state.stones == state.turn[:, None], state.stones == -state.turn[:, None]
    empty = state.stones == 0
    free = _full(size) & ~(state.history[:, 0, 0] | state.history[:, 0, 1])
    last = _one(state.reach & free[:, None])  # one liberty left
    prey = enemy & last
    if rules.suicide:
        lives = near(rules, empty | own | prey)
    else:
        lives = near(rules, empty | (own & ~last) | prey)
    allowed = empty & lives & (np.arange(points, dtype=np.int16) != state.ko[:, None])
    if rules.superko:
        allowed &= ~_repeats(rules, state, own, prey, last, empty)
    return tf.concat([allowed, tf.ones_like(allowed[:, :1])], axis=1)


def _repeats(rules, state, own, prey, last, empty):
    """bool [B, P]: whether a stone there would make a position that was there before."""
    size, points = rules.size, rules.num_points
    table = neighbours(size)

    def beside(values, outside):
        padded = tf.pad(values, [[0, 0], [0, 1]], constant_values=outside)
        return tf.gather(padded, table, axis=1)  # [B, P, 4]

    name, zero = beside(state.chain, points), tf.zeros([], tf.int64)
    sums, taken, friend = beside(state.sums, 0), beside(prey, False), beside(own, False)
    side = tf.where(state.turn == BLACK, 0, 1)
    key = tf.gather(_keys(size).T, side)  # [B, P]
    prey_sum = _xor(tf.where(taken & _first(name, taken), sums, zero))
    change = key ^ prey_sum
    if rules.suicide:
        lives = tf.reduce_any(beside(empty, False) | (friend & ~beside(last, False)) | taken, axis=-1)
        friends = _xor(tf.where(friend & _first(name, friend), sums, zero))
        change = tf.where(lives, change, friends)
    after = _present(state)[:, None] ^ change
    return tf.reduce_any(after[..., None] == state.seen[:, None], axis=-1)


def over(rules, state):
    """bool [B]: two passes in a row, or too many moves."""
    return (state.passes >= 2) | (tf.cast(state.moves, tf.int32) >= rules.last_move)


def ownership(rules, state):
    """int8 [B, P]: whose each point is under area scoring (Tromp & Taylor): +1, -1, or 0.

    A point is a colour's when it holds its stone, or is empty and reaches, over empty points, stones of that colour
    only. Dead stones count as alive: they must be taken off before the end.
    """
    rows = _territory(rules, state, tf.ones_like(state.turn, tf.bool))
    points = tf.bitwise.right_shift(rows[..., None], np.arange(rules.size)) & 1
    return tf.cast(tf.reshape(points[:, 0] - points[:, 1], [-1, rules.num_points]), tf.int8)


def score(rules, state, wanted=None):
    """float32 [B]: points of black less those of white, komi included.

    `wanted`, bool [B], says for which games; for others the number means nothing. Few take less time.
    """
    rows = _territory(rules, state, tf.ones_like(state.turn, tf.bool) if wanted is None else wanted)
    points = tf.reduce_sum(tf.cast(tf.raw_ops.PopulationCount(x=rows), tf.float32), axis=2)
    return points[:, 0] - points[:, 1] - rules.komi


def _territory(rules, state, wanted):
    """int32 [B, 2, N]: each row's points of black and of white, as bits."""
    columns = np.left_shift(1, np.arange(rules.size)).astype(np.int32)
    stones = tf.reshape(state.stones, [-1, 1, rules.size, rules.size])
    sides = tf.where(wanted[:, None, None, None], np.array([BLACK, WHITE], np.int8)[:, None, None], -2)
    empty = tf.reduce_sum(tf.where(stones == 0, columns, 0), axis=3)
    rows = tf.reduce_sum(tf.where(stones == sides, columns, 0), axis=3)

    def grow(rows, _):
        more, free, shift = rows, empty, 1
        below = tf.pad(rows, [[0, 0], [0, 0], [1, 1]])
        more |= free & (below[..., 2:] | below[..., :-2])
        up, down = more, more
        while shift < rules.size:  # along a row as far as it is free, in steps that double
            up |= free & tf.bitwise.left_shift(up, shift)
            free &= tf.bitwise.left_shift(free, shift)
            shift *= 2
        free, shift = empty, 1
        while shift < rules.size:
            down |= free & tf.bitwise.right_shift(down, shift)
            free &= tf.bitwise.right_shift(free, shift)
            shift *= 2
        more = up | down
        return more, tf.reduce_any(more != rows)

    rows, _ = tf.while_loop(lambda rows, changed: changed, grow, (rows, tf.reduce_any(wanted)))
    return rows & ~rows[:, ::-1]


def with_turn(state, turn):
    """The games with another side to move, as after a move that the rules do not know of."""
    return state._replace(turn=tf.fill(state.turn.shape, tf.constant(turn, tf.int8)),
                          ko=tf.fill(state.ko.shape, tf.constant(-1, tf.int16)))


def program(rules, name):
    """A function of this module, `play`, `legal`, `score`, `ownership` or `over`, compiled by XLA for these rules.

    Only `score` knows of komi; the others are compiled once for any.
    """
    return _compiled(rules if name == "score" else dataclasses.replace(rules, komi=0.0), name)


@functools.cache
def _compiled(rules, name):
    return tf.function(functools.partial(globals()[name], rules), jit_compile=True)


def near(rules, points):
    """bool [B, P]: whether any neighbour of a point is among `points`."""
    size = rules.size
    grid = tf.pad(tf.reshape(points, [-1, size, size]), [[0, 0], [1, 1], [1, 1]])
    found = grid[:, :-2, 1:-1] | grid[:, 2:, 1:-1] | grid[:, 1:-1, :-2] | grid[:, 1:-1, 2:]
    return tf.reshape(found, [-1, size * size])


def unpack(rules, bits):
    """bool [..., P] of bits int64 [..., W]."""
    counts = np.bincount(np.arange(rules.num_points) // _BITS)
    return tf.concat([tf.bitwise.right_shift(bits[..., w:w + 1], np.arange(count, dtype=np.int64)) & 1 != 0
                      for w, count in enumerate(counts)], axis=-1)


def _pack(points, rules):
    """Bits int64 [B, W] of bool [B, P]."""
    values = tf.where(points[..., None], _bits(rules.size)[:-1], tf.zeros([], tf.int64))
    return tf.reduce_sum(values, axis=1)


def _any_chain(chain, names, wanted):
    """bool [B, P]: stones of any of four chains [B, 4] that are wanted [B, 4]."""
    names = tf.where(wanted, names, tf.constant(-1, tf.int16))
    found = [chain == names[:, k, None] for k in range(4)]
    return found[0] | found[1] | found[2] | found[3]


def _first(names, wanted):
    """bool [..., 4]: whether a chain, of the wanted ones, does not stand before in the same four."""
    found = [tf.ones_like(wanted[..., 0])]
    for k in range(1, 4):
        same = [(names[..., k] == names[..., j]) & wanted[..., j] for j in range(k)]
        found.append(~functools.reduce(tf.logical_or, same))
    return tf.stack(found, axis=-1)


def _or(values):
    """Union over the four neighbours, [B, W] of [B, 4, W]."""
    return values[:, 0] | values[:, 1] | values[:, 2] | values[:, 3]


def _xor(values):
    """Exclusive or over the last axis, of four."""
    return values[..., 0] ^ values[..., 1] ^ values[..., 2] ^ values[..., 3]


def _none(bits):
    """Whether no bit is set in [..., W]."""
    return tf.reduce_all(bits == 0, axis=-1)


def _one(bits):
    """Whether exactly one bit is set in [..., W]."""
    words = [bits[..., w] for w in range(bits.shape[-1])]
    some = [tf.cast(word != 0, tf.int32) for word in words]
    single = [word & (word - 1) == 0 for word in words]
    return (functools.reduce(tf.add, some) == 1) & functools.reduce(tf.logical_and, single)
