"""The greedy policy of a network as files: exported, loaded again, compared, and played."""

import json
import pathlib

import numpy as np
import tensorflow as tf

from apps.common import config as config_lib
from apps.reinforcement import evaluation, networks
from apps.reinforcement.environments.environment import Environment
from strategies import export

SEED = 2_000_003  # of the episodes that files play
_BATCH = 8  # environments in Python that give observations


def formats_of(config):
    """The formats of `--export`, as a list. Raises ValueError for an unknown one."""
    names = [] if config.export == "none" else [name.strip() for name in config.export.split(",")]
    return export.check_formats(names)


def write(run, network, environment, policy):
    """Writes the acting part of a network in all formats of `--export`, and `report.csv`.

    Returns:
        (rows of the report, {"equal_actions_<format>": share, "return_<format>": mean return}).
    """
    config, acting = run.config, networks.acting_network(network)
    samples = observations_of(environment, policy, config)
    expected = evaluation.actions_of(environment.action_spec, export.predict(acting, samples))
    formats, trial = formats_of(config), None
    if formats:
        trial = evaluation.FileTrial(environment, config.eval_episodes, config.eval_steps, SEED)
    shares = []

    def evaluate(predict):
        actions = evaluation.actions_of(environment.action_spec, predict(samples))
        shares.append(share_of_equal(environment.action_spec, actions, expected))
        return shares[-1] if trial is None else trial.returns(predict).mean()

    rows = export.export_all(acting, run.path, samples=samples, formats=["keras", *formats], representative=samples,
                             evaluate=evaluate, metric="return" if trial else "equal_actions",
                             variant=config.algorithm)
    export.write_csv(rows, run.path / "report.csv")
    found = {f"equal_actions_{row['format']}": share for row, share in zip(rows, shares, strict=True)}
    return rows, found | {f"return_{row['format']}": row["value"] for row in rows if trial is not None}


def environment_near(path, flag):
    """The environment of the run that a policy's file belongs to, from the config.json near it.

    Raises:
        ValueError: there is none.
    """
    path = pathlib.Path(path).absolute()
    for folder in (path, *path.parents[:2]):
        file = folder / config_lib.CONFIG_FILE
        if file.is_file():
            return json.loads(file.read_text())["config"]["env"]
    raise ValueError(f"The environment of --{flag}={path} is not known: there is no config.json near it. Give --env.")


def check_fits(predict, environment):
    """Raises ValueError unless a policy takes what the environment shows and answers with its actions."""
    spec, actions = environment.observation_spec, environment.action_spec
    sample = np.zeros([1, *spec.shape], spec.dtype.as_numpy_dtype)
    wanted = actions.num_values if actions.is_discrete else int(np.prod(actions.shape))
    try:
        received = predict(sample).shape
    except (ValueError, TypeError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"The policy does not take the observations of {environment.name}, {spec.dtype.name} of shape "
                         f"{list(spec.shape)}: {reason} Give the --env that it has learned.") from None
    if received != (1, wanted):
        raise ValueError(f"The policy answers with shape {list(received[1:])}, and {environment.name} has {wanted} "
                         "actions or numbers of an action. Give the --env that it has learned.")


def share_of_equal(action_spec, actions, expected):
    """Share of actions that are the same; of continuous ones, within a thousandth of the largest."""
    if action_spec.is_discrete:
        return float(np.mean(actions == expected))
    tolerance = 1e-3 * max(float(np.abs(expected).max()), 1e-9)
    return float(np.mean(np.abs(actions - expected) <= tolerance))


def observations_of(environment, policy, config):
    """Observations of the policy's episodes, [N, ...]."""
    if isinstance(environment, Environment):
        return evaluation.observations(environment, policy, config.num_representative, config.seed)
    batch, seen = environment.open(_BATCH, evaluation.python_seed(config.seed)), []
    time_step, act = batch.reset(), tf.function(policy.action, autograph=False)
    while _BATCH * len(seen) < config.num_representative:
        seen.append(time_step.observation.numpy())
        time_step = batch.step(act(time_step, ()).action)
    batch.close()
    return np.concatenate(seen)[:config.num_representative]
