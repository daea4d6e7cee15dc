"""3x3 convolution with a third of the multiplications (Winograd; Lavin & Gray 2015, arXiv 1509.09308).

The board is cut into tiles of 3x3 outputs, each made from 5x5 inputs. F(3x3, 3x3) turns a tile into 25 numbers a
channel, multiplies those with 25 matrices [C, K] that depend on the kernel alone, and turns the result back: 25
multiplications in place of 81. On a 9x9 board nothing is lost at the edge.
"""

import functools

import numpy as np
import tensorflow as tf

OUTPUTS, KERNEL = 3, 3
TILE = OUTPUTS + KERNEL - 1
_POINTS = (0.0, 1.0, -1.0, 2.0)  # and infinity


@functools.cache
def matrices():
    """(AT float64 [3, 5], G [5, 3], BT [5, 5]): a tile's outputs are AT ((G g) * (BT d)) of inputs d and kernel g.

    Multiplication of polynomials by interpolation (Toom & Cook), transposed.
    """
    def values(points, degree):
        return np.vstack([np.vander(points, degree, increasing=True), np.eye(degree)[-1]])

    spread, kernel = values(_POINTS, OUTPUTS), values(_POINTS, KERNEL)
    interpolate = np.linalg.inv(values(_POINTS, TILE))
    return spread.T, kernel, interpolate.T


def transform_kernel(kernel):
    """float [25, C, K] of a kernel [3, 3, C, K]."""
    _, g, _ = matrices()
    return np.einsum("ai,bj,ijck->abck", g, g, np.asarray(kernel, np.float64)).reshape(TILE * TILE, *kernel.shape[2:])


def convolve(x, transformed):
    """Convolution with stride 1 and same padding.

    Args:
        x: float32 [B, N, N, C].
        transformed: float32 [25, C, K], from `transform_kernel`.

    Returns:
        float32 [B, N, N, K].
    """
    back, _, forth = (matrix.astype(np.float32) for matrix in matrices())
    _, size, _, channels = x.shape
    tiles = -(-size // OUTPUTS)
    extra = tiles * OUTPUTS - size
    x = tf.pad(x, [[0, 0], [1, 1 + extra], [1, 1 + extra], [0, 0]])
    end, filters = OUTPUTS * (tiles - 1) + 1, transformed.shape[-1]
    # One axis after the other, all tiles together: few large operations, which XLA compiles and runs several times as
    # fast as one for each of the 25 numbers.
    x = tf.stack(_combine(forth, [x[:, i:i + end:OUTPUTS] for i in range(TILE)]))  # [5, B, tiles, width, C]
    x = tf.stack(_combine(forth, [x[:, :, :, j:j + end:OUTPUTS] for j in range(TILE)]), axis=1)
    product = tf.matmul(tf.reshape(x, [TILE * TILE, -1, channels]), transformed)
    product = tf.reshape(product, [TILE, TILE, -1, tiles, tiles, filters])
    columns = tf.stack(_combine(back, tf.unstack(product, axis=1)), axis=4)  # [5, B, tiles, tiles, 3, K]
    result = tf.stack(_combine(back, tf.unstack(columns)), axis=2)  # [B, tiles, 3, tiles, 3, K]
    return tf.reshape(result, [-1, tiles * OUTPUTS, tiles * OUTPUTS, filters])[:, :size, :size]


def _combine(matrix, parts):
    """Sums of parts with the factors of each row of a matrix; zeros cost nothing."""
    combined = []
    for row in matrix:
        terms = [part if factor == 1 else -part if factor == -1 else float(factor) * part
                 for factor, part in zip(row, parts) if factor]
        combined.append(functools.reduce(tf.add, terms))
    return combined
