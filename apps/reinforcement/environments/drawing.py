"""Scenes in coordinates of the world, painted as an image or as text.

A scene is a function (canvas, state) that calls `line`, `disc` and `polygon` of either canvas. Colours are what Pillow
takes; a mark is the character that stands for the thing in text.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

_FINER = 2  # an image is painted this much larger and then shrunk, so that edges are smooth
_ASPECT = 2  # a character is about this much higher than wide

INK, WOOD, STEEL, RED, GREEN, AMBER, SKY, LEAF = ("#222222", "#b5835a", "#4f6d8f", "#c8402f", "#3d9a4d", "#e8a33d",
                                                  "#e8eef4", "#8fb58a")


class Picture:
    """An image `width` pixels wide that shows the box (left, right, bottom, top)."""

    def __init__(self, box, width=360):
        self._left, right, bottom, self._top = box
        self._scale = _FINER * width / (right - self._left)
        height = 2 * round(self._scale * (self._top - bottom) / _FINER / 2)  # even, as films want it
        self._image = Image.new("RGB", (_FINER * width, _FINER * height), "white")
        self._pen = ImageDraw.Draw(self._image)

    def line(self, points, mark, color=INK, width=0.0):
        """Joins points (x, y); `width` in the world's units, at least a pixel."""
        thickness = max(_FINER, round(self._scale * width))
        self._pen.line([self._pixel(point) for point in points], color, thickness, joint="curve")

    def disc(self, center, radius, mark, color=INK):
        """A filled circle."""
        (x, y), r = self._pixel(center), self._scale * radius
        self._pen.ellipse([x - r, y - r, x + r, y + r], color)

    def polygon(self, points, mark, color=INK):
        """A filled polygon."""
        self._pen.polygon([self._pixel(point) for point in points], color)

    def result(self):
        """uint8 [H, W, 3]."""
        size = (self._image.width // _FINER, self._image.height // _FINER)
        return np.asarray(self._image.resize(size, Image.Resampling.BOX))

    def _pixel(self, point):
        return self._scale * (point[0] - self._left), self._scale * (self._top - point[1])


class Text:
    """The same box as `columns` characters a line."""

    def __init__(self, box, columns=60):
        self._left, right, bottom, self._top = box
        self._scale = columns / (right - self._left)
        self._rows = [[" "] * columns for _ in range(math.ceil(self._scale * (self._top - bottom) / _ASPECT))]

    def line(self, points, mark, color=INK, width=0.0):
        """Joins points (x, y) by the mark."""
        for (x0, y0), (x1, y1) in zip(points[:-1], points[1:]):
            for part in np.linspace(0, 1, 2 + int(self._scale * max(abs(x1 - x0), abs(y1 - y0)))):
                self._put(x0 + part * (x1 - x0), y0 + part * (y1 - y0), mark)

    def disc(self, center, radius, mark, color=INK):
        """The mark at the centre."""
        self._put(*center, mark)

    def polygon(self, points, mark, color=INK):
        """The outline."""
        self.line([*points, points[0]], mark)

    def result(self):
        """The lines as one text, without blanks at their ends."""
        return "\n".join("".join(row).rstrip() for row in self._rows)

    def _put(self, x, y, mark):
        row, column = int(self._scale * (self._top - y) / _ASPECT), int(self._scale * (x - self._left))
        if 0 <= row < len(self._rows) and 0 <= column < len(self._rows[0]):
            self._rows[row][column] = mark


def painters(scene, box, *, width=360, columns=60):
    """(draw, picture) of an `Environment`: state -> text, and state -> image, of one scene."""
    def paint(canvas, state):
        scene(canvas, state)
        return canvas.result()

    return lambda state: paint(Text(box, columns), state), lambda state: paint(Picture(box, width), state)


def bar(base, tip, width):
    """Corners of a rectangle around the line from `base` to `tip`."""
    (x0, y0), (x1, y1) = base, tip
    length = math.hypot(x1 - x0, y1 - y0)
    dx, dy = -(y1 - y0) / length * width / 2, (x1 - x0) / length * width / 2
    return [(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)]
