// Requests to the server, and its news.

async function answered(request) {
  let reply;
  try {
    reply = await request;
  } catch {
    throw new Error("The server does not answer. Is the program still running?");
  }
  const content = await reply.json();
  if (!reply.ok) throw new Error(content.error);
  return content;
}

/** Asks the server to do something; throws an Error with its message when it refuses. */
export function post(path, fields = {}) {
  return answered(fetch(path, {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(fields),
  }));
}

/** Sends an SGF file. */
export function load(file) {
  return answered(fetch("/api/load", {method: "POST", headers: {"Content-Type": "application/x-go-sgf"}, body: file}));
}

/** The newest analysis of a position, or null. */
export function analysisOf(position) {
  return answered(fetch(`/api/analysis?position=${position}`));
}

/**
 * Calls onGame and onAnalysis with what is new, and onState with whether the connection stands. Hidden pages do not
 * listen: browsers allow six connections to a server, for all tabs together.
 */
export function watch(onGame, onAnalysis, onState) {
  let source = null;
  const listen = () => {
    if (document.hidden) {
      source?.close();
      source = null;
    } else if (!source) {
      source = new EventSource("/api/events");
      source.addEventListener("game", (event) => onGame(JSON.parse(event.data)));
      source.addEventListener("analysis", (event) => onAnalysis(JSON.parse(event.data)));
      source.onopen = () => onState(true);
      source.onerror = () => {
        onState(false);
        if (source?.readyState === EventSource.CLOSED) {  // refused: the browser does not try again by itself
          source = null;
          setTimeout(listen, 3000);
        }
      };
    }
  };
  document.addEventListener("visibilitychange", listen);
  window.addEventListener("pagehide", () => source?.close());
  listen();
}
