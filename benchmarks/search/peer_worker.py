"""The peers' side of `benchmarks.search_benchmark`: mctx (search) over pgx (Go). It runs in an environment of its own:

    python3 -m venv peers && peers/bin/pip install jax jaxlib mctx pgx
"""

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pgx
import worker
from pgx.experimental import auto_reset

OPENING = 20


def environment(size, batch):
    """As of `usagi_worker`."""
    game = pgx.make(f"go_{size}x{size}")
    step, steps = auto_reset(game.step, game.init), max(10, min(2000, (40_000 if size == 9 else 5_000) // batch))

    def one(carry, key):
        state, seen, reward = carry
        noise_key, step_key = jax.random.split(key)
        noise = jax.random.uniform(noise_key, state.legal_action_mask.shape)
        action = jnp.argmax(jnp.where(state.legal_action_mask, noise, -1.0), axis=-1)
        state = jax.vmap(step)(state, action, jax.random.split(step_key, batch))
        return (state, seen ^ state.observation, reward + state.rewards[:, 0]), None

    @jax.jit
    def run(state, key):
        begin = state, jnp.zeros_like(state.observation), jnp.zeros(batch)
        return jax.lax.scan(one, begin, jax.random.split(key, steps))[0]

    current = [jax.jit(jax.vmap(game.init))(jax.random.split(jax.random.PRNGKey(0), batch)), 0]

    def once():
        current[0], *seen = run(current[0], jax.random.PRNGKey(current[1]))
        current[1] += 1
        jax.block_until_ready(seen)

    return once, batch * steps


def tower(blocks=6):
    """(weights, function) of the residual network with folded normalisation."""
    weights = {name: (kernel, np.zeros(kernel.shape[-1], "float32"))
               for name, kernel in worker.tower(blocks=blocks).items()}

    def apply(weights, x):
        def convolve(name, x):
            kernel, bias = weights[name]
            return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME",
                                                dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias

        def dense(name, x):
            kernel, bias = weights[name]
            return x @ kernel + bias

        x = jax.nn.relu(convolve("stem", x.astype(jnp.float32)))
        for block in range(1, blocks + 1):
            x = jax.nn.relu(x + convolve(f"block_{block}_2", jax.nn.relu(convolve(f"block_{block}_1", x))))
        policy = jax.nn.relu(convolve("policy", x)).reshape(x.shape[0], -1)
        value = jax.nn.relu(convolve("value", x)).reshape(x.shape[0], -1)
        hidden = jax.nn.relu(dense("value_hidden", value))
        return dense("policy_dense", policy), jnp.tanh(dense("value_dense", hidden))[:, 0]

    return weights, apply


def searcher(game, network, policy, simulations):
    """(weights, function of weights, states and a key -> mctx.PolicyOutput)."""
    weights, apply = tower() if network == "tower" else ({}, None)

    def evaluate(weights, state):
        if apply is None:
            batch = state.legal_action_mask.shape[0]
            return jnp.zeros([batch, game.num_actions]), jnp.zeros([batch])
        return apply(weights, state.observation)

    def recurrent(weights, key, action, state):
        mover = state.current_player
        state = jax.vmap(game.step)(state, action)
        logits, value = evaluate(weights, state)
        logits = jnp.where(state.legal_action_mask, logits - logits.max(-1, keepdims=True), jnp.finfo(jnp.float32).min)
        reward = state.rewards[jnp.arange(len(mover)), mover]
        value = jnp.where(state.terminated, 0.0, value)
        return mctx.RecurrentFnOutput(reward=reward, discount=jnp.where(state.terminated, 0.0, -1.0),
                                      prior_logits=logits, value=value), state

    function = mctx.gumbel_muzero_policy if policy == "gumbel" else mctx.muzero_policy

    def run(weights, state, key):
        logits, value = evaluate(weights, state)
        root = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=state)
        return function(weights, key, root, recurrent, simulations, invalid_actions=~state.legal_action_mask)

    return weights, run


def tree_search(network, batch, simulations, policy):
    """As of `usagi_worker`."""
    game = pgx.make("go_9x9")
    weights, run = searcher(game, network, policy, simulations)
    compiled = jax.jit(lambda weights, state, key: run(weights, state, key).action_weights)
    state, seeds = _after_random_moves(game, batch), [0]

    def once():
        seeds[0] += 1
        jax.block_until_ready(compiled(weights, state, jax.random.PRNGKey(seeds[0])))

    return once, batch * simulations


def self_play(batch, visits, moves=4):
    """A plain loop: search, move, and a new game where one has ended."""
    game = pgx.make("go_9x9")
    weights, run = searcher(game, "tower", "puct", visits)
    step = auto_reset(game.step, game.init)

    @jax.jit
    def play(weights, state, key):
        def one(state, key):
            search_key, step_key = jax.random.split(key)
            action = run(weights, state, search_key).action
            return jax.vmap(step)(state, action, jax.random.split(step_key, batch)), None

        return jax.lax.scan(one, state, jax.random.split(key, moves))[0]

    current = [jax.jit(jax.vmap(game.init))(jax.random.split(jax.random.PRNGKey(0), batch)), 0]

    def once():
        current[0] = jax.block_until_ready(play(weights, current[0], jax.random.PRNGKey(current[1])))
        current[1] += 1

    return once, batch * moves


def _after_random_moves(game, batch):
    def one(state, key):
        logits = jnp.where(state.legal_action_mask.at[:, -1].set(False), 0.0, -1e9)
        return jax.vmap(game.step)(state, jax.random.categorical(key, logits)), None

    state = jax.jit(jax.vmap(game.init))(jax.random.split(jax.random.PRNGKey(0), batch))
    return jax.jit(lambda state: jax.lax.scan(one, state, jax.random.split(jax.random.PRNGKey(7), OPENING))[0])(state)


if __name__ == "__main__":
    worker.serve({"environment": environment, "search": tree_search, "self_play": self_play})
