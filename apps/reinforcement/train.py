"""Learns to act in an environment, by any algorithm.

    python -m apps.reinforcement.train --env=cart_pole --algorithm=ppo --workdir=runs/cart_pole
    python -m apps.reinforcement.train --env=cliff_walk --algorithm=q_learning --workdir=runs/cliff_walk

The same command with the same workdir resumes a run that was cut, and goes on exactly.
"""

from apps.common import config as config_lib
from apps.common import flagging, workdir
from apps.reinforcement import (
    bandit_runs,
    deep,
    defaults,
    evaluation,
    naming,
    policies,
    policy_files,
    reports,
    tables,
)
from apps.reinforcement.config import Config
from apps.reinforcement.environments import catalogue
from strategies import export

_PANELS = {"return": ("greedy_return", "average_return"), "length": ("greedy_length", "average_length"),
           "loss": ("loss", "policy_loss", "value_loss"), "error of the table": ("value_error",),
           "regret": ("regret",)}
_SHOWN = ("test_return", "best_return", "regret", "seconds")  # on TensorBoard's page of hyper-parameters


def train(config):
    """Runs or resumes a training.

    Args:
        config: `Config`.

    Returns:
        the flat dictionary written to `<workdir>/metrics.json`.

    Raises:
        ValueError: bad input, before anything is trained; an environment that breaks its specification, and a loss
            that is not finite, with the state saved.
        apps.common.fitting.Terminated: SIGTERM came; the state is saved.
    """
    # First, since environments make tensors. Collecting is compiled under every strategy, learning under one only.
    strategy = workdir.make_distribution(config if config.distribution == "single"
                                         else config.replace(jit_compile=False))
    environment = None if config.algorithm in naming.BANDITS else catalogue.make(config.env)
    settings = defaults.resolve(config, getattr(environment, "model", None))
    policy_files.formats_of(settings)
    check(settings, environment, strategy)
    if settings.explain:
        print(explanation(config, settings, environment))
        return {}
    run = workdir.open_run(settings, strategy)
    workdir.prepare_runtime(settings)
    run.begin()
    try:
        network, metrics, rows = trained(run, environment, strategy)
        return report(run, environment, network, metrics, rows)
    finally:
        run.end()  # who catches an error, in the same process, may resume at once


def check(settings, environment, strategy):
    """Raises ValueError for what an algorithm cannot do, before anything is trained."""
    if settings.algorithm in naming.BANDITS:
        bandit_runs.check(settings)
    elif settings.algorithm in naming.DEEP:
        deep.check(settings, environment, strategy)
    else:
        tables.check(settings, environment)


def trained(run, environment, strategy):
    """(network or None, {name: number}, rows of the history) of a run's algorithm."""
    algorithm = run.config.algorithm
    if algorithm in naming.DYNAMIC_PROGRAMMING:
        return *tables.compute(run.config, environment), []
    if algorithm in naming.DEEP:
        training = deep.DeepRun(run, environment, strategy)
    elif algorithm in naming.BANDITS:
        training = bandit_runs.BanditRun(run)
    else:
        training = tables.TableRun(run, environment)
    training.train()
    return *training.finish(), training.progress.rows


def report(run, environment, network, metrics, rows):
    """Writes the policy's files and what is to be read, and returns the metrics."""
    settings, sections, figures = run.config, {}, {}
    environment = environment or catalogue.ENVIRONMENTS.get(settings.env, lambda: None)()
    if network is not None:
        output = "policy" if "policy" in network.output_names else "q"
        policy = policies.greedy(lambda observation: network(observation)[output], environment.action_spec)
        files, of_files = policy_files.write(run, network, environment, policy)
        sections["Exported files"] = table = export.markdown_table(files)
        metrics |= of_files
        print(f"\n{table}\ngreedy return over {settings.eval_episodes} episodes: {metrics['test_return']:.2f} "
              f"({metrics['test_return_low']:.2f} to {metrics['test_return_high']:.2f})")
    if settings.algorithm in (*naming.TABULAR, *naming.DYNAMIC_PROGRAMMING):
        path = tables.greedy_path(environment, network, settings.seed)
        text = f"Greedy path: {' -> '.join(map(str, path))}"
        sections |= {"A greedy episode": text, "Table": tables.table_text(environment, network)}
        print(text)
    if settings.env in catalogue.BASELINES:
        beside = evaluation.of_baselines(environment, catalogue.BASELINES[settings.env](), settings.eval_episodes,
                                         settings.eval_steps, evaluation.TEST)
        text, figures["beside_fixed_policies"] = reports.beside(settings.algorithm, metrics, beside)
        metrics |= {f"return_{name.replace(' ', '_')}": float(values.mean()) for name, values in beside.items()}
        sections["Beside fixed policies, in the same episodes"] = text
        print(text)
    panels = {title: names for title, names in _PANELS.items() if rows and any(name in rows[-1] for name in names)}
    if panels:
        figures["curves"] = reports.curves(rows, "steps", panels)
    return reports.write_report(run, f"{settings.algorithm} on {settings.env}", metrics, sections, figures,
                                shown=[name for name in _SHOWN if name in metrics])


def explanation(config, settings, environment):
    """What a run would do, as text."""
    tuned = ", ".join(f"--{name}={value}" for name, value in defaults.differences(config, settings).items())
    shown = "a bandit" if environment is None else (
        f"observations {environment.observation_spec}, actions {environment.action_spec}, episodes of at most "
        f"{environment.max_steps} steps")
    lines = [f"{settings.env}: {shown}",
             f"{settings.algorithm}: {settings.epochs} epochs of {settings.steps_per_epoch}", f"tuned: {tuned}",
             "all: " + ", ".join(f"{name}={value}" for name, value in config_lib.to_dict(settings).items())]
    return "\n".join(lines)


def main(config):
    if not workdir.serves(config):
        train(config)


if __name__ == "__main__":
    flagging.run_app(Config, main)
