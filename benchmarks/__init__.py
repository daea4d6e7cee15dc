"""One program a question; each prints a table and keeps `results/<name>.json`."""
