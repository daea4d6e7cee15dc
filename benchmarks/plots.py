"""Plots that several benchmarks share."""

from apps.common import reporting

PICTURES = "docs/pictures"


def plot_losses(name, label, levels, rows, *, curves=None):
    """Points of accuracy lost at each level of a compression, their range over seeds, and the most that may be lost.

    Args:
        name: of the picture.
        label: what a level is.
        levels: of the rows, in order.
        rows: of the table; each has `lost`, `smallest_loss`, `largest_loss` and `target` (None: there is none).
        curves: {label: {level: points lost}} to draw beside them, such as published ones.
    """
    figure = reporting.new_figure()
    axes = figure.subplots()
    places = range(len(rows))
    lost = [row["lost"] for row in rows]
    ranges = [[row["lost"] - row["smallest_loss"] for row in rows], [row["largest_loss"] - row["lost"] for row in rows]]
    axes.errorbar(places, lost, ranges, marker="o", capsize=3, label="measured: mean, range over seeds")
    targets = [(place, row["target"]) for place, row in zip(places, rows) if row["target"] is not None]
    axes.scatter(*zip(*targets), marker="_", s=300, color="black", label="may be lost")
    for curve, points in (curves or {}).items():
        axes.plot([levels.index(level) for level in points], list(points.values()), marker="s", label=curve)
    axes.axhline(0, color="gray", linewidth=0.8)
    axes.set_xticks(places, [str(level) for level in levels])
    axes.set_xlabel(label)
    axes.set_ylabel("accuracy lost, points")
    axes.grid(alpha=0.3)
    axes.legend()
    reporting.save_figure(figure, f"{PICTURES}/{name}.png")
