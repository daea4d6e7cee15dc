"""Searches against one written with dictionaries, against solved games, and against themselves."""

import copy
import functools

import numpy as np
import pytest
import tensorflow as tf

from apps.alphago import games
from apps.alphago.go import rules as go
from apps.alphago.search import policies
from apps.alphago.search import tree as trees
from apps.alphago.search.simulate import search
from tests.apps.alphago.go.reference import Board as Reference

RULES = go.Rules(size=5, komi=0.5, max_moves=30)


def hashed(observation, actions):
    """Logits [B, A] and values [B] that look random and follow from the observation alone."""
    flat = np.asarray(observation, np.float64).reshape(len(observation), -1)
    weights = np.random.default_rng(0).normal(size=[flat.shape[1], actions + 1])
    mixed = np.sin(flat @ weights * 7)
    return mixed[:, :-1].astype(np.float32) * 2, mixed[:, -1].astype(np.float32)


def hash_network(actions):
    def network(observation):
        flat = tf.cast(tf.reshape(observation, [observation.shape[0], -1]), tf.float64)
        weights = np.random.default_rng(0).normal(size=[flat.shape[1], actions + 1])
        mixed = tf.sin(flat @ weights * 7)
        return tf.cast(mixed[:, :-1], tf.float32) * 2, tf.cast(mixed[:, -1], tf.float32)
    return network


@functools.cache
def one_at_a_time(game):
    """The functions of a game as programs, for a search that calls them position by position."""
    return game._replace(**{name: tf.function(getattr(game, name), jit_compile=True)
                            for name in ("step", "legal", "result", "observe")})


class Node:
    """A node of the search as a textbook has it."""

    def __init__(self, game, state):
        self.game, self.state, self.children = game, state, {}
        logits, value = hashed(game.observe(state), game.num_actions)
        legal = game.legal(state).numpy()[0]
        over, result = (part.numpy()[0] for part in game.result(state))
        self.over, self.value = bool(over), float(result) if over else float(value[0])
        shifted = np.exp(logits[0] - logits[0][legal].max()) * legal
        self.prior = np.where(legal, shifted / shifted.sum(), -1).astype(np.float32)
        self.visits, self.total = np.zeros(game.num_actions), np.zeros(game.num_actions)

    def simulate(self):
        """The value of one more simulation, for the side to move here."""
        number = self.visits.sum()
        rate = 1.25 + np.log((number + 19653) / 19652)
        mean = self.total / np.maximum(self.visits, 1)
        scores = mean + rate * self.prior * np.sqrt(max(number, 1)) / (1 + self.visits)
        action = int(np.argmax(np.where(self.prior < 0, -np.inf, scores)))
        if action not in self.children:
            state = self.game.step(self.state, tf.constant([action]))
            self.children[action] = Node(self.game, state)
            value = self.children[action].value
        elif self.children[action].over:
            value = self.children[action].value
        else:
            value = self.children[action].simulate()
        self.visits[action] += 1
        self.total[action] -= value
        return -value


def go_positions(number, moves):
    """`number` different games of a few random moves."""
    state, noise = go.new(RULES, number), np.random.default_rng(1)
    for _ in range(moves):
        masks = go.program(RULES, "legal")(state).numpy()[:, :-1]
        state = go.program(RULES, "play")(state, np.array([noise.choice(np.flatnonzero(m)) for m in masks], np.int32))
    return state


def run(game, state, policy, simulations, *, mode="xla", capacity=None, leaves=1):
    def program(state):
        network = hash_network(game.num_actions)
        tree = trees.plant(game, network, state, capacity or simulations + 1)
        return search(game, network, policy, tree, simulations, leaves)

    if mode == "eager":
        return program(state)
    return tf.function(program, jit_compile=mode == "xla")(state)


@pytest.mark.parametrize("moves", [6, 24])
def test_puct_as_in_a_textbook(moves):
    game, state, simulations = games.go_game(RULES), go_positions(3, moves), 60
    tree = run(game, state, policies.Puct(), simulations)
    for index in range(3):
        root = Node(one_at_a_time(game), tf.nest.map_structure(lambda part, i=index: part[i:i + 1], state))
        for _ in range(simulations):
            root.simulate()
        np.testing.assert_array_equal(tree.visits[index, 0], root.visits)
        np.testing.assert_allclose(tree.total[index, 0], root.total, atol=1e-5)
        to_see, seen = [(root, 0)], 0
        while to_see:  # and so does every node below
            mine, number = to_see.pop()
            np.testing.assert_array_equal(tree.visits[index, number], mine.visits)
            children = tree.child[index, number].numpy()
            assert set(np.flatnonzero(children >= 0)) == set(mine.children)
            to_see += [(child, children[action]) for action, child in mine.children.items()]
            seen += 1
        assert seen == tree.size[index]


