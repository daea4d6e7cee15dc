"""Learns to act in an environment, by any algorithm.

    python -m apps.reinforcement.train --env=cart_pole --algorithm=ppo --workdir=runs/cart_pole
    python -m apps.reinforcement.train --env=cliff_walk --algorithm=q_learning --workdir=runs/cliff_walk

The same command with the same workdir resumes a run that was cut, and goes on exactly.
"""

from apps.common import config as config_lib
from apps.common import flagging, workdir
from apps.reinforcement import deep, defaults, evaluation, naming, policies, policy_files, reports, tables
from apps.reinforcement.config import Config
from apps.reinforcement.environments import catalogue
from strategies import export

_PANELS = {"return": ("greedy_return", "average_return"), "length": ("greedy_length", "average_length"),
           "loss": ("loss", "policy_loss", "value_loss"), "error of the table": ("value_error",)}


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
    environment = catalogue.make(config.env)
    settings = defaults.resolve(config, environment)
    policy_files.formats_of(settings)
    is_deep = settings.algorithm in naming.DEEP
    # Collecting is compiled under every strategy; only some can compile the training step.
    strategy = workdir.make_distribution(settings if settings.distribution == "single"
                                         else settings.replace(jit_compile=False))
    if is_deep:
        deep.check(settings, environment, strategy)
    else:
        tables.check(settings, environment)
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


def trained(run, environment, strategy):
    """(network, {name: number}, rows of the history) of a run's algorithm."""
    if run.config.algorithm in naming.DYNAMIC_PROGRAMMING:
        return *tables.compute(run.config, environment), []
    training = deep.DeepRun(run, environment, strategy) if run.config.algorithm in naming.DEEP \
        else tables.TableRun(run, environment)
    training.train()
    return *training.finish(), training.progress.rows


def report(run, environment, network, metrics, rows):
    """Writes the policy's files and what is to be read, and returns the metrics."""
    settings = run.config
    output = "policy" if "policy" in network.output_names else "q"
    policy = policies.greedy(lambda observation: network(observation)[output], environment.action_spec)
    files, of_files = policy_files.write(run, network, environment, policy)
    table = export.markdown_table(files)
    sections = {"Exported files": table}
    if settings.algorithm not in naming.DEEP:
        path = tables.greedy_path(environment, network, settings.seed)
        text = f"Greedy path: {' -> '.join(map(str, path))}"
        sections |= {"A greedy episode": text, "Table": tables.table_text(environment, network)}
        print(text)
    figures = {}
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
    print(f"\n{table}")
    print(f"greedy return over {settings.eval_episodes} episodes: {metrics['test_return']:.2f} "
          f"({metrics['test_return_low']:.2f} to {metrics['test_return_high']:.2f})")
    return reports.write_report(run, f"{settings.algorithm} on {settings.env}", metrics | of_files, sections, figures,
                                shown=("test_return", "best_return", "seconds"))


def explanation(config, settings, environment):
    """What a run would do, as text."""
    tuned = ", ".join(f"--{name}={value}" for name, value in defaults.differences(config, settings).items())
    lines = [f"{environment.name}: observations {environment.observation_spec}, actions {environment.action_spec}, "
             f"episodes of at most {environment.max_steps} steps",
             f"{settings.algorithm}: {settings.epochs} epochs of {settings.steps_per_epoch}",
             f"tuned: {tuned}",
             "all: " + ", ".join(f"{name}={value}" for name, value in config_lib.to_dict(settings).items())]
    return "\n".join(lines)


def main(config):
    if not workdir.serves(config):
        train(config)


if __name__ == "__main__":
    flagging.run_app(Config, main)
