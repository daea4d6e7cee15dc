"""Agents with TF-Agents' names and meaning; the network of each is an ordinary compiled Keras model."""
