// The page: keeps what the server told, and which position is looked at.

import {BoardDrawing, nameOf, pointOf, short} from "./drawing.js";
import {RateGraph} from "./graph.js";
import {fillCandidates, fillMoves, percent, playerOf, statusOf, toast, wordsOf} from "./panels.js";
import {analysisOf, load, post, watch} from "./server.js";

const SIDES = {black: "Black", white: "White"};
const $ = (id) => document.getElementById(id);
const analyses = new Map();  // of positions, by their number
let game = null;
let stones = [];  // of every position: arrays of "black", "white" and null
let taken = [];  // by each side before every position
let looking = null;  // number of the position that is looked at, null: the newest
let view = "candidates";  // what is shown on the board: candidates, policy or nothing
let hovered = null, kept = null;  // candidates of which the lines are shown
let isOnline = true;

const drawing = new BoardDrawing($("board"), play, point);
const graph = new RateGraph($("graph"), look);

/** Moves before the position that is shown. */
function shown() {
  const at = looking === null ? -1 : game.positions.indexOf(looking);
  return at < 0 ? game.moves.length : at;
}

function turnAt(number) {
  return game.moves[number]?.colour ?? game.turn;
}

function analysis() {
  return analyses.get(game.positions[shown()]) ?? null;
}

/** Does what may be refused, and says why it was. */
async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    toast(error.message);
    return undefined;
  }
}

function replay() {
  const now = Array(game.size ** 2).fill(null), counts = {black: 0, white: 0};
  for (const colour of ["black", "white"]) {
    for (const name of game.setup[colour]) now[pointOf(name, game.size)] = colour;
  }
  stones = [[...now]];
  taken = [{...counts}];
  for (const {colour, move, taken: gone} of game.moves) {
    if (move !== "pass") now[pointOf(move, game.size)] = colour;
    for (const name of gone) {
      const point = pointOf(name, game.size);
      counts[now[point] === "black" ? "white" : "black"] += 1;
      now[point] = null;
    }
    stones.push([...now]);
    taken.push({...counts});
  }
}

function onGame(told) {
  const before = game?.positions[shown()];
  const grown = game && told.moves.length === game.moves.length + 1 && told.positions[0] === game.positions[0];
  game = told;
  if (!game.positions.includes(looking) || looking === game.positions.at(-1)) looking = null;
  for (const position of analyses.keys()) if (!game.positions.includes(position)) analyses.delete(position);
  if (game.positions[shown()] !== before) hovered = kept = null;
  replay();
  drawing.resize(game.size);
  draw(grown && looking === null);
  ask();
}

function onAnalysis(told) {
  const at = game.positions.indexOf(told.position);
  if (at < 0) return;
  analyses.set(told.position, told);
  game.rates[at] = told.rate;
  drawGraph();
  if (at === shown()) drawThoughts();
}

/** Fetches what is known of the shown position, unless it is here. */
async function ask() {
  const position = game.positions[shown()];
  if (analyses.has(position)) return;
  const told = await attempt(() => analysisOf(position));
  if (told && !analyses.has(position)) onAnalysis(told);
}

function look(number) {
  const at = Math.min(Math.max(number, 0), game.moves.length);
  looking = at === game.moves.length ? null : game.positions[at];
  hovered = kept = null;
  draw();
  ask();
  if (game.analysing.on) attempt(() => post("/api/analyse", {on: true, position: looking}));
}

function play(point) {
  const move = typeof point === "string" ? point : nameOf(point, game.size);
  if (looking !== null) {
    toast("You are looking back. Go to the newest position to play, or continue from here.");
    return undefined;
  }
  return attempt(() => post("/api/play", {move, position: game.positions.at(-1)}));
}

/** The mouse is over a point, or null: nowhere. */
function point(at) {
  const name = at === null ? null : nameOf(at, game.size);
  const candidate = view === "candidates" && analysis()?.candidates.find(({move, visits}) => move === name && visits);
  if ((candidate?.move ?? null) !== hovered) {
    hovered = candidate?.move ?? null;
    drawThoughts();
  }
  const mine = looking === null && !game.thinking && game.legal.includes(name);
  drawing.ghost(mine ? at : null, game.turn);
}

function draw(isNew = false) {
  const number = shown(), isNewest = number === game.moves.length;
  const [status, detail] = statusOf(game);
  const last = number ? pointOf(game.moves[number - 1].move, game.size) : -1;
  document.title = `${game.thinking || game.result ? "" : "● "}Go against ${game.player}`;
  $("against").textContent = `against ${game.player}`;
  document.querySelector(".opponent").textContent = game.player;
  const [words, more] = $("status").children;
  if (words.textContent !== status) words.textContent = status;  // a live region is read again when it changes
  if (more.textContent !== detail) more.textContent = detail;
  for (const colour of ["black", "white"]) {
    const place = $(colour);
    place.classList.toggle("turn", turnAt(number) === colour && !(isNewest && game.result));
    place.querySelector(".name").textContent = playerOf(game, colour);
    const komi = colour === "white" && game.komi ? ` · komi ${game.komi}` : "";
    place.querySelector(".taken").textContent = `${taken[number][colour]} taken${komi}`;
  }
  drawing.stones(stones[number], last, isNewest ? game.owner : null, isNew);
  drawing.ghost(null);
  $("board").setAttribute("aria-label", `Board of ${game.size}, after move ${number}`);
  $("words").textContent = wordsOf(stones[number], game.size);
  $("comment").hidden = !game.comments[number];
  $("comment").textContent = game.comments[number] ?? "";
  $("shown").textContent = `Move ${number} of ${game.moves.length}`;
  $("first").disabled = $("previous").disabled = number === 0;
  $("next").disabled = $("last").disabled = isNewest;
  $("back").hidden = isNewest;
  $("pass").disabled = game.thinking || Boolean(game.result) || !isNewest;
  $("resign").disabled = Boolean(game.result);
  $("undo").disabled = !game.moves.length && !game.result;
  $("seat").value = game.colour;
  $("picture").href = `/api/board.png?numbers=1&position=${game.positions[number]}`;
  $("analyse").ariaPressed = String(game.analysing.on);
  fillMoves($("moves"), game, number, look);
  drawAlert();
  drawGraph();
  drawThoughts();
}

