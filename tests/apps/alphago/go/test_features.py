import numpy as np
import pytest
import tensorflow as tf

from apps.alphago.go import features
from apps.alphago.go import rules as go


def test_zero_planes():
    rules, noise = go.Rules(size=9), np.random.default_rng(0)
    state = go.new(rules, 3)
    boards, turns = [np.zeros([3, 9, 9], int)] * go.HISTORY, np.ones(3, int)
    for _ in range(40):
        found = features.zero_planes(rules, state).numpy()
        for b in range(3):
            for k in range(8):
                np.testing.assert_array_equal(found[b, :, :, 2 * k], boards[-1 - k][b] == turns[b])
                np.testing.assert_array_equal(found[b, :, :, 2 * k + 1], boards[-1 - k][b] == -turns[b])
            assert (found[b, :, :, 16] == (turns[b] == 1)).all()
        masks = go.program(rules, "legal")(state).numpy()
        moves = [81 if noise.random() < 0.1 else noise.choice(np.flatnonzero(mask)) for mask in masks]
        state = go.program(rules, "play")(state, np.array(moves, np.int32))
        boards, turns = [*boards, state.stones.numpy().reshape(3, 9, 9)], -turns


@pytest.mark.parametrize("size", [5, 9])
def test_liberty_planes(size):
    """Liberties counted by walking over each chain."""
    rules, noise = go.Rules(size=size), np.random.default_rng(1)
    state, table, points, seen = go.new(rules, 4), go.neighbours(size), size * size, set()
    for _ in range(3 * size):
        found = features.liberty_planes(rules, state).numpy().reshape(4, points, -1)
        np.testing.assert_array_equal(found[..., :17].reshape(4, size, size, 17), features.zero_planes(rules, state))
        assert found.shape[2] == features.NUM_LIBERTY_PLANES and found[..., 20].all()
        for stones, planes in zip(state.stones.numpy(), found[..., 17:20]):
            for start in range(points):
                chain, waiting, liberties = {start}, [start] if stones[start] else [], set()
                while waiting:
                    for other in (int(q) for q in table[waiting.pop()] if q < points):
                        if not stones[other]:
                            liberties.add(other)
                        elif stones[other] == stones[start] and other not in chain:
                            chain.add(other)
                            waiting.append(other)
                assert planes[start].tolist() == [len(liberties) == number for number in (1, 2, 3)]
                seen.add(len(liberties))
        masks = go.program(rules, "legal")(state).numpy()[:, :-1]
        state = go.program(rules, "play")(state, np.array([noise.choice(np.flatnonzero(mask)) for mask in masks],
                                                          np.int32))
    assert seen >= {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("size", [5, 19])
def test_symmetries(size):
    images = features.symmetries(size)
    assert len({tuple(image) for image in images}) == 8 and (images[:, -1] == size * size).all()
    board = np.arange(size * size).reshape(size, size)
    np.testing.assert_array_equal(images[5][:-1].reshape(size, size), np.rot90(np.fliplr(board)))
    table = go.neighbours(size)
    for image, inverse in zip(images, features.inverse_symmetries(size)):
        np.testing.assert_array_equal(image[inverse], np.arange(size * size + 1))
        for point in range(size * size):  # neighbours stay neighbours
            assert {inverse[q] for q in table[point]} == set(table[inverse[point]])


def test_images_of_planes_and_moves():
    noise = np.random.default_rng(0)
    planes, values = noise.normal(size=[8, 5, 5, 3]), noise.normal(size=[8, 26])
    each = tf.range(8)
    found = features.transform_planes(5, tf.constant(planes), each).numpy()
    for index in range(8):
        start = np.fliplr(planes[index]) if index >= 4 else planes[index]
        np.testing.assert_array_equal(found[index], np.rot90(start, index % 4))
    moved = features.transform_moves(5, tf.constant(values), each)
    np.testing.assert_array_equal(moved[:, :-1].numpy().reshape(8, 5, 5),
                                  features.transform_planes(5, values[:, :-1].reshape(8, 5, 5, 1), each)[..., 0])
    restored = tf.gather(moved, features.inverse_symmetries(5), batch_dims=1)
    np.testing.assert_array_equal(restored, values)
