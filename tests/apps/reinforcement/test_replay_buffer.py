"""The replay buffer against lists in Python."""

import numpy as np
import pytest
import tensorflow as tf

from apps.reinforcement.replay_buffer import ReplayBuffer
from apps.reinforcement.trajectories import Trajectory

BATCH = 2


def steps(first, number, length=5):
    """Rows [B, T] whose observation says environment and time, of episodes of `length` steps and a boundary."""
    time = np.arange(first, first + number)[None] + np.zeros([BATCH, 1], int)
    place = (time + np.arange(BATCH)[:, None]) % (length + 1)
    kind = np.where(place == 0, 0, np.where(place == length, 2, 1)).astype(np.int32)
    following = np.roll(np.array([0] + [1] * (length - 1) + [2]), -1)[place].astype(np.int32)
    observation = np.stack([np.arange(BATCH)[:, None] + 0 * time, time], axis=-1).astype(np.float32)
    return Trajectory(tf.constant(kind), tf.constant(observation), tf.constant(time.astype(np.int32)), (),
                      tf.constant(following), tf.constant(time.astype(np.float32)),
                      tf.constant(np.where(following == 2, 0, 1).astype(np.float32)))


def row():
    return tf.nest.map_structure(lambda part: part[:, 0], steps(0, 1))


def filled(buffer, total, chunk):
    state = buffer.initial()
    for first in range(0, total, chunk):
        state = buffer.add_batch(state, steps(first, chunk))
    return state


@pytest.mark.parametrize("total, chunk", [(3, 1), (12, 3), (27, 3), (24, 8)])
def test_it_keeps_the_last_steps_in_order(total, chunk):
    buffer = ReplayBuffer(row(), 10, longest=chunk)
    state = filled(buffer, total, chunk)
    held = min(total, 10)
    assert int(buffer.num_frames(state)) == held * BATCH
    rows = buffer.gather_all(state)
    assert rows.action.numpy()[:, 10 - held:].tolist() == [list(range(total - held, total))] * BATCH
    np.testing.assert_array_equal(rows.observation.numpy()[1, 10 - held:, 0], 1)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("num_steps", [1, 3])
@pytest.mark.parametrize("total", [6, 31])
def test_samples_are_windows_of_what_follows(alpha, num_steps, total):
    buffer = ReplayBuffer(row(), 16, num_steps=num_steps, alpha=alpha)
    state = filled(buffer, total, 1)
    sample = buffer.get_next(state, 256, tf.constant([3, 4]))
    time, environment = sample.experience.action.numpy(), sample.experience.observation.numpy()[..., 0]
    assert time.shape == (256, num_steps + 1)
    np.testing.assert_array_equal(np.diff(time, axis=1), 1)  # never over the write position
    assert (environment == environment[:, :1]).all()
    assert time.min() >= max(total - 16, 0) and time.max() <= total - 1
    is_boundary = sample.experience.step_type.numpy()[:, 0] == 2
    if alpha:
        assert not is_boundary.any()
    else:
        np.testing.assert_array_equal(sample.weight.numpy(), np.where(is_boundary, 0, 1))
    wanted = {(e, t) for e in range(BATCH) for t in range(max(total - 16, 0), total - num_steps)
              if (t + e) % 6 != 5 or not alpha}
    assert set(zip(environment[:, 0].astype(int).tolist(), time[:, 0].tolist())) == wanted


def test_priorities_decide_how_often_a_row_comes_and_what_it_weighs():
    buffer = ReplayBuffer(row(), 40, alpha=0.5)
    state = filled(buffer, 37, 1)
    noise = np.random.default_rng(0)
    first = buffer.get_next(state, 64, tf.constant([1, 1]))
    priority = dict(zip(first.index.numpy().tolist(), noise.uniform(0.1, 9, 64)))
    index = np.array(list(priority), np.int32)
    state = buffer.update_priorities(state, tf.constant(index), tf.constant(list(priority.values()), tf.float32))
    leaves = np.array([leaf for leaf in state.tree[0].numpy()])
    for place, value in priority.items():
        assert leaves[place] == pytest.approx((value + 1e-6) ** 0.5, rel=1e-5)
    assert state.tree[-1].numpy()[0] == pytest.approx(leaves.sum(), rel=1e-5)
    count, beta = 20_000, 0.7
    sample = buffer.get_next(state, count, tf.constant([2, 2]), beta)
    share = np.bincount(sample.index.numpy(), minlength=len(leaves)) / count
    np.testing.assert_allclose(share, leaves / leaves.sum(), atol=2 / count + 1e-6)  # stratified: one of each part
    weight = (37 * BATCH * leaves[sample.index.numpy()] / leaves.sum()) ** -beta
    np.testing.assert_allclose(sample.weight.numpy(), weight / weight.max(), rtol=1e-4)


def test_new_rows_come_with_the_highest_priority_and_old_ones_go_with_theirs():
    buffer = ReplayBuffer(row(), 8, num_steps=2, alpha=1.0)
    state = filled(buffer, 8, 1)
    state = buffer.update_priorities(state, tf.constant([1]), tf.constant([7.0]))
    state = buffer.add_batch(state, steps(8, 1))
    leaves = state.tree[0].numpy()[:16].reshape(2, 8)
    assert leaves[0, 0] == 0 and leaves[0, 7] == 0 and leaves[0, 1] == pytest.approx(7)
    assert leaves[0, 6] == pytest.approx(7)  # step 6, whose two following ones are there now
    assert leaves[0, 5] == 0  # a boundary


def test_what_is_not_accepted_changes_nothing():
    for alpha in (0.0, 1.0):
        buffer = ReplayBuffer(row(), 8, alpha=alpha, longest=3)
        state = filled(buffer, 9, 3)
        after = buffer.add_batch(state, steps(9, 3), tf.constant(False))
        for old, new in zip(tf.nest.flatten(state), tf.nest.flatten(after), strict=True):
            np.testing.assert_array_equal(old, new)


def test_it_compiles_to_the_same_numbers():
    buffer = ReplayBuffer(row(), 16, num_steps=2, alpha=0.6, longest=4)

    def use(state, seed):
        state = buffer.add_batch(state, steps(20, 4))
        sample = buffer.get_next(state, 8, seed, 0.5)
        return buffer.update_priorities(state, sample.index, sample.weight), sample

    state = filled(buffer, 20, 4)
    eager, compiled = use(state, tf.constant([5, 6])), tf.function(use, jit_compile=True)(state, tf.constant([5, 6]))
    for a, b in zip(tf.nest.flatten(eager), tf.nest.flatten(compiled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_too_small_a_buffer():
    with pytest.raises(ValueError, match="must keep the 3 steps of a return and the 4 .* 7 of each .* room for 6"):
        ReplayBuffer(row(), 6, num_steps=3, longest=4)
