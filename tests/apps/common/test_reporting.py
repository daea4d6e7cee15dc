import json
import types

import numpy as np
import PIL.Image
import pytest

from apps.common import reporting
from apps.image_classification.config import Config


@pytest.fixture
def run(tmp_path):
    config = Config(workdir=str(tmp_path), learning_rate=0.25)
    return types.SimpleNamespace(path=tmp_path, config=config)


def test_metrics_are_plain_numbers(run):
    written = reporting.write_metrics(run, {"accuracy": np.float32(0.5), "steps": np.int64(3), "seconds": 1.5})
    assert written == {"accuracy": 0.5, "steps": 3, "seconds": 1.5}
    assert json.loads((run.path / "metrics.json").read_text()) == written


def test_report_holds_metrics_sections_pictures_and_configuration(run):
    path = reporting.write_report(run, "A title", {"accuracy": 0.123456789}, {"Files": "a table"},
                                  {"curves": run.path / "plots" / "curves.png"})
    text = path.read_text()
    for part in ("# A title", "| accuracy | 0.123457 |", "## Files\n\na table", "![curves](plots/curves.png)",
                 "| learning_rate | 0.25 |"):
        assert part in text


def test_markdown_table():
    table = reporting.markdown_table(["name", "value"], [("a", 1.0), ("b", "x")])
    assert table == "| name | value |\n| --- | --- |\n| a | 1 |\n| b | x |"


def picture(figure, path):
    pixels = reporting.save_figure(figure, path)
    assert pixels.dtype == np.uint8 and pixels.shape[0] == 1 and pixels.shape[-1] == 3
    assert PIL.Image.open(path).size == (pixels.shape[2], pixels.shape[1])
    return pixels[0]


def test_curves_show_training_and_validation(run):
    rows = [{"epoch": e, "loss": 2.0 / (e + 1), "val_loss": 30.0 if e == 0 else 1.0, "accuracy": 0.1 * e,
             "val_accuracy": 0.1 * e, "learning_rate": 0.1} for e in range(5)]
    figure = reporting.curves_figure(rows)
    loss, accuracy, rate = figure.axes
    assert [len(axes.get_lines()) for axes in (loss, accuracy, rate)] == [2, 2, 1]
    assert list(loss.get_lines()[0].get_ydata()) == [row["loss"] for row in rows]
    assert loss.get_ylim()[1] == pytest.approx(3.0)  # one validation far off does not flatten the rest
    picture(figure, run.path / "curves.png")


def test_curves_of_a_model_with_several_outputs():
    rows = [{"epoch": 0, "loss": 1.0, "val_policy_accuracy": 0.2, "policy_accuracy": 0.3, "learning_rate": 0.1}]
    accuracy = reporting.curves_figure(rows).axes[1]
    assert accuracy.get_title() == "policy accuracy"
    assert [list(line.get_ydata()) for line in accuracy.get_lines()] == [[0.3], [0.2]]


def test_fonts_are_those_that_there_are(monkeypatch):
    fonts = [types.SimpleNamespace(name=name) for name in ("DejaVu Sans", "IPAexGothic", "Comic")]
    monkeypatch.setattr(reporting.matplotlib.font_manager.fontManager, "ttflist", fonts)
    reporting.font_families.cache_clear()
    assert reporting.font_families() == ["DejaVu Sans", "IPAexGothic"]
    reporting.font_families.cache_clear()


def test_curves_without_an_epoch(run):
    picture(reporting.curves_figure([]), run.path / "curves.png")


def test_confusion_matrix_is_coloured_by_share_of_the_row():
    matrix = np.array([[9, 1, 0], [0, 0, 0], [2, 0, 2]])
    (axes,) = reporting.confusion_figure(matrix, ["a", "b", "c"]).axes
    np.testing.assert_allclose(axes.get_images()[0].get_array(), [[0.9, 0.1, 0], [0, 0, 0], [0.5, 0, 0.5]])
    assert sorted(text.get_text() for text in axes.texts) == ["1", "2", "2", "9"]


def test_predictions_name_the_true_class_of_mistakes():
    images = np.full((7, 4, 4, 1), 300.0)
    probabilities = np.tile([0.25, 0.75], (7, 1))
    figure = reporting.predictions_figure(images, probabilities, [1, 0, 1, 1, 1, 1, 1], ["cat", "dog"])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "dog 0.75" and titles[1] == "dog 0.75\n(is cat)" and len(titles) == 12
