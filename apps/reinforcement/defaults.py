"""Tuned hyper-parameters, one literal table. A flag that the user gives wins over it.

A field that is -1 or empty is looked up for (algorithm, environment), then for the algorithm, then for all. Where they
come from: Stable-Baselines3's rl-zoo (Raffin 2020) for CartPole and Acrobot, changed where five seeds did better.
"""

import dataclasses

from apps.reinforcement import naming

_ALL = {"steps_per_epoch": 5000, "eval_episodes": 100, "parallel_environments": 16, "rollout": 32, "discount": 0.99,
        "learning_rate": 1e-3, "final_rate": 1.0, "batch_size": 256, "gradient_clip": 0.5, "units": "64,64",
        "activation": "tanh", "advantage_decay": 0.95, "entropy_weight": 0.0, "value_weight": 0.5, "passes": 10,
        "replay_capacity": 50_000, "warmup_steps": 1000, "updates": 16, "target_period": 128, "target_share": 1.0,
        "exploration": "epsilon_greedy", "exploration_start": 1.0, "exploration_end": 0.05,
        "exploration_steps": 10_000, "step_size": 0.1, "step_size_power": 0.0}

_TABLE = {"steps_per_epoch": 100, "parallel_environments": 8, "exploration_start": 0.1, "exploration_end": 0.1,
          "exploration_steps": 1}
_BANDIT = {"steps_per_epoch": 100, "parallel_environments": 500, "exploration_start": 0.1, "exploration_end": 0.1,
           "exploration_steps": 1}

_ALGORITHMS = {
    "ppo": {"learning_rate": 3e-4, "rollout": 128, "passes": 10, "entropy_weight": 0.001},
    "a2c": {"learning_rate": 1e-3, "rollout": 16, "advantage_decay": 0.95},
    "reinforce": {"learning_rate": 3e-3, "gradient_clip": 0.5},
    "dqn": {"learning_rate": 1e-3, "rollout": 4, "batch_size": 64, "gradient_clip": 10.0, "units": "128,128",
            "activation": "relu", "updates": 16},
    **dict.fromkeys(naming.TABULAR, _TABLE),
    **dict.fromkeys(naming.DYNAMIC_PROGRAMMING, {}),
    **dict.fromkeys(naming.BANDITS, _BANDIT),
}

_ENVIRONMENTS = {"campaign_mail": {"eval_episodes": 4000}, "advertising": {"eval_episodes": 4000}}

DEFAULTS = {
    ("ppo", "cart_pole"): {"parallel_environments": 8, "rollout": 32, "batch_size": 64, "discount": 0.98,
                           "advantage_decay": 0.8, "learning_rate": 1e-3, "final_rate": 0.0, "entropy_weight": 0.0,
                           "value_weight": 1.0},
    ("ppo", "acrobot"): {"steps_per_epoch": 10_000},
    ("ppo", "campaign_mail"): {"steps_per_epoch": 30_000, "parallel_environments": 64, "rollout": 52,
                               "batch_size": 832, "discount": 1.0},
    ("ppo", "traffic_light"): {"steps_per_epoch": 20_000, "parallel_environments": 32, "rollout": 64,
                               "discount": 0.98},
    ("a2c", "cart_pole"): {"learning_rate": 3e-3, "final_rate": 0.0, "steps_per_epoch": 10_000},
    ("reinforce", "cart_pole"): {"steps_per_epoch": 7500},
    ("dqn", "cart_pole"): {"steps_per_epoch": 7500, "rollout": 16, "updates": 64, "batch_size": 128,
                           "target_period": 1, "target_share": 0.01},
    ("q_learning", "gambler"): {"steps_per_epoch": 50_000, "parallel_environments": 1, "step_size": 1.0,
                                "step_size_power": 0.8},
}


def resolve(config, model=None):
    """The configuration with a value in every field that was left to this table.

    Args:
        config: `Config`.
        model: `finite.Model` of the environment, which brings its own discount; None: it has none.
    """
    problem = {} if model is None else {"discount": model.discount}
    table = {**_ALL, **problem, **_ALGORITHMS[config.algorithm], **_ENVIRONMENTS.get(config.env, {}),
             **DEFAULTS.get((config.algorithm, config.env), {})}
    return config.replace(**{name: value for name, value in table.items() if getattr(config, name) in (-1, "")})


def names():
    """The fields that the table fills."""
    return sorted({name for table in (_ALL, *_ALGORITHMS.values(), *_ENVIRONMENTS.values(),
                                        *DEFAULTS.values()) for name in table})


def differences(config, settings):
    """{field: value} that the table gave."""
    return {item.name: getattr(settings, item.name) for item in dataclasses.fields(config)
            if getattr(settings, item.name) != getattr(config, item.name)}
