"""Pruning: weights that contribute little become and stay 0, the rest is trained on.

    criterion    removed are                                           source
    sparsity     the smallest |w| of each layer, up to a share that     Zhu & Gupta 2017, arXiv 1710.01878; schedules of
                 follows a schedule; single weights, blocks, or the      tensorflow_model_optimization
                 n smallest of every m along the input channels
    threshold    |w| <= t, at once                                     Han et al. 2015, arXiv 1506.02626
    deviation    |w| <= alpha * standard deviation of all weights of    the same, section 3
                 the layer, at once

What is counted are weights, not neurons: a dense file keeps its size unless it is compressed or stored sparsely. To
remove whole filters see `structured`.

The mask of a weight is a variable of its own and the layer computes with w * mask (see `hooks`), so no gradient reaches
a removed weight, and masks are saved, restored and replicated like any other variable. A removed weight stays removed.
"""

import math

import numpy as np
import tf_keras as keras

from layers.checking import unknown_name
from strategies.compression import hooks

CRITERIA = ("sparsity", "threshold", "deviation")
SCHEDULES = ("constant", "polynomial")
_UPDATES = 50  # of the masks while a schedule rises


class Pruning:
    """Prunes a model while it is trained: `prepare`, `fit` with `callbacks`, `finish`.

    Args:
        criterion: one of `CRITERIA`.
        sparsity: share of weights to remove, 0 <= sparsity < 1 (criterion sparsity).
        schedule: "polynomial" (cubic rise over the first `ramp` of the steps) or "constant" (all at the first step).
        ramp: part of the steps, 0 < ramp <= 1.
        block: (rows, columns) of what is removed together, in the matrix [inputs, outputs] of a kernel.
        m_by_n: (m, n): m weights of every n along the input channels are removed, whatever `sparsity` is; None: not.
        threshold: t, at least 0.
        alpha: at least 0.
        select: regular expression for the names of the weights to prune, such as "dense" or "logits/kernel". Depthwise
            kernels are left out unless it names them: they are few, and each channel has just one.

    Raises:
        ValueError: a value out of its range, or options that exclude each other.
    """

    def __init__(self, *, criterion="sparsity", sparsity=0.5, schedule="polynomial", ramp=0.6, block=(1, 1),
                 m_by_n=None, threshold=0.1, alpha=1.0, select=".*"):
        if criterion not in CRITERIA:
            raise unknown_name("pruning criterion", criterion, CRITERIA)
        if schedule not in SCHEDULES:
            raise unknown_name("pruning schedule", schedule, SCHEDULES)
        _check("sparsity", sparsity, 0 <= sparsity < 1, "at least 0 and below 1")
        _check("ramp", ramp, 0 < ramp <= 1, "above 0 and at most 1")
        _check("block", block, len(block) == 2 and min(block) >= 1, "two whole numbers, at least 1")
        _check("threshold", threshold, threshold >= 0, "at least 0")
        _check("alpha", alpha, alpha >= 0, "at least 0")
        if m_by_n is not None:
            _check("m_by_n", m_by_n, len(m_by_n) == 2 and 0 < m_by_n[0] < m_by_n[1], "m zeros in every n > m weights")
            if criterion != "sparsity" or tuple(block) != (1, 1):
                raise ValueError(f"m_by_n={m_by_n} says by itself what is removed; it goes with criterion=\"sparsity\" "
                                 f"and block=(1, 1) only. Received criterion={criterion!r}, block={block}.")
        if criterion != "sparsity" and tuple(block) != (1, 1):
            raise ValueError(f"block={block} goes with criterion=\"sparsity\" only; received {criterion!r}.")
        self.criterion, self.sparsity, self.schedule, self.ramp = criterion, sparsity, schedule, ramp
        self.block, self.m_by_n, self.threshold, self.alpha = tuple(block), m_by_n, threshold, alpha
        self.select = select

    def prepare(self, model):
        """Gives the chosen weights masks: those that are 0 already are masked from the start. Returns the model."""
        hooks.hook_weights(model, self._slots(model), Masks)
        return model

    def callbacks(self, model, progress, total_steps, sees_steps=True):
        """The Keras callbacks that update the masks.

        Args:
            model: what `prepare` returned.
            progress: object whose `step` is the number of steps done; the step that begins is that one.
            total_steps: length of the training.
            sees_steps: whether callbacks are told of every step; otherwise someone has to call their `poll`.
        """
        return [(StepPruner if sees_steps else Pruner)(self, model, progress, total_steps)]

    def settled_step(self, total_steps):
        """The first step after which no more weights are removed."""
        if self.criterion != "sparsity" or self.m_by_n or self.schedule == "constant":
            return 0
        return max(1, math.ceil(self.ramp * total_steps))

    def update_masks(self, model, sparsity=None):
        """Removes further weights by the criterion; `sparsity` overrides the final one.

        Raises:
            ValueError: a layer would lose all its weights.
        """
        for layer in hooks.hooked_layers(model):
            hook = hooks.hook_of(layer)
            for slot in hook.slots:
                mask = hook.mask(slot)
                alive = mask.numpy()
                weights = slot.variable.numpy() * alive
                new = _by_channels(self.mask_of, slot, weights, sparsity) * alive
                if alive.any() and not new.any():
                    raise ValueError(f"Pruning with {self._words()} removes every weight of {slot.name!r}, the largest "
                                     f"of which is {np.abs(weights).max():.4g}: nothing would go through it any more. "
                                     "Use a smaller value, or leave that layer out with select (--prune_select).")
                mask.assign(new)

    def mask_of(self, weights, sparsity=None):
        """The mask, 1 where a weight stays, of the same shape and dtype: the criterion applied to [..., I, O]."""
        if self.criterion == "threshold":
            return (np.abs(weights) > self.threshold).astype(weights.dtype)
        if self.criterion == "deviation":
            return deviation_mask(weights, self.alpha)
        if self.m_by_n is not None:
            return m_by_n_mask(weights, *self.m_by_n)
        return magnitude_mask(weights, self.sparsity if sparsity is None else sparsity, self.block)

    def finish(self, model):
        """Writes w * mask into the weights and takes the masks away. Returns the model, plain again."""
        return hooks.bake(model)

    def _words(self):
        return {"threshold": f"threshold={self.threshold:g}", "deviation": f"alpha={self.alpha:g}"}.get(
            self.criterion, f"sparsity={self.sparsity:g}")

    def _slots(self, model):
        slots = hooks.weight_slots(model, select=self.select)
        if self.select == ".*":
            slots = [slot for slot in slots if not slot.attribute.startswith("depthwise")]
        if self.m_by_n is not None:
            slots = [slot for slot in slots if _num_inputs(slot) % self.m_by_n[1] == 0]
        if not slots:
            raise ValueError(f"Model {model.name!r} has no weight to prune: expected kernels other than depthwise ones"
                             f"{f' with a multiple of {self.m_by_n[1]} input channels' if self.m_by_n else ''}.")
        return slots


