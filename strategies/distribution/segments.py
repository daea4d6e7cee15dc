"""Keras `fit` from any step to any step.

Keras counts whole epochs. A run that resumes within an epoch, or whose last epoch is cut by a time budget, is fitted
in up to three segments: the rest of the first epoch, the whole epochs, and the first part of the last.
"""


def plan(steps_per_epoch, start_step, total_steps):
    """Segments `(first_step, first_epoch, num_epochs, steps an epoch)` that lead from `start_step` to `total_steps`."""
    segments, step = [], start_step
    while step < total_steps:
        epoch, within = divmod(step, steps_per_epoch)
        whole = (total_steps - step) // steps_per_epoch
        if within == 0 and whole:
            segments.append((step, epoch, whole, steps_per_epoch))
            step += whole * steps_per_epoch
        else:
            steps = min(steps_per_epoch - within, total_steps - step)
            segments.append((step, epoch, 1, steps))
            step += steps
    return segments


def fit(model, dataset_from, steps_per_epoch, *, start_step, total_steps, validation, callbacks, verbose,
        validation_steps=None):
    """Runs `model.fit` over the planned segments; returns the joined history, a dict of lists.

    Args:
        dataset_from: `dataset_from(step) -> tf.data.Dataset` (or creator) of the batches from that global step on.
        Others as in `Single.fit`.
    """
    joined = {}
    for first_step, first_epoch, num_epochs, steps in plan(steps_per_epoch, start_step, total_steps):
        history = model.fit(dataset_from(first_step), initial_epoch=first_epoch, epochs=first_epoch + num_epochs,
                            steps_per_epoch=steps, validation_data=validation, validation_steps=validation_steps,
                            callbacks=list(callbacks), verbose=verbose)
        for name, values in history.history.items():
            joined.setdefault(name, []).extend(values)
        if model.stop_training:
            break
    return joined
