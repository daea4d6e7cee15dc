// Black's win rate after every move: the dark area is black's share.

import {shape} from "./drawing.js";

const LEFT = 40, RIGHT = 8, TOP = 8, BOTTOM = 20;

/** Draws into an <svg>; calls onMove with the number of moves when a place is clicked. */
export class RateGraph {
  constructor(svg, onMove) {
    this.svg = svg;
    this.last = null;
    svg.addEventListener("click", (event) => {
      const {width, moves} = this.last, at = event.clientX - svg.getBoundingClientRect().left;
      const number = Math.round((at - LEFT) / (width - LEFT - RIGHT) * this.span(moves));
      onMove(Math.min(Math.max(number, 0), moves));
    });
    new ResizeObserver(() => this.last && this.draw(this.last.rates, this.last.moves, this.last.shown)).observe(svg);
  }

  span(moves) {
    return Math.max(moves, 10);
  }

  /** rates: {moves before: black's win rate}; moves: of the game; shown: moves before the position that is shown. */
  draw(rates, moves, shown) {
    const {width, height} = this.svg.getBoundingClientRect(), span = this.span(moves);
    this.last = {rates, moves, shown, width};
    if (!width) return;
    const x = (number) => LEFT + number / span * (width - LEFT - RIGHT);
    const y = (rate) => TOP + (1 - rate) * (height - TOP - BOTTOM);
    const known = Object.entries(rates).map(([number, rate]) => [Number(number), rate]).sort((a, b) => a[0] - b[0]);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(shape("rect", {
      class: "white-share", x: LEFT, y: TOP, width: width - LEFT - RIGHT, height: height - TOP - BOTTOM, rx: 3}));
    const line = known.map(([number, rate]) => `${x(number)},${y(rate)}`);
    if (known.length > 1) {
      const [first, final] = [known[0][0], known.at(-1)[0]];
      this.svg.append(
        shape("polygon", {class: "black-share", points: `${x(first)},${y(0)} ${line.join(" ")} ${x(final)},${y(0)}`}),
        shape("polyline", {class: "rate", points: line.join(" ")}));
    }
    this.svg.append(shape("path", {class: "half", d: `M${LEFT} ${y(0.5)}H${width - RIGHT}`}));
    for (const rate of [0, 0.5, 1]) this.text(LEFT - 5, y(rate) + 4, "end", `${100 * rate}%`);
    for (const number of ticks(span)) this.text(x(number), height - 4, "middle", String(number));
    this.svg.append(shape("path", {class: "shown", d: `M${x(shown)} ${TOP}V${height - BOTTOM}`}));
    for (const [number, rate] of known) {
      this.svg.append(shape("circle", {
        class: number === shown ? "point current" : "point", cx: x(number), cy: y(rate), "data-moves": number,
        r: number === shown ? 4.5 : known.length > 60 ? 1 : 2.2}));
    }
  }

  text(x, y, anchor, words) {
    this.svg.append(shape("text", {x, y, "text-anchor": anchor}, words));
  }
}

function ticks(span) {
  const step = [2, 5, 10, 20, 50, 100, 200].find((length) => span / length <= 6) ?? 500;
  return Array.from({length: Math.floor(span / step) + 1}, (_, k) => k * step);
}
