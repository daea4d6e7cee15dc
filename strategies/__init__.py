"""How a `keras.Model` is trained elsewhere, made smaller, or written down. Knows nothing of applications."""
