"""Reinforcement learning: dynamic programming, tabular methods, deep agents, bandits; parts named as in TF-Agents."""
