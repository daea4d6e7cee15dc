"""Shapes that can be written as SVG and painted into pixels, and look the same both ways."""

import functools
import typing
from xml.sax import saxutils

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

_SHARPER = 3  # everything is painted so many times larger and then made smaller: that makes edges smooth
# A gradient: stops (place, red, green, blue, opacity); its middle and radius as parts of the width of what it fills.
_GRADIENTS = {
    "black": (((0.0, 122, 122, 128, 1.0), (0.4, 48, 48, 52, 1.0), (1.0, 8, 8, 10, 1.0)), 0.35, 0.3, 0.7),
    "white": (((0.0, 255, 255, 255, 1.0), (0.6, 241, 240, 236, 1.0), (1.0, 188, 185, 177, 1.0)), 0.35, 0.3, 0.8),
    "shadow": (((0.0, 40, 20, 0, 0.6), (0.8, 40, 20, 0, 0.5), (1.0, 40, 20, 0, 0.0)), 0.5, 0.5, 0.5),
}


class Box(typing.NamedTuple):
    """A rectangle from its upper left corner, `corner` is the radius of its corners."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    opacity: float = 1.0
    corner: float = 0.0

    def element(self):
        """As SVG."""
        corner = f' rx="{self.corner:g}"' if self.corner else ""
        return (f'<rect x="{self.x:.2f}" y="{self.y:.2f}" width="{self.width:.2f}" height="{self.height:.2f}"{corner} '
                f'fill="{self.fill}"{_opacity("fill", self.opacity)}/>')

    def paint(self, canvas, scale):
        """Into an image, in which a unit has `scale` pixels."""
        left, upper = self.x * scale, self.y * scale
        corners = [left, upper, left + max(self.width * scale - 1, 0), upper + max(self.height * scale - 1, 0)]
        ImageDraw.Draw(canvas, "RGBA").rounded_rectangle(corners, self.corner * scale, _colour(self.fill, self.opacity))


class Line(typing.NamedTuple):
    """A line through points (x, y)."""

    points: tuple
    width: float
    colour: str
    opacity: float = 1.0

    def element(self):
        """As SVG."""
        points = " ".join(f"{x:.2f},{y:.2f}" for x, y in self.points)
        return (f'<polyline points="{points}" fill="none" stroke="{self.colour}" stroke-width="{self.width:.2f}"'
                f'{_opacity("stroke", self.opacity)} stroke-linejoin="round"/>')

    def paint(self, canvas, scale):
        """Into an image, in which a unit has `scale` pixels."""
        points = [(x * scale, y * scale) for x, y in self.points]
        ImageDraw.Draw(canvas, "RGBA").line(points, _colour(self.colour, self.opacity), round(self.width * scale),
                                            "curve")


class Disc(typing.NamedTuple):
    """A disc around (x, y); `fill` is a colour, the name of a gradient (black, white, shadow), or empty."""

    x: float
    y: float
    radius: float
    fill: str
    edge: str = ""
    edge_width: float = 0.0

    def element(self):
        """As SVG."""
        fill = f"url(#{self.fill})" if self.fill in _GRADIENTS else self.fill or "none"
        edge = f' stroke="{self.edge}" stroke-width="{self.edge_width:g}"' if self.edge else ""
        return f'<circle cx="{self.x:.2f}" cy="{self.y:.2f}" r="{self.radius:.2f}" fill="{fill}"{edge}/>'

    def paint(self, canvas, scale):
        """Into an image, in which a unit has `scale` pixels."""
        outer = (self.radius + self.edge_width / 2) * scale
        left, upper = int(self.x * scale - outer) - 1, int(self.y * scale - outer) - 1
        pixels = np.arange(int(2 * outer) + 4) + 0.5
        x, y = pixels + left - self.x * scale, pixels[:, None] + upper - self.y * scale
        distance = np.hypot(x, y)
        if self.fill:
            _blend(canvas, left, upper, _filled(self.fill, x, y, self.radius * scale),
                   np.clip(self.radius * scale - distance + 0.5, 0, 1))
        if self.edge:
            ring = self.edge_width * scale / 2 - np.abs(distance - self.radius * scale)
            _blend(canvas, left, upper, np.array([*_colour(self.edge, 1)], float), np.clip(ring + 0.5, 0, 1))


class Text(typing.NamedTuple):
    """Letters of which the middle is (x, y)."""

    x: float
    y: float
    text: str
    size: float
    colour: str

    def element(self):
        """As SVG."""
        return (f'<text x="{self.x:.2f}" y="{self.y + 0.355 * self.size:.2f}" text-anchor="middle" '
                f'font-size="{self.size:g}" font-family="system-ui, sans-serif" font-weight="600" '
                f'fill="{self.colour}">{saxutils.escape(self.text)}</text>')

    def paint(self, canvas, scale):
        """Into an image, in which a unit has `scale` pixels."""
        font = _font(max(1, round(self.size * scale)))
        left, _, right, _ = font.getbbox(self.text, "ls")
        # From the base line, so that a comma or a letter without a descender stands where its neighbours do.
        place = self.x * scale - (left + right) / 2, (self.y + 0.355 * self.size) * scale
        ImageDraw.Draw(canvas, "RGBA").text(place, self.text, _colour(self.colour, 1), font, "ls",
                                            stroke_width=self.size * scale / 50)


def write(shapes, side, pixels, title):
    """Text of an SVG file: a square of `side` units, shown with so many pixels a side."""
    defined = []
    for name, (stops, x, y, radius) in _GRADIENTS.items():
        colours = "".join(f'<stop offset="{at:g}" stop-color="rgb({red},{green},{blue})" stop-opacity="{opacity:g}"/>'
                          for at, red, green, blue, opacity in stops)
        defined.append(f'<radialGradient id="{name}" cx="{x}" cy="{y}" r="{radius}">{colours}</radialGradient>')
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{pixels}" height="{pixels}" viewBox="0 0 {side:g} {side:g}" '
        'role="img">', f"<title>{saxutils.escape(title)}</title>", f"<defs>{''.join(defined)}</defs>",
        *(shape.element() for shape in shapes), "</svg>", ""])


def paint(shapes, side, pixels):
    """uint8 [H, W, 3] with H = W = pixels."""
    canvas = Image.new("RGB", (pixels * _SHARPER, pixels * _SHARPER))
    for shape in shapes:
        shape.paint(canvas, pixels * _SHARPER / side)
    return np.array(canvas.resize((pixels, pixels), Image.Resampling.BOX))


@functools.cache
def _font(size):
    return ImageFont.load_default(size)


def _opacity(what, value):
    return "" if value == 1 else f' {what}-opacity="{value:g}"'


def _colour(name, opacity):
    """(red, green, blue, opacity), 0 to 255."""
    return (*ImageColor.getrgb(name), round(255 * opacity))


def _filled(fill, x, y, radius):
    """Colours float [..., 4], 0 to 255, of a disc's pixels that are (x, y) away from its middle."""
    if fill not in _GRADIENTS:
        return np.array([*_colour(fill, 1)], float)
    stops, middle_x, middle_y, reach = _GRADIENTS[fill]
    place = np.hypot(x - (2 * middle_x - 1) * radius, y - (2 * middle_y - 1) * radius) / (2 * reach * radius)
    stops = np.array(stops) * [1, 1, 1, 1, 255]
    return np.stack([np.interp(place, stops[:, 0], stops[:, k]) for k in range(1, 5)], axis=-1)


def _blend(canvas, left, upper, colours, cover):
    """Puts colours [h, w, 4] or [4] on an image, as far as `cover` [h, w], 0 to 1, says."""
    opacity = cover * colours[..., 3]
    layer = np.broadcast_to(colours[..., :3], [*cover.shape, 3]).astype(np.uint8)
    canvas.paste(Image.fromarray(layer), (left, upper), Image.fromarray(opacity.astype(np.uint8)))