@pytest.mark.parametrize("make", [policies.Puct, lambda: policies.Puct(first_play="parent"), lambda: policies.Gumbel(
    noise=tf.random.stateless_normal([4, 26], [1, 2]), num_simulations=40, num_considered=8)])
def test_compiled_graph_and_eager_searches_are_the_same(make):
    game, state = games.go_game(RULES), go_positions(4, 5)
    found = [run(game, state, make(), 40, mode=mode) for mode in ("xla", "graph", "eager")]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].size, other.size)
        for name in ("parent", "action", "child", "visits"):
            np.testing.assert_array_equal(getattr(found[0], name)[:, :41], getattr(other, name)[:, :41])
    assert (found[0].visits.numpy()[:, 0].sum(-1) == 40).all() and (found[0].size == 41).numpy().all()


class TogetherNode(Node):
    """Simulations in rounds: ways down with a loss on each edge, then all values."""

    def way_down(self):
        """Edges [(node, action)] from here to a leaf, each with a loss."""
        number = self.visits.sum()
        mean = self.total / np.maximum(self.visits, 1)
        rate = 1.25 + np.log((number + 19653) / 19652)
        scores = mean + rate * self.prior * np.sqrt(max(number, 1)) / (1 + self.visits)
        action = int(np.argmax(np.where(self.prior < 0, -np.inf, scores)))
        self.visits[action] += 1
        self.total[action] -= 1
        child = self.children.get(action)
        return [(self, action)] + ([] if child is None or child.over else child.way_down())

    def round(self, leaves):
        ways = [self.way_down() for _ in range(leaves)]
        for way in ways:
            node, action = way[-1]
            if action not in node.children:
                node.children[action] = TogetherNode(self.game, self.game.step(node.state, tf.constant([action])))
        for way in ways:
            value = way[-1][0].children[way[-1][1]].value
            for node, action in reversed(way):
                value = -value
                node.total[action] += 1 + value


