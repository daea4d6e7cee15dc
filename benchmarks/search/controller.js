// A game between two GTP engines through the client of the program Sabaki (npm install @sabaki/gtp).
//
//     node controller.js '{"size": 9, "seconds": 120, "black": ["gnugo", "--mode", "gtp"], "white": [...]}'
//
// Prints one line of JSON: who moved, where, in how many seconds; and the score by each engine. An error ends it.
const {Controller} = require('@sabaki/gtp')

const settings = JSON.parse(process.argv[2])
const LETTERS = {black: 'b', white: 'w'}

async function main() {
  const engines = {}, left = {}, moves = []
  for (const colour of Object.keys(LETTERS)) {
    const [path, ...args] = settings[colour]
    engines[colour] = new Controller(path, args, {cwd: settings.folder})
    engines[colour].start()
    left[colour] = settings.seconds
  }
  async function ask(colour, name, ...args) {
    const answer = await engines[colour].sendCommand({name, args: args.map(String)})
    if (answer.error) throw new Error(`${colour}: ${name} ${args.join(' ')}: ${answer.content}`)
    return answer.content.trim()
  }
  const names = {}
  for (const colour in engines) {
    names[colour] = `${await ask(colour, 'name')} ${await ask(colour, 'version')}`
    await ask(colour, 'boardsize', settings.size)
    await ask(colour, 'clear_board')
    await ask(colour, 'komi', settings.komi)
    await ask(colour, 'time_settings', settings.seconds, 0, 0)
  }
  let passes = 0, end = 'too long', mover = 'black'
  while (moves.length < 4 * settings.size ** 2) {
    const other = mover == 'black' ? 'white' : 'black'
    await ask(mover, 'time_left', LETTERS[mover], Math.floor(left[mover]), 0)
    const began = process.hrtime.bigint()
    const move = await ask(mover, 'genmove', LETTERS[mover])
    const seconds = Number(process.hrtime.bigint() - began) / 1e9
    left[mover] -= seconds
    moves.push([mover, move, seconds])
    if (left[mover] < 0) { end = `${mover} lost on time`; break }
    if (move.toLowerCase() == 'resign') { end = `${mover} resigned`; break }
    await ask(other, 'play', LETTERS[mover], move)  // an illegal move is an error here
    passes = move.toLowerCase() == 'pass' ? passes + 1 : 0
    if (passes == 2) { end = 'two passes'; break }
    mover = other
  }
  const scores = {}
  for (const colour in engines) {
    scores[colour] = await ask(colour, 'final_score')
    await engines[colour].stop()
  }
  console.log(JSON.stringify({names, end, scores, left, moves}))
}

main().catch(error => { console.error(error.message); process.exit(1) })
