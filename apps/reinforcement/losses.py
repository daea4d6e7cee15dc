"""Returns, advantages, targets and losses of deep agents, as plain functions of tensors.

B environments, T steps, N rows; [B, T] unless said otherwise. `discount` is a trajectory's discount (0 where an episode
ended for good, else 1) times gamma, and `goes_on` is 1 where the next step belongs to the same episode. Rows that are
boundaries (`Trajectory.is_boundary`) come out with 0 and have no weight.
"""

import tensorflow as tf


def returns(reward, discount, goes_on, after=None):
    """Discounted returns G_t = R_{t+1} + gamma G_{t+1} to the end of the episode or of the rows.

    Sutton & Barto 2018, equation 3.9.

    Args:
        reward, discount, goes_on: float [B, T].
        after: [B], what follows the last row; None: nothing.

    Returns:
        float [B, T].
    """
    start = tf.zeros_like(reward[:, 0]) if after is None else after
    return _backwards(reward, discount * goes_on, start)


def differential_returns(reward, is_valid):
    """Returns of the average-reward setting, sums of (reward - its mean) to the end of the rows, across episodes.

    Sutton & Barto 2018, equation 13.15 with 10.9; the sum ends with the rows, as there is nothing to estimate the rest.

    Args:
        reward: [B, T].
        is_valid: float [B, T], 0 at boundaries, which take no time.

    Returns:
        (float [B, T], mean reward of a step, a scalar).
    """
    mean = tf.reduce_sum(reward * is_valid) / tf.maximum(tf.reduce_sum(is_valid), 1.0)
    centred = (reward - mean) * is_valid
    return _backwards(centred, tf.ones_like(reward), tf.zeros_like(reward[:, 0])), mean


def generalized_advantages(reward, discount, goes_on, value, next_value, decay):
    """Generalised advantage estimation, A_t = sum of (gamma lambda)^k delta_{t+k} within the episode.

    Schulman et al. 2016 (arXiv 1506.02438), equation 16. An episode that was only cut goes on with the value of what
    was seen last.

    Args:
        reward, discount, goes_on: [B, T].
        value, next_value: [B, T], of each observation and of the one after it.
        decay: lambda.

    Returns:
        float [B, T].
    """
    error = reward + discount * next_value - value
    return _backwards(error, decay * discount * goes_on, tf.zeros_like(value[:, 0]))


def n_step(reward, discount, step_type_is_last):
    """Return of up to n steps from the first row on, which ends where the episode does.

    Args:
        reward, discount: [N, n]; discount with gamma.
        step_type_is_last: bool [N, n + 1]: the rows' own type.

    Returns:
        (return [N], discount of what follows [N], number of the row that follows, int32 [N], 1 to n).
    """
    total, product = tf.zeros_like(reward[:, 0]), tf.ones_like(reward[:, 0])
    going, steps = ~step_type_is_last[:, 0], tf.zeros_like(reward[:, 0], tf.int32)
    for t in range(reward.shape[1]):
        going &= ~step_type_is_last[:, t]
        total += tf.where(going, product * reward[:, t], 0.0)
        product *= tf.where(going, discount[:, t], 1.0)
        steps += tf.cast(going, tf.int32)
    return total, product, tf.maximum(steps, 1)


def q_targets(reward, discount, next_target_values, next_values=None):
    """R + gamma max_a Q'(s', a); with `next_values` of the network that learns, double Q-learning: it chooses a.

    Mnih et al. 2015, equation 1 of the methods; van Hasselt et al. 2016 (arXiv 1509.06461), equation 4.

    Args:
        reward, discount: [N].
        next_target_values: [N, A] of the target network.
        next_values: [N, A], or None.

    Returns:
        [N], through which no gradient goes.
    """
    chosen = tf.argmax(next_target_values if next_values is None else next_values, axis=1)
    return tf.stop_gradient(reward + discount * tf.gather(next_target_values, chosen, batch_dims=1))


def td_loss(values, action, target, delta=1.0):
    """Huber's loss of Q(s, a) - target, quadratic up to `delta` (Mnih et al. 2015, methods: clipped errors).

    Args:
        values: [N, A].
        action: int [N].
        target: [N].

    Returns:
        (loss [N], error target - Q [N]).
    """
    error = target - tf.gather(values, action, batch_dims=1)
    size = tf.abs(error)
    inside = tf.minimum(size, delta)
    return inside**2 / 2 + delta * (size - inside), error


def policy_gradient_loss(log_prob, advantage):
    """-log pi(a|s) A: its gradient is the policy gradient's estimate, Williams 1992; Sutton & Barto 2018, 13.3. [N]."""
    return -log_prob * tf.stop_gradient(advantage)


def clipped_policy_loss(log_prob, old_log_prob, advantage, clip):
    """PPO's clipped surrogate, negated. Schulman et al. 2017 (arXiv 1707.06347), equation 7. [N]."""
    ratio = tf.exp(log_prob - old_log_prob)
    return -tf.minimum(ratio * advantage, tf.clip_by_value(ratio, 1 - clip, 1 + clip) * advantage)


def value_loss(value, target, old_value=None, clip=None):
    """Half the squared error; with `clip` the larger one of the value and of the value kept near the old one.

    The clipping is of OpenAI's implementation (Huang et al. 2022, "The 37 implementation details of PPO", 9). [N].
    """
    loss = (value - target)**2 / 2
    if clip is None:
        return loss
    near = old_value + tf.clip_by_value(value - old_value, -clip, clip)
    return tf.maximum(loss, (near - target)**2 / 2)


def normalized(values, weights):
    """Values [B, T] with mean 0 and deviation 1 over the rows of weight 1; 0 in the others."""
    count = tf.maximum(tf.reduce_sum(weights), 1.0)
    mean = tf.reduce_sum(values * weights) / count
    centred = (values - mean) * weights
    return centred / (tf.sqrt(tf.reduce_sum(centred**2) / count) + 1e-8)


def _backwards(first, factor, start):
    """x_t = first_t + factor_t x_{t+1}, with `start` [B] after the last; [B, T]."""
    time = first.shape[1]
    rows = tf.TensorArray(first.dtype, time, element_shape=first.shape[:1])
    first, factor = tf.transpose(first), tf.transpose(factor)

    def body(i, carry, rows):
        t = time - 1 - i
        carry = first[t] + factor[t] * carry
        return i + 1, carry, rows.write(t, carry)

    _, _, rows = tf.while_loop(lambda i, *_: i < time, body, (0, start, rows), maximum_iterations=time)
    return tf.transpose(rows.stack())
