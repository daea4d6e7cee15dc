"""What a shared batch asks of a run and of its layers."""

import contextlib

import tf_keras as keras


def check_batch(batch_size, replicas, parts=1):
    """Raises ValueError unless a batch can be shared out evenly over replicas, and each share over parts."""
    if batch_size % (replicas * parts):
        shares = f"{replicas} replicas" if parts == 1 else f"{replicas} replicas × {parts} micro-batches"
        raise ValueError(f"--batch_size={batch_size} cannot be shared out over {shares}. Give a multiple of "
                         f"{replicas * parts}.")


def raise_obstacle(strategy, model):
    """Raises ValueError when a strategy cannot train a model."""
    reason = strategy.obstacle(model)
    if reason:
        raise ValueError(reason)


def batch_norms(model):
    """The batch normalisations of a model, at any depth."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


@contextlib.contextmanager
def synchronized_batch_norm(model, wanted):
    """Within it, where wanted, batch normalisation takes its statistics over the batch of all replicas."""
    layers = batch_norms(model) if wanted else []
    before = [(layer.synchronized, layer.fused) for layer in layers]
    for layer in layers:
        layer.synchronized, layer.fused = True, False  # the fused kernel knows of one device only
    try:
        yield
    finally:
        for layer, (synchronized, fused) in zip(layers, before):
            layer.synchronized, layer.fused = synchronized, fused
