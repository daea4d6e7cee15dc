"""Trains a network to act as a trained policy does, and makes it smaller (policy distillation, Rusu et al. 2016).

    python -m apps.reinforcement.distill --teacher=runs/cart_pole --compression=prune,quantize --workdir=runs/smaller
    python -m apps.reinforcement.distill --teacher=runs/cart_pole --units=8 --workdir=runs/student

The first begins with the teacher's own network, the second with a new and smaller one. All distributions, compressions
and exports of the suite apply; what comes out plays.
"""

import functools

import tf_keras as keras

from apps.common import compressing, flagging, training
from apps.reinforcement import evaluation, imitation, policies, policy_files, reports
from apps.reinforcement.config import DistillConfig
from layers.counting import count_nonzero, count_parameters
from strategies import export


def train(config, callbacks=()):
    """Runs the whole story of one configuration; a second call with the same workdir resumes it.

    Args:
        config: `DistillConfig`.
        callbacks: further Keras callbacks.

    Returns:
        the flat dictionary written to `<workdir>/metrics.json`; an empty one in processes that leave that to the chief.

    Raises:
        ValueError: bad input; raised before anything is trained or written.
        apps.common.fitting.TrainingDiverged: the loss is not finite.
    """
    config = imitation.resolve(config)
    return training.run_whole(config, lambda: make_task(config), functools.partial(evaluate, config=config),
                              export_and_report, callbacks)


def make_task(config):
    """What `apps.common.training` needs to know of this application; `config` as of `imitation.resolve`."""
    splits = imitation.load(config)
    action_spec = splits.spec.environment.action_spec
    if config.distill_teacher and not action_spec.is_discrete:
        raise ValueError(f"--distill_teacher={config.distill_teacher} teaches by logits; the actions of {config.env} "
                         "are numbers. Leave it out: --teacher is imitated as it is.")
    loss, metrics = _loss_and_metrics(action_spec)

    def compile_model(model, optimizer, config):
        model.compile(optimizer=optimizer, loss=loss, metrics=metrics(), jit_compile=config.jit_compile)

    return training.Task(splits=splits, build=lambda config: imitation.student_of(config, splits.spec),
                         compile=compile_model, loss=loss, representative=splits.representative)


def evaluate(model, splits, config):
    """Loss and agreement on observations of the test part, and the return of the greedy policy beside the teacher's, in
    the same episodes."""
    environment = splits.spec.environment
    loss, of_targets = _loss_and_metrics(environment.action_spec)
    model.compile(loss=loss, metrics=of_targets())
    metrics = {}
    for name, split in (("test", splits.test), ("validation", splits.validation)):
        if split is not None:
            metrics |= {f"{name}_{key}": value
                        for key, value in model.evaluate(split(), verbose=0, return_dict=True).items()}
    returns, lengths = _returns(model, environment, config)
    low, high = reports.interval(returns)
    return metrics | {
        "test_return": float(returns.mean()), "test_return_low": low, "test_return_high": high,
        "test_length": float(lengths.mean()),
        "teacher_return": float(_returns(splits.spec.teacher, environment, config)[0].mean()),
        "num_parameters": count_parameters(model), "num_nonzero": count_nonzero(model),
        "macs": export.count_macs(model), "num_training": splits.train.num_examples,
        "num_test": splits.test.num_examples}


def export_and_report(run, model, splits, metrics):
    """Writes `metrics.json`, the exported files, plots and `report.md`, and prints the table; files are scored by the
    return of their greedy policy."""
    config, environment = run.config, splits.spec.environment
    trial = evaluation.FileTrial(environment, config.eval_episodes, config.eval_steps, policy_files.SEED)
    samples = splits.representative(config.num_representative)

    def score(predict):
        return float(trial.returns(predict).mean())

    rows = export.export_all(model, run.path, formats=["keras", *training.export_formats(config)], samples=samples,
                             variant=training.variant_of(config), evaluate=score, metric="return",
                             representative=samples)
    rows += compressing.packed_rows(run, model, rows, samples, lambda unpacked: score(
        functools.partial(export.predict, unpacked)))
    training.report(run, f"A student of {config.teacher} on {config.env}", metrics, rows, figures={}, sections={})
    print(f"greedy return over {config.eval_episodes} episodes: {metrics['test_return']:.2f} "
          f"({metrics['test_return_low']:.2f} to {metrics['test_return_high']:.2f}); the teacher's "
          f"{metrics['teacher_return']:.2f}")


def _returns(network, environment, config):
    """(returns [E], lengths [E]) of the greedy policy of an acting network."""
    policy = policies.greedy(network, environment.action_spec)
    return evaluation.Evaluator(environment, policy, config.eval_episodes, config.eval_steps)(evaluation.TEST)


def _loss_and_metrics(action_spec):
    """(loss, () -> metrics): against probabilities, how often the same action is likeliest; against means, how far."""
    if action_spec.is_discrete:
        return (keras.losses.CategoricalCrossentropy(from_logits=True),
                lambda: [keras.metrics.CategoricalAccuracy(name="agreement")])
    return keras.losses.MeanSquaredError(), lambda: [keras.metrics.MeanAbsoluteError(name="distance")]


def main(config):
    training.run_app(config, train, lambda: make_task(imitation.resolve(config)))


if __name__ == "__main__":
    flagging.run_app(DistillConfig, main)
