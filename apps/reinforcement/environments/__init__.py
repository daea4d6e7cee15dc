"""Environments as pure functions of a batch of states, and an adapter for gymnasium."""
