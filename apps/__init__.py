"""Applications: one folder each, all with the same file names (config, data, models, train, predict, README)."""
