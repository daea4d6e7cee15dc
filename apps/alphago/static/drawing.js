// The board as SVG. A cell has 40 units, as in the pictures that the server makes.

const CELL = 40, EDGE = 44, SPACE = "http://www.w3.org/2000/svg";
const COLUMNS = "ABCDEFGHJKLMNOPQRST";
const HEAT = [[40, 110, 210], [20, 165, 150], [250, 200, 50], [222, 40, 45]];

/** A new element of SVG. */
export function shape(name, attributes = {}, ...children) {
  const element = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Number of a point, in rows from the upper left corner; -1 for a pass. */
export function pointOf(name, size) {
  return name === "pass" ? -1 : (size - Number(name.slice(1))) * size + COLUMNS.indexOf(name[0]);
}

/** Name of a point. */
export function nameOf(point, size) {
  return `${COLUMNS[point % size]}${size - Math.floor(point / size)}`;
}

/** 1234 as 1.2k. */
export function short(number) {
  if (number < 1000) return String(number);
  return number < 1e6 ? `${(number / 1000).toFixed(number < 1e4 ? 1 : 0)}k` : `${(number / 1e6).toFixed(1)}M`;
}

function starPoints(size) {
  if (size < 7) return size % 2 ? [(size * size - 1) / 2] : [];
  const edge = size > 12 ? 3 : 2, far = size - 1 - edge, middle = (size - 1) / 2;
  const lines = size % 2 && size > 12 ? [edge, middle, far] : [edge, far];
  const points = lines.flatMap((row) => lines.map((column) => row * size + column));
  return size % 2 && size <= 12 ? [...points, middle * size + middle] : points;
}

function heatColour(share) {
  const place = Math.min(share, 1) * (HEAT.length - 1), below = Math.min(Math.floor(place), HEAT.length - 2);
  const parts = HEAT[below].map((from, k) => Math.round(from + (HEAT[below + 1][k] - from) * (place - below)));
  return `rgb(${parts.join(",")})`;
}

/** Draws into an <svg>; calls onPoint with a point's number when it is clicked, onPointer when the mouse is over it. */
export class BoardDrawing {
  constructor(svg, onPoint, onPointer) {
    this.svg = svg;
    this.size = 0;
    svg.addEventListener("click", (event) => {
      const point = this.pointAt(event);
      if (point !== null) onPoint(point);
    });
    svg.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse") onPointer(this.pointAt(event));
    });
    svg.addEventListener("pointerleave", () => onPointer(null));
  }

  pointAt(event) {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
    const [column, row] = [place.x, place.y].map((at) => Math.round((at - EDGE) / CELL));
    return Math.min(column, row) < 0 || Math.max(column, row) >= this.size ? null : row * this.size + column;
  }

  at(point) {
    return [EDGE + (point % this.size) * CELL, EDGE + Math.floor(point / this.size) * CELL];
  }

  /** An empty board. */
  resize(size) {
    if (size === this.size) return;
    this.size = size;
    const side = (size - 1) * CELL + 2 * EDGE, last = EDGE + (size - 1) * CELL;
    this.svg.setAttribute("viewBox", `0 0 ${side} ${side}`);
    this.svg.replaceChildren(gradients(), shape("rect", {width: side, height: side, fill: "url(#wood)"}));
    const grain = shape("g", {stroke: "#8a5a1c", fill: "none"});
    for (let k = 0; k * 9 < side; k++) {  // as good as random, and always the same
      const noise = (seed) => Math.abs(Math.sin(seed * 91.7 + k * 12.9898) * 43758.5453) % 1, y = noise(1) * side;
      const [up, down] = [y - 12 * noise(2), y + 12 * noise(3)];
      grain.append(shape("path", {
        d: `M0 ${y}C${side * noise(4)} ${up} ${side * noise(5)} ${down} ${side} ${y + 8 * noise(6) - 4}`,
        "stroke-width": 0.8 + 2.4 * noise(7), "stroke-opacity": 0.04 + 0.1 * noise(8)}));
    }
    const letter = 10 + size / 4;
    const lines = shape("g", {stroke: "#3d2a12", "stroke-linecap": "square"}), letters = shape("g", {class: "letters"});
    for (let k = 0; k < size; k++) {
      const at = EDGE + k * CELL, width = k === 0 || k === size - 1 ? 2.2 : 1.2;
      lines.append(shape("path", {d: `M${EDGE} ${at}H${last}M${at} ${EDGE}V${last}`, "stroke-width": width}));
      for (const edge of [14, side - 14]) {
        letters.append(label(at, edge, letter, COLUMNS[k]), label(edge, at, letter, String(size - k)));
      }
    }
    for (const point of starPoints(size)) {
      const [x, y] = this.at(point);
      lines.append(shape("circle", {cx: x, cy: y, r: 3.2, fill: "#3d2a12", "stroke-width": 2}));
    }
    this.layers = {};
    for (const name of ["heat", "shadows", "stones", "owner", "marks", "thoughts", "ghost"]) {
      this.layers[name] = shape("g", {class: name});
    }
    this.svg.append(grain, lines, letters, ...Object.values(this.layers));
  }

  /** Stones, an array of "black", "white" and null; last is the point of the last move, owner the score's +1, -1, 0. */
  stones(stones, last, owner, isNew) {
    for (const name of ["shadows", "stones", "owner", "marks"]) this.layers[name].replaceChildren();
    stones.forEach((colour, point) => {
      const [x, y] = this.at(point);
      if (colour) {
        this.layers.shadows.append(shape("circle", {cx: x + 1.5, cy: y + 2.5, r: 20.5, fill: "url(#shadow)"}));
        this.layers.stones.append(this.stone(point, colour, isNew && point === last));
      } else if (owner?.[point]) {
        const attributes = {x: x - 7, y: y - 7, width: 14, height: 14, rx: 2, "data-point": nameOf(point, this.size)};
        this.layers.owner.append(shape("rect", {...attributes, class: owner[point] > 0 ? "black" : "white"}));
      }
    });
    if (last >= 0) {
      const [x, y] = this.at(last);
      this.layers.marks.append(shape("circle", {
        cx: x, cy: y, r: 8.5, class: "last", stroke: stones[last] === "black" ? "#f7f5ee" : "#c8102e"}));
    }
  }

  stone(point, colour, isNew = false) {
    const [cx, cy] = this.at(point);
    return shape("circle", {
      cx, cy, r: 19, fill: `url(#${colour}-stone)`, class: `stone ${colour}${isNew ? " new" : ""}`,
      "data-point": nameOf(point, this.size)});
  }

  /** The priors of candidates as colours; only those of 1 % or more have a number. */
  heat(candidates) {
    this.layers.heat.replaceChildren();
    const top = Math.max(...candidates.map((candidate) => candidate.prior));
    for (const {move, prior} of candidates) {
      if (move === "pass" || prior < 0.01 * top) continue;
      const [x, y] = this.at(pointOf(move, this.size));
      const share = Math.sqrt(prior / Math.max(top, 0.2));  // where no move stands out, none is hot
      this.layers.heat.append(shape("rect", {
        x: x - 18.5, y: y - 18.5, width: 37, height: 37, rx: 6, fill: heatColour(share),
        "fill-opacity": 0.3 + 0.55 * share, "data-point": move}));
      if (prior >= 0.01) this.layers.heat.append(label(x, y, 15, String(Math.round(100 * prior))));
    }
  }

  /** Candidates with their win rates and visits; the first is the best. */
  candidates(candidates) {
    this.layers.thoughts.replaceChildren();
    const top = Math.max(...candidates.map((candidate) => candidate.visits), 1);
    candidates.forEach(({move, visits, rate}, rank) => {
      if (move === "pass" || !visits) return;
      const [cx, cy] = this.at(pointOf(move, this.size)), share = Math.sqrt(visits / top);
      const fill = rank === 0 ? "hsl(187 80% 46%)" : `hsl(${Math.round(30 + 95 * share)} 72% 50%)`;
      this.layers.thoughts.append(shape("g", {class: "candidate", "data-point": move},
        shape("circle", {cx, cy, r: 18.5, fill, "fill-opacity": 0.55 + 0.4 * share, class: rank === 0 ? "best" : ""}),
        label(cx, cy - 4, 13.5, (100 * rate).toFixed(0)), label(cx, cy + 8.5, 9.5, short(visits))));
    });
  }

  /** A line of moves that is expected, the first made by colour. */
  line(moves, colour, stones) {
    this.layers.thoughts.replaceChildren();
    const shown = new Set();
    moves.forEach((move, number) => {
      const point = pointOf(move, this.size), side = (number % 2 === 0) === (colour === "black") ? "black" : "white";
      if (point < 0 || shown.has(point) || stones[point] && number === 0) return;
      shown.add(point);
      const [x, y] = this.at(point);
      this.layers.thoughts.append(shape("g", {class: `expected ${side}`, "data-point": move}, this.stone(point, side),
                                        label(x, y, 17, String(number + 1))));
    });
  }

  /** The stone that a click would put, or none for point null. */
  ghost(point, colour) {
    this.layers.ghost.replaceChildren(...(point === null ? [] : [this.stone(point, colour)]));
  }
}

function label(x, y, size, words) {
  return shape("text", {x, y: y + 0.355 * size, "font-size": size, "text-anchor": "middle"}, words);
}

function gradients() {
  const radial = (id, stops, x, y, r) => shape("radialGradient", {id, cx: x, cy: y, r},
    ...stops.map(([offset, colour, opacity = 1]) => shape("stop", {
      offset, "stop-color": colour, "stop-opacity": opacity})));
  return shape("defs", {},
    radial("black-stone", [[0, "#7a7a80"], [0.4, "#303034"], [1, "#08080a"]], 0.35, 0.3, 0.7),
    radial("white-stone", [[0, "#ffffff"], [0.6, "#f1f0ec"], [1, "#bcb9b1"]], 0.35, 0.3, 0.8),
    radial("shadow", [[0, "#281400", 0.6], [0.8, "#281400", 0.5], [1, "#281400", 0]], 0.5, 0.5, 0.5),
    shape("linearGradient", {id: "wood", x1: 0, y1: 0, x2: 0.3, y2: 1}, shape("stop", {"stop-color": "#e6be79"}),
          shape("stop", {offset: 1, "stop-color": "#d8aa60"})));
}
