import time
import types

import pytest
import tensorflow as tf
import tf_keras as keras

from apps.common import fitting, splits, workdir
from apps.image_classification.config import Config
from strategies.distribution.peers import Alone
from strategies.distribution.single import Single


def stream(num_examples=12, batch_size=4):
    def fetch(index, noise):
        x = tf.one_hot(index, num_examples)
        return x, tf.one_hot(index % 2, 2)
    return splits.training_stream(num_examples, batch_size, 0, fetch)


def compiled(total_steps):
    model = keras.Sequential([keras.layers.Dense(2, input_shape=(12,), kernel_initializer="zeros", name="d")])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def run_of(tmp_path, **options):
    return workdir.Run(Config(workdir=str(tmp_path / "run"), **options))


def keeper(tmp_path, values, mode="max", **options):
    run = run_of(tmp_path, **options)
    run.resolved["total_steps"] = 100
    progress = fitting.Progress()
    callback = fitting.Keeper(run, progress, 3, "val_accuracy", mode)
    callback.set_model(compiled(1))
    stopped = []
    callback.model.stop_training = False
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"val_accuracy": value})
        stopped.append(callback.model.stop_training)
    return progress, stopped


def test_steps_follow_from_epochs(tmp_path):
    assert fitting.total_steps(run_of(tmp_path, epochs=5), compiled, Single(), stream(), None) == 15


def test_time_budget_is_turned_into_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "measure_speed", lambda *a: (0.1, 0.6, 10.0))
    run = run_of(tmp_path, time_budget=1.0)
    steps = fitting.total_steps(run, compiled, Single(), stream(), None)
    assert steps == pytest.approx((60 - 10) / (0.1 + 0.6 / 3), abs=1)  # a third of a validation falls to each step
    assert run.resolved["total_steps"] == steps
    monkeypatch.setattr(fitting, "measure_speed", None)  # fixed now: not measured again
    assert fitting.total_steps(run, compiled, Single(), stream(), None) == steps


def test_time_budget_that_does_not_suffice(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "measure_speed", lambda *a: (0.5, 3.0, 100.0))
    with pytest.raises(ValueError, match=r"--time_budget=1 minutes leaves no time to train: a step takes 0.500 s"):
        fitting.total_steps(run_of(tmp_path, time_budget=1.0), compiled, Single(), stream(), None)


def test_measured_speed_is_positive_and_uses_a_model_of_its_own():
    made = []

    def make(total_steps):
        made.append(compiled(total_steps))
        return made[-1]

    step, evaluation, startup = fitting.measure_speed(make, Single(), stream(), splits.evaluation_stream(
        8, 4, lambda index: (tf.one_hot(index, 12), tf.one_hot(index % 2, 2))))
    assert step > 0 and evaluation > 0 and startup > 0
    assert len(made) == 1 and int(made[0].optimizer.iterations.numpy()) == 55


@pytest.mark.parametrize("number", [1, 30])
def test_the_time_of_an_evaluation_is_that_of_its_beginning_and_its_batches(number):
    """Data that take 0.5 s to begin, and of which a pass of at most ten batches is looked at."""
    passes = []

    def rows():
        passes.append(0)
        time.sleep(0.5)
        for _ in range(number):
            passes[-1] += 1
            yield tf.zeros([4, 12]), tf.one_hot([0, 0, 0, 0], 2)

    validation = splits.Stream(4 * number, 4, lambda *args: tf.data.Dataset.from_generator(
        rows, output_signature=(tf.TensorSpec([4, 12]), tf.TensorSpec([4, 2]))))
    _, evaluation, _ = fitting.measure_speed(compiled, Single(), stream(), validation)
    assert evaluation >= 0.5 and len(passes) == 2 and passes[-1] <= 12


@pytest.mark.parametrize("mode, values, best", [("max", [0.1, 0.5, 0.4, 0.5], 3), ("min", [0.3, 0.2, 0.4, 0.5], 1)])
def test_best_epoch_is_the_last_of_equals(tmp_path, mode, values, best):
    progress, _ = keeper(tmp_path, values, mode)
    assert progress.best_epoch == best and progress.best_value == values[best]


