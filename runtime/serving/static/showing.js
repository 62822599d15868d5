// Makes elements of an answer. Texts are text nodes, whatever is in them: passages are not to be trusted.

const MINUS = "\u2212";

// An element with children, which are elements or texts.
function make(tag, className, ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

function number(value, digits) {
  return value === null ? "none" : value.toFixed(digits).replace("-", MINUS);
}

// A bar that is so much of its track, from 0 to 1; what it says stands beside it in figures.
function bar(share, className) {
  const filled = make("span", `bar ${className}`);
  filled.style.width = `${(100 * share).toFixed(1)}%`;
  const track = make("span", "track", filled);
  track.setAttribute("aria-hidden", "true");
  return track;
}

// Says how sure the model was.
export function sureness({ log_probability: logProbability }) {
  if (logProbability === null) return "";
  const percent = (100 * Math.exp(logProbability)).toPrecision(3);
  return `log-probability ${number(logProbability, 3)}: the model held it ${percent}% likely`;
}

// What stands instead of an answer that is none.
export function withoutAnswer({ abstained, passages }) {
  if (abstained) return "No answer: the model is less sure than you asked for.";
  return passages.length ? "The model gave an empty answer." : "No passage was found for this question.";
}

// The passages, the best first, and the times.
export function evidence(answer, requestMs) {
  const found = [make("h2", "", "Time by stage"), times(answer.milliseconds, requestMs)];
  return answer.passages.length ? [make("h2", "", "Passages"), ...passageList(answer.passages), ...found] : found;
}

function passageList(passages) {
  const ranked = passages.some((passage) => passage.score !== null);
  const ordered = ranked ? [...passages].sort((a, b) => (b.score ?? -Infinity) - (a.score ?? -Infinity)) : passages;
  const shares = { score: scale(passages, "score"), retrieval_score: scale(passages, "retrieval_score") };
  const hasScores = passages.some((passage) => passage.score !== null || passage.retrieval_score !== null);
  const order = ranked ? "Best first, as the model ranks them." : "In the order they were found.";
  const note = hasScores ? `${order} Bars run from the lowest score of these to the highest.` : order;
  const list = make("ol", "", ...ordered.map((passage) => passageItem(passage, shares)));
  list.setAttribute("role", "list"); // without markers it is none to some readers
  return [make("p", "faint", note), list];
}

// Where a score stands among those of its name, from 0.02 (the lowest is seen too) to 1.
function scale(passages, name) {
  const values = passages.map((passage) => passage[name]).filter((value) => value !== null);
  const least = Math.min(...values);
  const span = Math.max(...values) - least;
  return (value) => (span === 0 ? 1 : 0.02 + (0.98 * (value - least)) / span);
}

function passageItem(passage, shares) {
  const facts = [`${passage.retrieval_score === null ? "given" : "retrieved"} no. ${passage.rank}`];
  if (passage.id !== null) facts.push(`id ${passage.id}`);
  if (passage.truncated) facts.push("too long, its end was not read");
  const title = make("span", "title", passage.title || "Without a title");
  title.dir = "auto";
  const text = make("p", "text", passage.text);
  text.dir = "auto";
  const summary = make("summary", "", title, " ", make("span", "mark", passage.read ? "read" : ""), " ",
    make("span", "faint", facts.join(", ")));
  const details = make("details", "", summary, text);
  details.open = passage.read;
  const scores = make("div", "scores");
  for (const [name, label, className] of [["score", "model", ""], ["retrieval_score", "retrieval", "retrieval"]]) {
    if (passage[name] === null) continue;
    scores.append(make("span", "", label), bar(shares[name](passage[name]), className),
      make("span", "value", number(passage[name], 2)));
  }
  return make("li", passage.read ? "passage read" : "passage", details, scores);
}

function times(milliseconds, requestMs) {
  const { total, ...stages } = milliseconds;
  const whole = Math.max(requestMs, total ?? 0);
  const row = ([name, value], className = "") =>
    make("div", `row ${className}`, make("dt", className, name.replaceAll("_", " ")),
      bar(value === null ? 0 : value / whole, className && "retrieval"),
      make("dd", `value ${className}`, value === null ? "none" : `${number(value, 1)} ms`));
  const sums = total === undefined ? [] : [row(["total", total], "total")];
  return make("dl", "times", ...Object.entries(stages).map((stage) => row(stage)), ...sums,
    row(["with waiting and network", requestMs], "total"));
}
