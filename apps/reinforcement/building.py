"""The agent that a configuration describes for an environment."""

import tf_keras as keras

from apps.reinforcement import networks
from apps.reinforcement.action_heads import head_of
from apps.reinforcement.agents import dqn, policy_gradient
from apps.reinforcement.agents.agent import compile_network
from apps.reinforcement.replay_buffer import ReplayBuffer

_EPSILON = 1e-5  # of Adam (Huang et al. 2022, "The 37 implementation details of PPO", 3)


def plays_episodes(settings):
    """Whether an update is made of whole episodes, not of a number of steps."""
    return settings.algorithm == "reinforce" and settings.objective == "discounted"


def total_steps(settings):
    """Steps of the environments in the whole run."""
    return settings.epochs * settings.steps_per_epoch


def agent_of(settings, environment):
    """An `Agent` with a new network.

    Args:
        settings: `Config` that `defaults.resolve` has completed.
        environment: with `observation_spec` and `action_spec`.

    Raises:
        ValueError: the algorithm does not choose such actions.
    """
    check_actions(settings, environment)
    network, optimizer = network_of(settings, environment)
    if settings.algorithm == "dqn":
        return dqn.make(network, optimizer, environment.action_spec, dqn_options(settings))
    return policy_gradient.make(network, optimizer, environment.action_spec, policy_gradient_options(settings))


def compiled_network(settings, environment):
    """The same network and optimizer, compiled without an agent: what a distribution strategy trains."""
    network, optimizer = network_of(settings, environment)
    objectives = dqn.objectives_of() if settings.algorithm == "dqn" else policy_gradient.objectives_of(
        network, head_of(environment.action_spec), policy_gradient_options(settings))
    compile_network(network, optimizer, *objectives)
    return network


def network_of(settings, environment):
    """(new network, new optimizer), not compiled."""
    keras.utils.set_random_seed(settings.seed)
    optimizer = keras.optimizers.Adam(settings.learning_rate, epsilon=_EPSILON,
                                      global_clipnorm=settings.gradient_clip or None)
    specs = environment.observation_spec, environment.action_spec
    common = {"units": tuple(int(part) for part in settings.units.split(",")), "activation": settings.activation,
              "seed": settings.seed}
    if settings.algorithm == "dqn":
        return networks.q_network(*specs, dueling=settings.dueling, **common), optimizer
    return networks.policy_network(*specs, value=settings.algorithm != "reinforce" or settings.baseline,
                                   deviation=settings.deviation, **common), optimizer


def dqn_options(settings):
    """`dqn.Options` of a configuration."""
    return dqn.Options(
        discount=settings.discount, double=settings.double, target_period=settings.target_period,
        target_share=settings.target_share, start=settings.exploration_start, end=settings.exploration_end,
        steps=settings.exploration_steps)


def policy_gradient_options(settings):
    """`policy_gradient.Options` of a configuration."""
    is_ppo = settings.algorithm == "ppo"
    return policy_gradient.Options(
        kind=settings.algorithm, discount=settings.discount, decay=settings.advantage_decay,
        clip=settings.clip if is_ppo else 0.0, value_clip=settings.value_clip if is_ppo else 0.0,
        value_weight=settings.value_weight, entropy_weight=settings.entropy_weight,
        normalize=settings.normalize_advantages, objective=settings.objective, exact=settings.exact_discount,
        passes=settings.passes if is_ppo else 1, minibatch=settings.batch_size if is_ppo else 0)


def minibatch_of(settings, environment):
    """(rows of a minibatch, minibatches of an iteration)."""
    if settings.algorithm == "dqn":
        return settings.batch_size, settings.updates
    steps = environment.max_steps if plays_episodes(settings) else settings.rollout
    rows = settings.parallel_environments * steps
    if settings.algorithm != "ppo":
        return rows, 1
    size = min(settings.batch_size or rows, rows)
    return size, settings.passes * (rows // size)


def replay_of(settings, row):
    """The `ReplayBuffer` of DQN for rows like a `Trajectory` [B, ...]; None of other algorithms."""
    if settings.algorithm != "dqn":
        return None
    return ReplayBuffer(row, max(settings.replay_capacity // settings.parallel_environments, 1),
                        num_steps=settings.n_step, alpha=settings.priority_exponent if settings.prioritized else 0.0,
                        longest=settings.rollout)


def check_actions(settings, environment):
    """Raises ValueError where an algorithm cannot choose the actions of an environment, or flags do not agree."""
    spec = environment.action_spec
    if settings.algorithm == "dqn" and not spec.is_discrete:
        raise ValueError(f"dqn values each of a number of actions, and those of {environment.name} are continuous, "
                         f"{spec.dtype.name} of shape {list(spec.shape)}. Use --algorithm=ppo, a2c or reinforce.")
    if settings.objective == "average" and settings.algorithm != "reinforce":
        raise ValueError(f"--objective=average is for reinforce; received --algorithm={settings.algorithm}.")
    if settings.exact_discount and not plays_episodes(settings):
        raise ValueError("--exact_discount weighs the steps of whole episodes: it goes with --algorithm=reinforce "
                         f"--objective=discounted; received {settings.algorithm} and {settings.objective}.")
    if plays_episodes(settings) and not environment.max_steps:
        raise ValueError(f"reinforce with the discounted objective plays whole episodes, and {environment.name} has no "
                         "limit of steps. Use --objective=average, or --algorithm=a2c.")
