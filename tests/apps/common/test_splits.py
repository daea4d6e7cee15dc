import numpy as np
import pytest
import tensorflow as tf

from apps.common import splits


def stream(num_examples=10, batch_size=3, seed=0):
    return splits.training_stream(num_examples, batch_size, seed, lambda index, noise: (index, noise), num_noise=2)


def first(dataset, count):
    return [tuple(np.asarray(part) for part in batch) for batch in dataset.take(count)]


def test_each_epoch_shows_each_example_at_most_once_and_in_another_order():
    batches = [index for index, _ in first(stream(12, 3)(), 8)]
    epochs = np.concatenate(batches).reshape(2, 12)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), [np.arange(12)] * 2)
    assert (epochs[0] != epochs[1]).any()


@pytest.mark.parametrize("start", [1, 2, 3, 4, 7])
def test_starting_at_a_step_equals_skipping_to_it(start):
    whole, part = first(stream()(), 9), first(stream()(None, start), 9 - start)
    for (index, noise), (late_index, late_noise) in zip(whole[start:], part):
        np.testing.assert_array_equal(index, late_index)
        np.testing.assert_array_equal(noise, late_noise)


def test_workers_together_see_what_one_sees():
    contexts = [tf.distribute.InputContext(3, worker, 3) for worker in range(3)]
    whole, parts = first(stream(20, 6)(), 5), [first(stream(20, 6)(context), 5) for context in contexts]
    for step, (index, noise) in enumerate(whole):
        np.testing.assert_array_equal(index, np.concatenate([part[step][0] for part in parts]))
        np.testing.assert_array_equal(noise, np.concatenate([part[step][1] for part in parts]))


def test_noise_differs_between_rows_steps_epochs_and_seeds():
    noise = np.concatenate([noise for _, noise in first(stream()(), 9)])
    other = np.concatenate([noise for _, noise in first(stream(seed=1)(), 9)])
    assert len(np.unique(noise)) == noise.size
    assert not np.isin(other, noise).any()
    assert 0 <= noise.min() and noise.max() < 1


def test_evaluation_shows_all_examples_in_order():
    evaluation = splits.evaluation_stream(10, 4, lambda index: index)
    assert [batch.numpy().tolist() for batch in evaluation()] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert evaluation.steps_per_epoch == 3 and stream().steps_per_epoch == 3
    shares = [[batch.numpy().tolist() for batch in evaluation(tf.distribute.InputContext(2, i, 2))] for i in range(2)]
    assert shares == [[[0, 1], [4, 5], [8]], [[2, 3], [6, 7], [9]]]


def test_workers_share_the_last_batch_of_an_evaluation_too():
    evaluation = splits.evaluation_stream(9, 4, lambda index: index)
    shares = [[batch.numpy().tolist() for batch in evaluation(tf.distribute.InputContext(2, i, 2))] for i in range(2)]
    assert shares == [[[0, 1], [4, 5], []], [[2, 3], [6, 7], [8]]]


def test_workers_that_take_turns_see_what_one_sees():
    alone = first(stream()(start_step=2), 6)
    for index in range(2):
        for (rows, noise), (expected, expected_noise) in zip(first(stream()(None, 2, (index, 2)), 3), alone[index::2]):
            np.testing.assert_array_equal(rows, expected)
            np.testing.assert_array_equal(noise, expected_noise)


@pytest.mark.parametrize("batch_size", [0, 11])
def test_batch_must_fit_the_data(batch_size):
    with pytest.raises(ValueError, match=f"--batch_size must be between 1 and .* 10; received {batch_size}"):
        stream(10, batch_size)


def test_batch_must_split_over_workers():
    with pytest.raises(ValueError, match="--batch_size must be divisible by the 2 workers; received 3"):
        stream()(tf.distribute.InputContext(2, 0, 2))


def test_no_thread_tunes_the_pipeline():
    """An iterator that is dropped would wait for it, up to as long as it has lived."""
    own = splits.Stream(10, 5, lambda input_context, start_step, turn: tf.data.Dataset.range(2), is_training=True)
    for dataset in (own(), stream()(), splits.evaluation_stream(10, 3, lambda index: (index, index))()):
        assert dataset.options().autotune.enabled is False
