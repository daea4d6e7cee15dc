"""How a batch is shared out."""


def check_batch(batch_size, replicas, parts=1):
    """Raises ValueError unless a batch can be shared out evenly over replicas, and each share over parts."""
    if batch_size % (replicas * parts):
        shares = f"{replicas} replicas" if parts == 1 else f"{replicas} replicas × {parts} micro-batches"
        raise ValueError(f"--batch_size={batch_size} cannot be shared out over {shares}. Give a multiple of "
                         f"{replicas * parts}.")
