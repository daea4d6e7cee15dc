"""This suite's side of `benchmarks.search_benchmark`."""

import functools

import numpy as np
import tensorflow as tf

from apps.alphago import games, networks, selfplay
from apps.alphago.go import features
from apps.alphago.go import rules as go
from apps.alphago.search import policies
from apps.alphago.search import tree as trees
from apps.alphago.search.simulate import search
from benchmarks.search import worker

OPENING = 20  # random moves before a search, so that boards are not empty
_STRUCTURE = networks.Structure(blocks=6, filters=64, hidden=64)


def environment(size, batch):
    """Random legal moves, with mask, observation and what a game was worth; games that end begin anew."""
    result = games.go_game(go.Rules(size=size)).result
    rules, steps = go.Rules(size=size), max(10, min(2000, (40_000 if size == 9 else 5_000) // batch))

    @tf.function(jit_compile=True)
    def run(state, seed):
        def step(number, state, seen, reward):
            mask, planes = go.legal(rules, state), features.zero_planes(rules, state)
            noise = tf.random.stateless_uniform(mask.shape, tf.stack([seed, number]))
            state = go.play(rules, state, tf.argmax(tf.where(mask, noise, -1.0), axis=1, output_type=tf.int32))
            over, value = result(state)
            state = tf.nest.map_structure(
                lambda old, new: tf.where(tf.reshape(over, [-1] + [1] * (len(old.shape) - 1)), new, old), state,
                go.new(rules, batch))
            # The observation and the value have to be made: what nobody looks at, the compiler leaves out.
            return number + 1, state, seen ^ planes, reward + value

        seen = tf.zeros([batch, size, size, features.NUM_ZERO_PLANES], tf.bool)
        return tf.while_loop(lambda number, *_: number < steps, step, (0, state, seen, tf.zeros([batch])))[1:]

    state = [go.new(rules, batch), 0]

    def once():
        state[0], seen, reward = run(state[0], tf.constant(state[1]))
        state[1] += 1
        seen.numpy(), reward.numpy()

    return once, batch * steps


def network_of(name):
    """An evaluator with variables, those of the peers, or a network that gives the same numbers for all positions."""
    if name == "tower":
        model = networks.build(_STRUCTURE)
        layers = {layer.name: layer for layer in model.layers}
        for name, kernel in worker.tower().items():
            (layers.get(f"{name}_conv") or layers[name]).kernel.assign(kernel)
        return networks.Evaluator(model)
    return lambda planes: (tf.zeros([planes.shape[0], 82]), tf.zeros([planes.shape[0]]))


def tree_search(network, batch, simulations, policy):
    """Searches from positions after random moves."""
    rules = go.Rules(size=9)
    game, evaluate = games.go_game(rules), network_of(network)

    @tf.function(jit_compile=True)
    def run(state, seed):
        tree = trees.plant(game, evaluate, state, simulations + 1)
        noise = tf.random.stateless_uniform([batch, game.num_actions], tf.stack([seed, 0]), minval=1e-6)
        if policy == "gumbel":
            rule = policies.Gumbel(noise=-tf.math.log(-tf.math.log(noise)), num_simulations=simulations)
        else:
            rule = policies.Puct(noise=noise / tf.reduce_sum(noise, axis=1, keepdims=True))
        return search(game, evaluate, rule, tree, simulations).visits[:, 0]

    state, seeds = _after_random_moves(rules, batch), [0]

    def once():
        seeds[0] += 1
        run(state, tf.constant(seeds[0])).numpy()

    return once, batch * simulations


def evaluations(batch):
    """The network alone."""
    evaluate, count = network_of("tower"), 32

    @tf.function(jit_compile=True)
    def run(planes):
        def step(number, total):
            logits, value = evaluate(planes + total * 0)  # else the compiler takes it out of the loop
            return number + 1, total + tf.reduce_sum(logits) * 0 + tf.reduce_sum(value)

        return tf.while_loop(lambda number, total: number < count, step, (0, tf.constant(0.0)))[1]

    planes = tf.constant(np.random.default_rng(0).integers(0, 2, [batch, 9, 9, 17]), tf.float32)
    return lambda: run(planes).numpy() and None, batch * count


def self_play(batch, visits):
    """Moves of games of the network against itself, each after `visits` visits of the root, those kept included."""
    rules = go.Rules(size=9)
    settings = selfplay.Settings(games=batch, simulations=visits, fast_simulations=visits, full_share=1.0, interval=4)
    begin, advance = (tf.function(functools.partial(function, games.go_game(rules), network_of("tower"), settings,
                                                    functools.partial(go.new, rules)), jit_compile=True)
                      for function in (selfplay.begin, selfplay.advance))
    seed, noise = tf.constant(0, tf.int64), np.random.default_rng(0)
    play = [begin(seed)]

    def once():
        gammas = tf.constant(noise.gamma(settings.alpha, size=[16, batch, 82]), tf.float32)
        play[0], moves = advance(play[0], gammas, seed)
        return int(np.sum(moves.action.numpy() != selfplay.NOTHING))

    return once, 0


def _after_random_moves(rules, batch):
    state, noise = go.new(rules, batch), np.random.default_rng(7)
    for _ in range(OPENING):
        masks = go.program(rules, "legal")(state).numpy()[:, :-1]
        state = go.program(rules, "play")(state, np.array([noise.choice(np.flatnonzero(m)) for m in masks], np.int32))
    return state


if __name__ == "__main__":
    worker.serve({"environment": environment, "search": tree_search, "network": evaluations, "self_play": self_play})
