import numpy as np
import tensorflow as tf

from strategies import parts


def variables():
    value = np.arange(14.0).reshape(7, 2)
    pieces = [tf.Variable(value[:3], name="a/part_0"), tf.Variable(value[3:5], name="a/part_1"),
              tf.Variable(value[5:], name="a/part_2")]
    other = [tf.Variable([1.0], name="b/part_0"), tf.Variable([2.0], name="b/part_1")]
    return value, tf.Variable(0.0, name="first"), pieces, other, tf.Variable(1.0, name="last")


def test_parts_become_one():
    value, first, pieces, other, last = variables()
    found = parts.whole([first, *pieces, *other, last])
    assert [variable.name for variable in found] == ["first:0", "a:0", "b:0", "last:0"]
    np.testing.assert_array_equal(found[1].numpy(), value)
    assert found[1].shape == [7, 2] and found[1].dtype == tf.float64
    found[1].assign(-value)
    np.testing.assert_array_equal(np.concatenate([piece.numpy() for piece in pieces]), -value)
    assert found[0] is first


def test_a_divided_variable_is_one_object_or_its_parts():
    value, _, pieces, _, last = variables()
    divided = tf.__internal__.distribute.ShardedVariable(pieces)
    found = parts.whole([divided, *pieces, last])
    assert [variable.name for variable in found] == ["a:0", "a:0", "last:0"]
    for whole in found[:2]:
        np.testing.assert_array_equal(whole.numpy(), value)
