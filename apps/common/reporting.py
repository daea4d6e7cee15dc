"""What a run leaves for people and for tools: `metrics.json`, plots, `report.md`, and pictures in TensorBoard."""

import dataclasses
import functools
import pathlib

import matplotlib.backends.backend_agg
import matplotlib.figure
import matplotlib.font_manager
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.plugins.hparams import api as hp

from apps.common import config as config_lib

_DPI = 110
# Fonts with Chinese, Japanese and Korean letters as systems have them; Matplotlib brings none.
_EAST_ASIAN = ("Noto Sans CJK JP", "Noto Sans JP", "Source Han Sans JP", "IPAexGothic", "IPAGothic", "TakaoGothic",
               "Hiragino Sans", "Yu Gothic", "MS Gothic", "WenQuanYi Zen Hei")


def write_metrics(run, metrics):
    """Writes the flat `metrics.json`; numbers only become plain Python numbers."""
    plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in metrics.items()}
    config_lib.write_json(run.path / "metrics.json", plain)
    return plain


def new_figure(width=7.0, height=4.5):
    """A Matplotlib figure that needs no display and no global state; save it with `save_figure`."""
    figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
    matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    return figure


@functools.cache
def font_families():
    """Fonts for text of any language, as far as this system has them, for `fontfamily=`."""
    known = {font.name for font in matplotlib.font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _EAST_ASIAN if name in known)]


def save_figure(figure, path):
    """Writes a PNG and returns its pixels, uint8 [1, H, W, 3], for TensorBoard."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.set_dpi(_DPI)
    figure.canvas.draw()  # once for both; `savefig` would lay it out and draw it again
    pixels = np.array(figure.canvas.buffer_rgba())[..., :3]
    Image.fromarray(pixels).save(path)
    return pixels[None]


def curves_figure(rows):
    """Loss, accuracy (the first, of several outputs) and learning rate against epoch, training and validation, from the
    rows of `history.csv`."""
    figure = new_figure(10, 3.2)
    names = rows[-1] if rows else ()
    metric = next((name for name in names if name.endswith("accuracy") and not name.startswith("val_")), "accuracy")
    epochs = [row["epoch"] + 1 for row in rows]
    for axes, name in zip(figure.subplots(1, 3), ("loss", metric, "learning_rate")):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if rows and key in rows[-1]:
                axes.plot(epochs, [row.get(key, np.nan) for row in rows], label=label)
        if name == "loss" and rows:
            # The first validations of a batch-normalised network can be far off and would flatten all the rest.
            axes.set_ylim(0, 1.5 * max(row.get("loss", 0) for row in rows) + 1e-9)
        axes.set_xlabel("epoch")
        axes.set_title(name.replace("_", " "))
        if axes.get_legend_handles_labels()[0] and name != "learning_rate":
            axes.legend()
        axes.grid(alpha=0.3)
    return figure


def confusion_figure(matrix, class_names):
    """A confusion matrix, int [K, K], rows true and columns predicted classes, coloured by share of the row."""
    count = len(class_names)
    side = min(14.0, 3.0 + 0.42 * count)
    figure = new_figure(side, side)
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if count <= 30:
        axes.set_xticks(range(count), class_names, rotation=90)
        axes.set_yticks(range(count), class_names)
        for i, j in zip(*np.nonzero(matrix)):
            axes.text(j, i, matrix[i, j], ha="center", va="center", fontsize=7, color="w" if share[i, j] > 0.5 else "k")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


def predictions_figure(images, probabilities, targets, class_names, columns=6):
    """A grid of images with predicted class, its probability and, where it is wrong, the true class.

    Args:
        images: [N, H, W, C], pixels 0..255.
        probabilities: float [N, K].
        targets: int [N].
        class_names: K names.
    """
    rows = -(-len(images) // columns)
    figure = new_figure(1.5 * columns, 1.75 * rows)
    for axes in np.ravel(figure.subplots(rows, columns, squeeze=False)):
        axes.axis("off")
    for axes, image, p, target in zip(figure.axes, images, probabilities, targets):
        guess = int(np.argmax(p))
        picture = np.clip(image, 0, 255).astype(np.uint8)
        axes.imshow(picture.squeeze(), cmap="gray" if picture.shape[-1] == 1 else None, vmin=0, vmax=255)
        wrong = "" if guess == target else f"\n(is {class_names[target]})"
        axes.set_title(f"{class_names[guess]} {p[guess]:.2f}{wrong}", fontsize=7, color="k" if guess == target else "r")
    return figure


def log_images(run, images, step=0):
    """Writes pictures, `{name: uint8 [1, H, W, 3]}`, to TensorBoard."""
    with tf.summary.create_file_writer(str(run.folder("logs") / "pictures")).as_default():
        for name, image in images.items():
            tf.summary.image(name, image, step=step)


def log_image_batch(run, name, images):
    """Writes a batch of images, float [N, H, W, C] of pixels 0..255, to TensorBoard."""
    with tf.summary.create_file_writer(str(run.folder("logs") / "pictures")).as_default():
        tf.summary.image(name, np.clip(images, 0, 255).astype(np.uint8), step=0, max_outputs=len(images))


def log_hparams(folder, config, metrics):
    """Writes hyper-parameters and final metrics of a run to TensorBoard's HParams page.

    Shown are the fields that a sweep can vary and those that are not at their default; more would hide them.
    """
    def is_shown(item):
        is_changed = not item.metadata["volatile"] and getattr(config, item.name) != item.default
        return item.metadata["search"] is not None or is_changed

    values = {item.name: getattr(config, item.name) for item in dataclasses.fields(config) if is_shown(item)}
    with tf.summary.create_file_writer(str(folder)).as_default():
        hp.hparams(values)
        for name, value in metrics.items():
            tf.summary.scalar(name, float(value), step=0)


def write_report(run, title, metrics, sections, plots):
    """Writes `report.md`.

    Args:
        run: the run.
        title: heading.
        metrics: flat dictionary, printed as a table.
        sections: {heading: Markdown text}.
        plots: {caption: path of a PNG inside the workdir}.
    """
    lines = [f"# {title}", "", markdown_table(["metric", "value"], metrics.items())]
    for heading, text in sections.items():
        lines += ["", f"## {heading}", "", text.strip()]
    lines += ["", "## Pictures", ""] if plots else []
    lines += [f"![{caption}]({pathlib.Path(path).relative_to(run.path)})\n" for caption, path in plots.items()]
    lines += ["", "## Configuration", "", markdown_table(["field", "value"], config_lib.to_dict(run.config).items())]
    path = run.path / "report.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def markdown_table(header, rows):
    """A Markdown table; numbers are shown with six significant digits."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(format_value(cell) for cell in line) + " |" for line in lines)


def format_value(value):
    """A value for people: six significant digits of a float, anything else as it is."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