@pytest.mark.parametrize("moves", [6, 24])
def test_leaves_together_as_in_a_textbook(moves):
    game, state, simulations, leaves = games.go_game(RULES), go_positions(3, moves), 60, 6
    tree = run(game, state, policies.Puct(), simulations, leaves=leaves)
    for index in range(3):
        root = TogetherNode(one_at_a_time(game), tf.nest.map_structure(lambda part, i=index: part[i:i + 1], state))
        for _ in range(simulations // leaves):
            root.round(leaves)
        to_see, seen = [(root, 0)], 0
        while to_see:
            mine, number = to_see.pop()
            np.testing.assert_array_equal(tree.visits[index, number], mine.visits)
            np.testing.assert_allclose(tree.total[index, number], mine.total, atol=1e-4)
            children = tree.child[index, number].numpy()
            assert set(np.flatnonzero(children >= 0)) == set(mine.children)
            to_see += [(child, children[action]) for action, child in mine.children.items()]
            seen += 1
        assert seen == tree.size[index]


def test_a_full_tree_takes_no_more_leaves():
    game, state = games.go_game(RULES), go_positions(2, 3)
    tree = run(game, state, policies.Puct(), 48, capacity=21, leaves=8)
    assert (tree.size == 21).numpy().all() and (tree.visits.numpy()[:, 0].sum(-1) == 48).all()
    assert (tree.child.numpy()[:, :21] < 21).all()


def test_a_full_tree_goes_on_searching():
    game, state = games.go_game(RULES), go_positions(2, 3)
    tree = run(game, state, policies.Puct(), 50, capacity=20)
    assert (tree.size == 20).numpy().all() and (tree.visits.numpy()[:, 0].sum(-1) == 50).all()


@functools.cache
def solve(own, other):
    """Value of tic-tac-toe for the side to move: every line of play."""
    if any(all(other[p] for p in line) for line in games._LINES):
        return -1
    free = [p for p in range(9) if not own[p] and not other[p]]
    if not free:
        return 0
    return max(-solve(other, tuple(v or i == p for i, v in enumerate(own))) for p in free)


def constant(observation):
    return tf.zeros([observation.shape[0], 9]), tf.zeros([observation.shape[0]])


def test_tic_tac_toe_is_solved():
    noise, game, positions = np.random.default_rng(0), games.tic_tac_toe(), set()
    while len(positions) < 200:
        order, number = noise.permutation(9), noise.integers(0, 8)
        sides = [tuple(int(p) in order[k:number:2] for p in range(9)) for k in (0, 1)]
        own, other = sides if number % 2 == 0 else sides[::-1]
        if not any(all(side[p] for p in line) for line in games._LINES for side in (own, other)):
            positions.add((own, other))
    positions = sorted(positions)
    state = games.Marks(*(tf.constant([p[k] for p in positions]) for k in (0, 1)))

    @tf.function(jit_compile=True)
    def visits(state):
        tree = trees.plant(game, constant, state, 4000)
        return search(game, constant, policies.Puct(exploration=1.5), tree, 4000).visits[:, 0]

    for (own, other), row in zip(positions, visits(state).numpy()):
        move = int(np.argmax(row))
        after = -solve(other, tuple(v or i == move for i, v in enumerate(own)))
        assert after == solve(own, other), (own, other, row)


def wins(board, komi, plies):
    """Whether who is to move wins a game that is cut off after so many more moves."""
    if board.passes >= 2 or not plies:
        return (board.area() - komi) * board.turn > 0
    return any(not wins(played(board, move), komi, plies - 1) for move in (None, *sorted(board.legal())))


def played(board, move):
    after = copy.copy(board)
    after.positions, after.prisoners = list(board.positions), dict(board.prisoners)
    after.play(move)
    return after


def test_endgames_of_go_are_solved():
    """The last four moves of 5x5, where some win and some lose by an exhaustive search, with a network that knows
    nothing."""
    rules, noise, moves, winning = go.Rules(size=5, komi=0.5, max_moves=26), np.random.default_rng(2), [], []
    while len(moves) < 12:
        board, line = Reference(5), []
        for _ in range(22):
            point = sorted(board.legal())[noise.integers(len(board.legal()))]
            board.play(point)
            line.append(5 * point[0] + point[1])
        good = {25 if move is None else 5 * move[0] + move[1] for move in (None, *board.legal())
                if not wins(played(board, move), rules.komi, 3)}
        if 0 < len(good) <= len(board.legal()) // 3:
            moves.append(line)
            winning.append(good)
    state = go.new(rules, len(moves))
    for each in np.array(moves, np.int32).T:
        state = go.program(rules, "play")(state, each)
    game = games.go_game(rules)
    tree = tf.function(lambda state: search(game, constant_go, policies.Puct(), trees.plant(
        game, constant_go, state, 3001), 3000), jit_compile=True)(state)
    visits, total = tree.visits.numpy()[:, 0], tree.total.numpy()[:, 0]
    for own, values, good in zip(visits, total, winning):
        assert own.argmax() in good and values[own.argmax()] > 0


def constant_go(observation):
    return tf.zeros([observation.shape[0], 26]), tf.zeros([observation.shape[0]])


def test_sequential_halving():
    table = policies.schedule(4, 16)
    # 4 actions: two phases of 8 visits: each of four twice, then each of two four times
    assert table[4].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert table[1].tolist() == list(range(16))
    noise = tf.random.stateless_normal([4, 26], [0, 1])
    policy = policies.Gumbel(noise=noise, num_simulations=32, num_considered=8)
    tree = run(games.go_game(RULES), go_positions(4, 3), policy, 32)
    visits = np.sort(tree.visits.numpy()[:, 0])[:, ::-1]
    # 8 actions, three phases: each of eight once, each of four twice, each of two five times; the rest to the last two
    assert visits[:, :8].tolist() == [[11, 11, 3, 3, 1, 1, 1, 1]] * 4 and not visits[:, 8:].any()
    row = trees.rows(tree, tf.zeros([4], tf.int32))
    chosen, target = policy.choose(row).numpy(), policy.target(row).numpy()
    np.testing.assert_allclose(target.sum(1), 1, rtol=1e-5)
    assert (target[row.prior.numpy() < 0] == 0).all()
    assert [tree.visits[i, 0, a].numpy() for i, a in enumerate(chosen)] == visits[:, 0].tolist()


def test_the_value_is_that_of_the_improved_policy():
    """Danihelka et al. 2022, appendix D, in NumPy: mixed value for moves not tried, expectation under equation 11."""
    prior, visits = np.array([0.5, 0.3, 0.2, 0.0]), np.array([3.0, 1, 0, 0])
    total, value = np.array([0.9, -0.4, 0, 0]), 0.1
    row = trees.Rows(*(tf.constant(part[None], tf.float32) for part in (
        np.where(prior > 0, prior, -1), np.log(np.maximum(prior, 1e-9)), visits, total)), tf.constant([value]))
    q = np.array([0.3, -0.4, 0, 0])
    mean = (0.5 * 0.3 + 0.3 * -0.4) / 0.8
    q[2] = (value + 4 * mean) / 5
    improved = prior * np.exp((50 + 3) * (q + 1) / 2 - 53 / 2 - 8)
    policy = policies.Gumbel(noise=tf.zeros([1, 4]), num_simulations=4)
    np.testing.assert_allclose(policy.target(row)[0], improved / improved.sum(), atol=1e-6)
    np.testing.assert_allclose(policy.value(row)[0], improved @ q / improved.sum(), atol=1e-6)
    np.testing.assert_allclose(policies.Puct.value(row)[0], 0.5 / 4, atol=1e-6)


@pytest.mark.parametrize("moves", [2, pytest.param(20, marks=pytest.mark.conformance)])
def test_what_stays_of_a_tree_is_what_a_search_from_there_finds(moves):
    """The nodes under a child are those of a search from it with as many simulations."""
    game, state = games.go_game(RULES), go_positions(6, moves)
    tree = run(game, state, policies.Puct(), 120)
    action = tf.argmax(tree.visits[:, 0], axis=1, output_type=tf.int32)
    kept, there = tf.function(trees.replant, jit_compile=True)(tree, action)
    assert there.numpy().all()
    after = go.program(RULES, "play")(state, action)

    @tf.function(jit_compile=True)
    def search_alone(state, visits):
        network = hash_network(game.num_actions)
        return search(game, network, policies.Puct(), trees.plant(game, network, state, 120), visits)

    for index in range(6):
        visits = tf.cast(tree.visits[index, 0, action[index]], tf.int32) - 1
        alone = search_alone(tf.nest.map_structure(lambda part, i=index: part[i:i + 1], after), visits)
        assert kept.size[index] == alone.size[0]
        to_see = [(0, 0)]
        while to_see:
            a, b = to_see.pop()
            np.testing.assert_array_equal(kept.visits[index, a], alone.visits[0, b])
            np.testing.assert_allclose(kept.total[index, a], alone.total[0, b], atol=1e-5)
            for part, other in zip(tf.nest.flatten(kept.state), tf.nest.flatten(alone.state)):
                np.testing.assert_array_equal(part[index, a], other[0, b])
            for c, d in zip(kept.child[index, a].numpy(), alone.child[0, b].numpy()):
                assert (c < 0) == (d < 0)
                if c >= 0:
                    assert kept.parent[index, c] == a
                    to_see.append((int(c), int(d)))
    stayed, there = trees.replant(tree, tf.fill([6], -1))
    for a, b in zip(tf.nest.flatten(stayed), tf.nest.flatten(tree)):
        np.testing.assert_array_equal(a[:, :121] if len(a.shape) > 1 else a, b[:, :121] if len(b.shape) > 1 else b)


def test_a_root_alone_is_searched_as_a_new_one():
    game, state = games.go_game(RULES), go_positions(3, 3)

    @tf.function(jit_compile=True)
    def grown(*numbers):
        network = hash_network(game.num_actions)
        tree = trees.plant(game, network, state, 100)
        for number in numbers:
            tree = search(game, network, policies.Puct(), tree, number)
        return tree

    cut = trees.without_children(grown(40), tf.constant([True, False, True]))
    assert cut.size.numpy()[[0, 2]].tolist() == [1, 1] and cut.size[1] > 20
    again = tf.function(lambda tree: search(game, hash_network(game.num_actions), policies.Puct(), tree, 20),
                        jit_compile=True)(cut)
    for row, expected in enumerate((grown(20), grown(40, 20), grown(20))):
        np.testing.assert_array_equal(again.visits[row, 0], expected.visits[row, 0])
        np.testing.assert_allclose(again.total[row, 0], expected.total[row, 0], atol=1e-5)
        assert again.size[row] == expected.size[row]


def test_no_second_trace():
    game, network, traces = games.tic_tac_toe(), constant, []

    @tf.function(jit_compile=True)
    def program(state, simulations):
        traces.append(1)
        return search(game, network, policies.Puct(), trees.plant(game, network, state, 50), simulations).visits

    for number in (3, 10, 40):
        assert program(games.empty_marks(2), tf.constant(number)).numpy()[:, 0].sum() == 2 * number
    assert len(traces) == 1