class Masks(hooks.Hook):
    """The masks of one layer's weights."""

    def __init__(self, caller, slots):
        super().__init__(caller, slots)
        self.mask_zeros(always=True)

    def weight(self, slot, value):
        return self.masked(slot, value)


class Pruner(keras.callbacks.Callback):
    """Updates the masks at the steps that the schedule names: a function of the step and the weights, so that a resumed
    run removes what the interrupted one would have removed."""

    def __init__(self, pruning, model, progress, total_steps):
        super().__init__()
        self._pruning, self._pruned, self._progress = pruning, model, progress
        self._due = due_steps(pruning, total_steps)
        self._seen = progress.step - 1

    def poll(self, step):
        """Updates the masks if an update was due since the last call, up to this step."""
        due = [each for each in self._due if self._seen < each <= step]
        self._seen = step
        if due:
            self._pruning.update_masks(self._pruned, self._due[max(due)])

    def on_train_begin(self, logs=None):
        self.poll(self._progress.step)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["sparsity"] = sparsity_of(self._pruned)


class StepPruner(Pruner):
    """Updates them at the very step."""

    def on_train_batch_begin(self, batch, logs=None):
        self.poll(self._progress.step)


def due_steps(pruning, total_steps):
    """{step: sparsity wanted from that step on}, or None as sparsity where the criterion knows by itself."""
    if pruning.criterion != "sparsity" or pruning.m_by_n is not None:
        return {0: None}
    end = pruning.settled_step(total_steps)
    frequency = max(1, end // _UPDATES)
    if end == 0:
        return {0: pruning.sparsity}
    import tensorflow_model_optimization as tfmot  # slow to import

    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, pruning.sparsity, begin_step=0, end_step=end,
                                                    frequency=frequency)
    steps = np.unique([*range(0, end, frequency), min(end, total_steps - 1)])
    due = {int(step): float(schedule(int(step))[1]) for step in steps}
    return due | {max(due): pruning.sparsity}  # a schedule as long as the training would end a step too late


