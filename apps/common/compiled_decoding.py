"""Decoding whole batches inside one compiled function: greedy, by chance, or with a beam.

The model is `step(numbers, state) -> (logits, state)`: numbers int32 [N], logits [N, V], state any structure of tensors
[N, ...]. A loop of TensorFlow calls it, so that with a cache of keys and values, or a recurrent state, a token costs a
step and not a sentence. B sentences, W beam, V vocabulary, L length.
"""

import tensorflow as tf

from apps.common import tokens

_NEVER = -1e9  # a log probability that nothing real has


def decode(step, state, *, batch_size, length, temperature=0.0, top_k=0, top_p=1.0, seed=(0, 0)):
    """Takes the likeliest token, or draws one, until every sentence has ended.

    Args:
        step, state: see the head of this file; N = B.
        batch_size: B.
        length: L, tokens at most, the end included.
        temperature, top_k, top_p: as of `decoding.choose`; temperature 0 takes the likeliest.
        seed: of the draws, two whole numbers.

    Returns:
        int32 [B, L]: each row's tokens, its end, then padding.
    """
    if batch_size == 1:  # as two rows: XLA multiplies a single one with a matrix element by element
        twice = tf.nest.map_structure(lambda array: tf.repeat(array, 2, axis=0), state)
        return decode(step, twice, batch_size=2, length=length, temperature=temperature, top_k=top_k, top_p=top_p,
                      seed=seed)[:1]

    def choose(logits, place):
        logits = _allowed(logits)
        if not temperature:
            return tf.argmax(logits, axis=-1, output_type=tf.int32)
        noise = tf.random.stateless_uniform(tf.shape(logits), tf.stack([seed[0], seed[1] + place]), minval=1e-9)
        # Adding Gumbel noise to logits and taking the largest draws from their softmax.
        return tf.argmax(_likeliest(logits / temperature, top_k, top_p) - tf.math.log(-tf.math.log(noise)), axis=-1,
                         output_type=tf.int32)

    def body(place, last, has_ended, written, state):
        logits, state = step(last, state)
        number = tf.where(has_ended, tokens.PADDING, choose(logits, place))
        written = tf.where(tf.range(length) == place, number[:, None], written)
        return place + 1, number, has_ended | tf.equal(number, tokens.END), written, state

    begin = (tf.constant(0), tf.fill([batch_size], tokens.BEGIN), tf.fill([batch_size], False),
             tf.fill([batch_size, length], tokens.PADDING), state)
    return tf.while_loop(lambda place, last, has_ended, *rest: ~tf.reduce_all(has_ended), body, begin,
                         maximum_iterations=length)[3]


def _allowed(logits):
    """Logits [N, V], float32, in which what stands for no piece of text is never the largest."""
    size = logits.shape[-1]
    banned = sum(tf.one_hot(number, size) for number in (tokens.PADDING, tokens.BEGIN, tokens.UNKNOWN))
    return tf.cast(logits, tf.float32) + _NEVER * banned


def _likeliest(logits, top_k, top_p):
    """Logits [N, V] in which only what may be drawn is left."""
    if not top_k and top_p >= 1:
        return logits
    ordered = tf.sort(logits, axis=-1, direction="DESCENDING")
    if top_k:
        ordered = tf.where(tf.range(ordered.shape[-1]) < top_k, ordered, _NEVER)
    p = tf.nn.softmax(ordered)
    kept = tf.cumsum(p, axis=-1, exclusive=True) < top_p
    least = tf.reduce_min(tf.where(kept & (ordered > _NEVER / 2), ordered, tf.float32.max), axis=-1, keepdims=True)
    return tf.where(logits >= least, logits, _NEVER)


def beam(step, state, *, batch_size, length, width=4, alpha=0.6):
    """Beam search, as `decoding.beam` has it.

    Args:
        step, state: see the head of this file; the state is [B, ...] here, the step gets N = B W rows.
        batch_size, length: as of `decode`.
        width: W.
        alpha: of the length penalty.

    Returns:
        (tokens int32 [B, W, L], scores float32 [B, W]), best first: log probability over length penalty; about -1e9
        where there are fewer hypotheses. Where no hypothesis of a sentence has ended, those that have not.
    """
    rows = batch_size * width
    first_row = tf.range(batch_size)[:, None] * width

    def penalty(count):
        return ((5.0 + tf.cast(count, tf.float32)) / 6.0) ** alpha

    def body(place, alive, written, ended, ends, state):
        last = tf.where(place == 0, tokens.BEGIN, tf.gather(written, tf.maximum(place - 1, 0), axis=2))
        logits, state = step(tf.reshape(last, [rows]), state)
        size = logits.shape[-1]
        totals = alive[..., None] + tf.reshape(tf.nn.log_softmax(_allowed(logits)), [-1, width, size])
        scores, index = tf.math.top_k(tf.reshape(totals, [-1, width * size]), 2 * width)  # [B, 2W]
        parent, number = index // size, index % size
        candidates = tf.where(tf.range(length) == place, number[..., None], tf.gather(written, parent, batch_dims=1))
        is_end = tf.equal(number, tokens.END)

        ended = tf.concat([ended, tf.where(is_end, scores / penalty(place + 1), _NEVER)], axis=1)
        ends = tf.concat([ends, candidates], axis=1)
        ended, best = tf.math.top_k(ended, width)
        ends = tf.gather(ends, best, batch_dims=1)

        alive, best = tf.math.top_k(tf.where(is_end, _NEVER, scores), width)
        written = tf.gather(candidates, best, batch_dims=1)
        origin = tf.reshape(first_row + tf.gather(parent, best, batch_dims=1), [rows])
        state = tf.nest.map_structure(lambda tensor: tf.gather(tensor, origin), state)
        return place + 1, alive, written, ended, ends, state

    def goes_on(place, alive, written, ended, *rest):
        return tf.reduce_any(alive[:, 0] / penalty(length) >= ended[:, -1])

    empty = tf.fill([batch_size, width, length], tokens.PADDING)
    alive = tf.tile(tf.constant([[0.0] + [_NEVER] * (width - 1)]), [batch_size, 1])
    state = tf.nest.map_structure(lambda tensor: tf.repeat(tensor, width, axis=0), state)
    begin = (tf.constant(0), alive, empty, tf.fill([batch_size, width], _NEVER), empty, state)
    _, alive, written, ended, ends, _ = tf.while_loop(goes_on, body, begin, maximum_iterations=length)
    has_ended = ended[:, :1] > _NEVER / 2
    return (tf.where(has_ended[..., None], ends, written),
            tf.where(has_ended, ended, alive / penalty(length)))
