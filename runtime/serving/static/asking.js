// Asks the server, and reads the events that it sends.

// What goes wrong, in words that are shown as they are.
export class Problem extends Error {
  constructor(kind, message, { requestId = "", retryAfter = "", wantsToken = false } = {}) {
    super(message);
    Object.assign(this, { kind, requestId, retryAfter, wantsToken });
  }
}

// Yields {text}, what the answer has grown by, and last {answer}, all of it; throws Problem.
export async function* ask(asked, token, signal) {
  const headers = { "Content-Type": "application/json" };
  if (token) {
    if (!/^[\x21-\x7e]+$/.test(token)) throw new Problem("Token", "A token has no spaces, and no letters beyond ASCII.");
    headers.Authorization = `Bearer ${token}`;
  }
  const body = JSON.stringify({ ...asked, stream: true });
  const response = await reached(fetch("v1/answer", { method: "POST", headers, body, signal, cache: "no-store" }));
  if (!response.ok) throw await problemOf(response);
  for await (const { name, data } of events(response.body.getReader())) {
    if (name === "error") throw problemIn(data);
    yield data;
    if (name === "answer") return;
  }
  throw new Problem("Interrupted", "The connection ended before the answer was whole.");
}

// {ready, message, again}: whether questions are taken, and whether that may change by itself.
export async function readiness() {
  const response = await reached(fetch("readyz", { cache: "no-store" }));
  if (response.ok) return { ready: true, message: "Ready", again: false };
  const problem = await problemOf(response);
  const again = problem.retryAfter !== "";
  return { ready: false, message: again ? "Warming up" : `Not ready: ${problem.message}`, again };
}

async function reached(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("Unreachable", "The server cannot be reached.");
  }
}

async function* events(reader) {
  const decoder = new TextDecoder();
  let buffer = "";
  for (;;) {
    const { done, value } = await reached(reader.read());
    if (done) return;
    buffer += decoder.decode(value, { stream: true });
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop();
    for (const block of blocks) yield eventOf(block);
  }
}

function eventOf(block) {
  const fields = new Map(block.split("\n").map((line) => [line.split(": ", 1)[0], line.slice(line.indexOf(": ") + 2)]));
  return { name: fields.get("event"), data: JSON.parse(fields.get("data")) };
}

async function problemOf(response) {
  const rest = { retryAfter: response.headers.get("Retry-After") ?? "", wantsToken: response.status === 401 };
  try {
    return problemIn(await response.json(), `${response.status} `, rest);
  } catch {
    return new Problem(`${response.status}`, response.statusText || "The server did not say why.", rest);
  }
}

function problemIn({ error }, status = "", rest = {}) {
  return new Problem(status + error.type, error.message, { requestId: error.request_id, ...rest });
}
