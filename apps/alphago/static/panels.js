// What stands beside the board: the status, the players, candidates and moves.

import {short} from "./drawing.js";

const ROWS = 8;  // of candidates
const SIDES = {black: "Black", white: "White"};

/** A new element of HTML; words are never read as HTML. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** 0.634 as 63 %. */
export function percent(share, digits = 0) {
  return `${(100 * share).toFixed(digits)} %`;
}

/** The words on how the game stands, and the detail below them. */
export function statusOf(game) {
  const last = game.moves.at(-1);
  const passed = last?.move === "pass";
  const played = last ? `${SIDES[last.colour]} ${passed ? "passed" : `played ${last.move}`}.` : "";
  if (game.result) {
    const praise = game.result.winner === game.colour ? "Well done! " : "";
    return [resultOf(game), praise + (game.owner ? "All stones count as alive." : "")];
  }
  if (game.preparing) return ["Getting ready…", "The first move on a new board takes longer."];
  if (game.error && ![game.turn, "both"].includes(game.colour)) return ["The player could not move", played];
  if (game.thinking) return ["Thinking…", played];
  const end = passed ? " Pass too to end the game." : "";
  if (game.colour === "both") return [`${SIDES[game.turn]} to move`, played + end];
  return [`Your turn, ${SIDES[game.turn]}`, played + end];
}

function resultOf(game) {
  const {winner, points} = game.result;
  if (!winner) return "A draw";
  const by = points === null ? "by resignation" : `by ${points} ${points === 1 ? "point" : "points"}`;
  return `${SIDES[winner]} wins ${by}`;
}

/** The name of who plays a colour. */
export function playerOf(game, colour) {
  if (game.colour === "both") return game.names?.[colour === "black" ? 0 : 1] || SIDES[colour];
  return game.colour === colour ? "You" : game.player;
}

/** Fills the list of moves; onMove gets the number of moves before the position to show. */
export function fillMoves(list, game, shown, onMove) {
  const items = game.moves.map(({colour, move}, k) => {
    const button = element("button", {
      type: "button", className: `move ${colour}`, ariaLabel: `Move ${k + 1}, ${colour} ${move}`,
      onclick: () => onMove(k + 1)}, element("span", {className: "number"}, String(k + 1)), move);
    if (k + 1 === shown) button.ariaCurrent = "true";
    return element("li", {}, button);
  });
  list.replaceChildren(...items);
  const current = items[shown - 1];
  if (current) list.scrollTop = current.offsetTop - list.clientHeight / 2;
  else list.scrollTop = shown ? list.scrollHeight : 0;
}

/**
 * Fills the table of candidates; onLine gets the move of which the line is to be shown, and whether to keep it. Rows
 * stay and only their words change, since a button that is replaced while it is pressed is never clicked.
 */
export function fillCandidates(body, candidates, kept, onLine) {
  while (body.rows.length < ROWS) body.append(candidateRow(onLine));
  [...body.rows].forEach((row, rank) => {
    row.hidden = rank >= candidates.length;
    if (row.hidden) return;
    const {move, visits, rate, prior, line} = candidates[rank], button = row.cells[0].firstElementChild;
    const words = [percent(rate, 1), short(visits), percent(prior, 1), line.slice(1).join(" ")];
    words.forEach((word, k) => row.cells[k + 1].textContent = word);
    button.textContent = row.dataset.move = move;
    button.ariaPressed = String(move === kept);
  });
}

function candidateRow(onLine) {
  const row = element("tr"), shows = (move, isKept = false) => onLine(move ? row.dataset.move : null, isKept);
  const button = element("button", {type: "button", title: "Keep its line on the board"});
  button.addEventListener("click", () => shows(true, true));
  for (const event of ["mouseenter", "mouseleave"]) row.addEventListener(event, () => shows(event === "mouseenter"));
  for (const event of ["focus", "blur"]) button.addEventListener(event, () => shows(event === "focus"));
  row.append(element("th", {scope: "row"}, button), ...Array.from({length: 4}, () => element("td")));
  row.lastElementChild.className = "line";
  return row;
}

/** Rows of a position for screen readers. */
export function wordsOf(stones, size) {
  const rows = [];
  for (let row = 0; row < size; row++) {
    const signs = stones.slice(row * size, (row + 1) * size).map((colour) => ({black: "X", white: "O"}[colour] ?? "."));
    rows.push(`${size - row}: ${signs.join(" ")}`);
  }
  return rows.join("\n");
}

/** Says something for some seconds. */
export function toast(words) {
  const place = document.getElementById("toast");
  place.textContent = words;
  place.classList.add("shown");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => place.classList.remove("shown"), 5000);
}
