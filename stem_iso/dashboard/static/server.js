// Orders to the dashboard's API, and notices of what came of them. Texts of the server are texts: they are never made into markup.

const root = document.body.dataset.root;
const toasts = document.getElementById("toasts");
const STAY = 7000; // milliseconds; a wrong one stays until it is closed

export class Refused extends Error {}

export async function order(path, body = {}, raw = null) {
  let answer;
  try {
    answer = await fetch(root + path, {
      method: "POST",
      headers: { "content-type": "application/json", "x-stem-iso": "1", accept: "application/json" },
      body: raw ?? JSON.stringify(body),
    });
  } catch {
    throw new Refused("The dashboard's server cannot be reached; nothing is known to be done.");
  }
  const found = await answer.json().catch(() => null);
  if (answer.status === 401) location.reload();
  if (!answer.ok) throw new Refused(found?.error?.message ?? `The server answered with ${answer.status}.`);
  return found;
}

export async function ask(path) {
  const answer = await fetch(root + path, { headers: { accept: "application/json" } });
  if (!answer.ok) throw new Refused(`The server answered with ${answer.status}.`);
  return answer.json();
}

// What a worker's, or all workers', answer means: [text, kind of notice].
export function inWords(found, done) {
  if (!found || !("obeyed" in found)) return [done, "done"];
  const parts = [done];
  const refused = Object.entries(found.refused);
  if (refused.length) parts.push(`Refused by ${refused.map(([id, why]) => (why ? `${id} (${why})` : id)).join(", ")}.`);
  if (found.silent.length) parts.push(`No answer from ${found.silent.join(", ")}.`);
  return [parts.join(" "), refused.length || found.silent.length ? "partly" : "done"];
}

export function notice(text, kind = "done") {
  const toast = document.createElement("div"), said = document.createElement("p"), close = document.createElement("button");
  toast.className = `toast ${kind}`;
  said.textContent = text;
  close.type = "button";
  close.className = "plain";
  close.textContent = "×";
  close.setAttribute("aria-label", "Close this notice");
  close.addEventListener("click", () => toast.remove());
  toast.append(said, close);
  toasts.append(toast);
  while (toasts.children.length > 5) toasts.firstElementChild.remove();
  if (kind !== "wrong") setTimeout(() => toast.remove(), STAY);
}