def sparsity_of(model):
    """Share of removed weights among those that have masks."""
    masks = [hooks.hook_of(layer).mask(slot).numpy() for layer in hooks.hooked_layers(model)
             for slot in hooks.hook_of(layer).slots]
    return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.size for mask in masks)


def magnitude_mask(weights, sparsity, block=(1, 1)):
    """Keeps the largest |w|, or the blocks of the largest mean |w|.

    Args:
        weights: array [..., I, O]; all axes but the last count as inputs when blocks are formed.
        sparsity: share of weights, or blocks, to remove; at least one stays.
        block: (rows, columns); at the far edges blocks may be smaller.

    Returns:
        array like weights, of 0 and 1.
    """
    matrix = np.abs(weights).reshape(-1, weights.shape[-1])
    scores = matrix if block == (1, 1) else _block_means(matrix, *block)
    kept = max(1, int(np.round(scores.size * (1 - sparsity))))
    order = np.argsort(-scores, axis=None, kind="stable")
    chosen = np.zeros(scores.size, bool)
    chosen[order[:kept]] = True
    chosen = chosen.reshape(scores.shape)
    if block != (1, 1):
        chosen = chosen.repeat(block[0], 0).repeat(block[1], 1)[:matrix.shape[0], :matrix.shape[1]]
    return chosen.reshape(weights.shape).astype(weights.dtype)


def m_by_n_mask(weights, m, n):
    """Removes the m smallest |w| of every n neighbours along the input channels, as processors with 2:4 units read it.

    Args:
        weights: array [..., I, O], I a multiple of n.
        m, n: 0 < m < n.

    Returns:
        array like weights, of 0 and 1.
    """
    groups = np.moveaxis(np.abs(weights), -2, -1)  # [..., O, I]
    shape = groups.shape
    groups = groups.reshape(-1, n)
    removed = np.argsort(groups, axis=1, kind="stable")[:, :m]
    mask = np.ones_like(groups)
    np.put_along_axis(mask, removed, 0, axis=1)
    return np.moveaxis(mask.reshape(shape), -1, -2)


def deviation_mask(weights, alpha):
    """Removes |w| <= alpha * sigma, sigma the standard deviation of all weights of the layer.

    Those that were removed before count as the zeros that they are. Of normal weights beyond 1.5 sigma alone the
    deviation is 1.8 sigma: counted without zeros a second round would remove nearly all of them.
    """
    return ((np.abs(weights) > alpha * weights.std()) & (weights != 0)).astype(weights.dtype)


def _block_means(matrix, rows, columns):
    """Mean of each block [ceil(I / rows), ceil(O / columns)]."""
    starts = [np.arange(0, size, step) for size, step in zip(matrix.shape, (rows, columns))]
    sums, counts = (np.add.reduceat(np.add.reduceat(values, starts[0], 0), starts[1], 1)
                    for values in (matrix, np.ones_like(matrix)))
    return sums / counts


def _num_inputs(slot):
    return math.prod(slot.variable.shape[axis] for axis in hooks.channel_axes(slot)[0])


def _by_channels(function, slot, weights, *args):
    """`function` of a slot's weights as [..., I, O], its result as the weights are: of attention [D, H, d] the H d
    outputs stand side by side, as in the matrix of a file."""
    inputs, outputs = hooks.channel_axes(slot)
    order = [axis for axis in range(weights.ndim) if axis not in inputs + outputs] + [*inputs, *outputs]
    moved = weights.transpose(order)
    places = moved.shape[:weights.ndim - len(inputs) - len(outputs)]
    result = function(moved.reshape(*places, _num_inputs(slot), -1), *args)
    return result.reshape(moved.shape).transpose(np.argsort(order))


def _check(name, value, ok, expected):
    if not ok:
        raise ValueError(f"{name} must be {expected}; received {value!r}.")