function drawAlert() {
  const words = isOnline ? game?.error && `${game.player} failed. ${game.error}` :
    "The connection to the server is lost. Is the program still running?";
  $("alert").hidden = !words;
  $("alert").firstElementChild.textContent = words || "";
  $("retry").hidden = !isOnline;
}

function drawGraph() {
  const number = shown(), rate = game.rates[number];
  graph.draw(game.rates, game.moves.length, number);
  $("rate").textContent = rate === undefined ? "" : `Black ${percent(rate, 1)} · White ${percent(1 - rate, 1)}`;
  const known = rate === undefined ? "unknown" : percent(rate);
  $("graph").setAttribute("aria-label", `Black's win rate after every move; after move ${number}: ${known}`);
}

function drawThoughts() {
  const found = analysis(), candidates = found?.candidates ?? [], number = shown();
  const chosen = candidates.find(({move}) => move === (hovered ?? kept));
  drawing.heat(view === "policy" ? candidates : []);
  if (chosen?.line.length) drawing.line(chosen.line, turnAt(number), stones[number]);
  else drawing.candidates(view === "candidates" ? candidates.slice(0, 12) : []);
  $("candidates").ariaPressed = String(view === "candidates");
  $("policy").ariaPressed = String(view === "policy");
  $("rated").textContent = `${SIDES[turnAt(number)]} wins`;
  $("table").hidden = !candidates.length;
  $("visits").textContent = found ? `${short(found.visits)} visits` : "";
  $("nothing").hidden = candidates.length > 0;
  const isOver = game.result && number === game.moves.length;
  $("nothing").textContent = isOver ? "The game is over. Go back to see what was thought of its positions." :
    game.analysing.on || game.thinking ? "Nothing yet…" :
    "Nothing is known of this position. Analyse it, or go back a move to see what was thought before it.";
  fillCandidates($("table").tBodies[0], candidates, kept, (move, isKept) => {
    if (isKept) kept = kept === move ? null : move;
    else hovered = move;
    drawThoughts();
  });
}

function show(name) {
  view = view === name ? "" : name;
  drawThoughts();
}

function dialog(id, onSubmit) {
  const box = $(id), form = box.querySelector("form");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    box.close();
    onSubmit(form);
  });
  box.querySelector(".cancel")?.addEventListener("click", () => box.close());
  return box;
}

const newGame = dialog("new-game", ({size, komi, colour}) => {
  $("status").firstElementChild.textContent = "The board is being prepared…";
  attempt(() => post("/api/new", {size: Number(size.value), komi: Number(komi.value), colour: colour.value}))
    .then(() => draw());
});
const resigning = dialog("resigning", () => attempt(() => post("/api/resign")));
const keys = dialog("keys", () => {});

const actions = {
  new() {
    const {size, komi, colour} = newGame.querySelector("form");
    size.replaceChildren(...game.sizes.map((number) => new Option(`${number} × ${number}`, number)));
    size.value = game.size;
    komi.value = game.komi;
    colour.value = game.colour;
    newGame.showModal();
  },
  load: () => $("file").click(),
  help: () => keys.showModal(),
  retry: () => attempt(() => post("/api/retry")),
  first: () => look(0),
  previous: () => look(shown() - 1),
  next: () => look(shown() + 1),
  last: () => look(game.moves.length),
  back: () => attempt(() => post("/api/back", {position: looking})),
  pass: () => play("pass"),
  undo: () => attempt(() => post("/api/undo")),
  resign: () => resigning.showModal(),
  analyse: () => attempt(() => post("/api/analyse", {on: !game.analysing.on, position: looking})),
  candidates: () => show("candidates"),
  policy: () => show("policy"),
};
for (const [id, action] of Object.entries(actions)) $(id).addEventListener("click", () => game && action());

const pressed = {
  ArrowLeft: actions.previous, ArrowRight: actions.next, Home: actions.first, End: actions.last,
  ArrowUp: () => look(shown() - 10), ArrowDown: () => look(shown() + 10), "?": actions.help, m: () => $("move").focus(),
  p: actions.pass, u: actions.undo, a: actions.analyse, c: actions.candidates, h: actions.policy, n: actions.new,
};
document.addEventListener("keydown", (event) => {
  const action = Object.hasOwn(pressed, event.key) && pressed[event.key];
  const isElsewhere = event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, dialog");
  if (!game || !action || isElsewhere || event.repeat && event.key.length === 1) return;
  event.preventDefault();
  action();
});
$("typed").addEventListener("submit", async (event) => {
  event.preventDefault();
  const words = $("move").value.trim();
  if (words && await play(words)) $("move").value = "";
});
$("move").addEventListener("keydown", (event) => event.key === "Escape" && $("move").blur());
$("seat").addEventListener("change", async () => {
  await attempt(() => post("/api/seat", {colour: $("seat").value}));
  draw();  // also when it was refused
});
$("file").addEventListener("change", async () => {
  const [file] = $("file").files;
  $("file").value = "";
  if (file && await attempt(() => load(file))) toast(`${file.name} is on the board.`);
});

watch(onGame, onAnalysis, (state) => {
  isOnline = state;
  drawAlert();
});