def test_early_stopping_counts_epochs_without_gain(tmp_path):
    progress, stopped = keeper(tmp_path, [0.1, 0.5, 0.5, 0.4, 0.5], early_stopping=3)
    assert stopped == [False, False, False, False, True]  # equal is no gain
    assert progress.stopped_early and progress.best_epoch == 4


def test_history_replaces_rows_of_repeated_epochs(tmp_path):
    history = fitting.History(tmp_path / "history.csv")
    history.set_model(compiled(1))
    for epoch, loss in ((0, 3.0), (1, 2.0), (2, 1.0), (1, 2.5)):
        history.on_epoch_end(epoch, {"loss": loss})
    rows = fitting.read_history(tmp_path / "history.csv")
    assert [(row["epoch"], row["loss"]) for row in rows] == [(0, 3.0), (1, 2.5)]
    assert rows[0]["learning_rate"] == pytest.approx(0.01)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_stops(tmp_path, loss):
    run = types.SimpleNamespace(checkpoints=types.SimpleNamespace(steps=lambda: [7]))
    callback = fitting.StopAtNaN(run)
    callback.on_train_batch_end(0, {"loss": 1.0})
    with pytest.raises(fitting.TrainingDiverged, match="at batch 3 of the epoch; the checkpoint of step 7 is kept"):
        callback.on_train_batch_end(3, {"loss": loss})
    with pytest.raises(fitting.TrainingDiverged, match="at the end of epoch 2"):
        fitting.StopOnNaN(run).on_epoch_end(1, {"loss": loss})


def test_who_is_asked_to_end_does_at_the_end_of_the_shortest_epochs_too(tmp_path):
    run = run_of(tmp_path)
    run.resolved["total_steps"] = 18
    keeper = fitting.StepKeeper(run, fitting.Progress(), 2, "val_accuracy", "max", 0, Alone())
    keeper.set_model(compiled(1))
    keeper._asked_to_end = True
    for batch in range(2):
        keeper.on_train_batch_end(batch)
    with pytest.raises(fitting.Terminated, match="saved at step 2"):
        keeper.on_epoch_end(0, {"val_accuracy": 0.5})
    assert run.checkpoints.steps() == [2]


def test_rounds_are_looked_at_between_them(tmp_path):
    run, seen = run_of(tmp_path, checkpoint_seconds=0.0), []
    run.resolved["total_steps"] = 100
    keeper = fitting.RoundKeeper(run, fitting.Progress(), 50, "val_accuracy", "max", 0,
                                 [types.SimpleNamespace(poll=seen.append)])
    keeper.set_model(compiled(1))
    keeper.set_params({"steps": 5})
    keeper.model.optimizer.iterations.assign(10)
    keeper.on_train_batch_end(0)
    assert seen == [10] and run.checkpoints.steps() == []
    keeper._asked_to_end = True
    keeper.model.optimizer.iterations.assign(20)
    with pytest.raises(fitting.Terminated, match="saved at step 20"):
        keeper.on_train_batch_end(1)
    assert seen == [10, 20] and run.checkpoints.steps() == [20]
    keeper.model.optimizer.iterations.assign(50)
    keeper.on_train_batch_end(4)  # the last of its epoch, which has yet to be evaluated
    assert run.checkpoints.steps() == [20]
    with pytest.raises(fitting.Terminated, match="saved at step 50"):
        keeper.on_epoch_end(0, {"val_accuracy": 0.5})
    assert run.checkpoints.steps() == [20, 50] and keeper.progress.best_epoch == 0


def test_weights_that_are_not_finite_are_training_that_diverged(tmp_path):
    run = run_of(tmp_path)
    run.resolved["total_steps"] = 18
    keeper = fitting.Keeper(run, fitting.Progress(), 2, "val_accuracy", "max")
    keeper.set_model(compiled(1))
    keeper.model.get_layer("d").kernel.assign(tf.fill([12, 2], float("nan")))
    with pytest.raises(fitting.TrainingDiverged, match="is not finite; .* was not written. Lower --learning_rate"):
        keeper.on_epoch_end(0, {})
    with pytest.raises(fitting.TrainingDiverged, match="best.npz was not written. Lower --learning_rate"):
        keeper.on_epoch_end(0, {"val_accuracy": 0.1})
