// The page's one form: asks, and shows what comes of it.

import { Problem, ask, readiness } from "./asking.js";
import { evidence, sureness, withoutAnswer } from "./showing.js";

const POLL_MS = 1000;
const at = (id) => document.getElementById(id);
let latest = null; // of a question that is asked while another is answered, only the later one is shown

function asked() {
  const found = { question: at("question").value };
  for (const [id, name] of [["top_k", "top_k"], ["top_m", "top_m"], ["least", "min_log_probability"]]) {
    if (at(id).value !== "") found[name] = Number(at(id).value);
  }
  const passages = at("passages").value.split("\n").filter((line) => line.trim() !== "");
  if (passages.length) found.passages = passages;
  return found;
}

function clear() {
  at("problem").hidden = true;
  at("result").hidden = false;
  at("told").setAttribute("aria-busy", "true");
  at("answer").className = "";
  for (const id of ["answer", "sure", "evidence"]) at(id).replaceChildren();
}

function showAnswer(answer, requestMs) {
  at("answer").className = answer.answer ? "" : "none";
  at("answer").textContent = answer.answer || withoutAnswer(answer);
  at("sure").textContent = sureness(answer);
  at("evidence").replaceChildren(...evidence(answer, requestMs));
}

function showProblem({ kind, message, requestId, retryAfter, wantsToken }) {
  const kindOf = document.createElement("strong");
  kindOf.textContent = kind;
  const texts = [message, retryAfter && `Ask again in ${retryAfter} s.`, requestId && `Request ${requestId}`];
  const lines = texts.filter((text) => text).map((text) => {
    const line = document.createElement("p");
    line.textContent = text;
    return line;
  });
  at("result").hidden = at("answer").textContent === "";
  at("problem").replaceChildren(kindOf, ...lines);
  at("problem").hidden = false;
  if (wantsToken) {
    at("options").open = true;
    at("token").focus();
  }
}

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  latest?.abort();
  const mine = new AbortController();
  latest = mine;
  const begun = performance.now();
  clear();
  try {
    for await (const told of ask(asked(), at("token").value.trim(), mine.signal)) {
      if (latest !== mine) return;
      if (told.answer) showAnswer(told.answer, performance.now() - begun);
      else at("answer").append(told.text);
    }
  } catch (error) {
    if (latest !== mine) return;
    if (!(error instanceof Problem)) console.error(error);
    showProblem(error instanceof Problem ? error : { kind: "Error", message: "The page failed; its console says more." });
  } finally {
    if (latest === mine) at("told").setAttribute("aria-busy", "false");
  }
});

async function showReadiness() {
  try {
    const { message, again } = await readiness();
    at("state").textContent = message;
    if (again) setTimeout(showReadiness, POLL_MS);
  } catch (error) {
    at("state").textContent = error.message;
  }
}

showReadiness();
