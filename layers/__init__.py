"""Keras layers and blocks. They know nothing of applications, flags, devices or strategies."""
