// Picking tasks in the list, and one action on the picked ones or on all that match: what would be done is shown before it is.

import { confirmed } from "./actions.js";
import { count } from "./formats.js";
import { refresh } from "./live.js";
import { ask, notice, order, Refused } from "./server.js";

const bar = document.getElementById("bulk");
const dialog = document.getElementById("bulk-dialog");
const WORDS = { retry: "Retry", revoke: "Revoke", terminate: "Terminate", delete: "Delete", "run-now": "Run now" };
const MEANS = {
  retry: "Failed and cancelled ones run again, as new; all others refuse.",
  revoke: "What waits is cancelled. What runs comes to its end.",
  terminate: "What waits is cancelled. What runs is killed.",
  delete: "What is kept of those that have ended is dropped: status, result, error. All others refuse.",
  "run-now": "What is due later becomes ready now; all others refuse.",
};
const picked = new Map(); // id -> name

const boxes = () => document.querySelectorAll("#live input[data-pick]");
const field = (name) => dialog.querySelector(`[data-field="${name}"]`);

function show() {
  const listed = boxes();
  let here = 0;
  for (const box of listed) {
    box.checked = picked.has(box.value);
    box.closest("tr").toggleAttribute("data-picked", box.checked);
    here += box.checked;
  }
  const all = document.getElementById("pick-all");
  if (all) { all.checked = here > 0 && here === listed.length; all.indeterminate = here > 0 && here < listed.length; }
  bar.querySelector("[data-field=count]").textContent = picked.size ? `${count(picked.size)} picked` : "All that match";
  bar.classList.toggle("on", picked.size > 0);
  bar.querySelector("[data-clear]").hidden = !picked.size;
}

function pick(box) {
  if (box.checked) picked.set(box.value, box.dataset.name); else picked.delete(box.value);
}

document.addEventListener("change", (event) => {
  const box = event.target;
  if (box.id === "pick-all") { for (const each of boxes()) { each.checked = box.checked; pick(each); } }
  else if (box.matches?.("[data-pick]")) pick(box);
  else return;
  show();
});

function said({ done, refused, reasons }, word) {
  const why = Object.entries(reasons ?? {}).map(([reason, number]) => `${count(number)} ${reason}`).join(", ");
  return `${WORDS[word]}: ${count(done)} done${refused ? `, ${count(refused)} refused${why ? ` (${why})` : ""}` : ""}.`;
}

async function eachPicked(action) {
  const ids = [...picked];
  const shown = ids.slice(0, 8).map(([id, name]) => `${name}  ${id}`);
  if (ids.length > 8) shown.push(`… and ${count(ids.length - 8)} more`);
  const danger = action === "terminate" || action === "delete";
  const go = await confirmed({ title: `${WORDS[action]} ${count(ids.length)} picked task${ids.length === 1 ? "" : "s"}?`, detail: MEANS[action], items: shown, go: `${WORDS[action]} ${count(ids.length)}`, danger });
  if (go === null) return;
  const result = { done: 0, refused: 0, reasons: {} };
  let last = "";
  for (const [id] of ids) {
    try { await order(`/api/tasks/${encodeURIComponent(id)}/${action}`); result.done += 1; picked.delete(id); }
    catch (error) { if (!(error instanceof Refused)) throw error; result.refused += 1; last = error.message; }
  }
  notice(said(result, action) + (last ? ` The last one: ${last}` : ""), result.refused ? "partly" : "done");
}

async function allThatMatch(action) {
  const filters = JSON.parse(bar.dataset.filters);
  const body = { action, ...filters, ...(Object.keys(filters).length ? {} : { all: true }) };
  const words = Object.entries(filters).map(([name, value]) => `${name}=${value}`).join("  ") || "every task in the broker: there is no filter";
  field("title").textContent = `${WORDS[action]} all that match?`;
  field("filters").textContent = words;
  field("means").textContent = MEANS[action];
  field("matched").textContent = "…";
  field("items").hidden = true;
  const yes = field("yes"), bars = field("progress");
  yes.disabled = true;
  yes.textContent = WORDS[action];
  yes.classList.toggle("danger", action === "terminate" || action === "delete");
  bars.hidden = true;
  dialog.showModal();
  try {
    const query = new URLSearchParams({ ...filters, limit: "5" });
    const [preview, examples] = await Promise.all([order("/api/bulk", { ...body, dry_run: true }), ask(`/api/tasks?${query}`)]);
    field("matched").textContent = count(preview.matched);
    field("items").replaceChildren(...examples.tasks.map((task) => { const item = document.createElement("li"); item.textContent = `${task.name}  ${task.id}  ${task.state}`; return item; }));
    if (preview.matched > examples.tasks.length && examples.tasks.length) { const more = document.createElement("li"); more.textContent = `… and ${count(preview.matched - examples.tasks.length)} more`; field("items").append(more); }
    field("items").hidden = !examples.tasks.length;
    yes.disabled = !preview.matched;
    yes.textContent = `${WORDS[action]} ${count(preview.matched)}`;
    bars.max = Math.max(1, preview.matched);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    dialog.close();
    notice(error.message, "wrong");
    return;
  }
  yes.onclick = () => carryOut(action, body);
}

async function carryOut(action, body) {
  const yes = field("yes"), bars = field("progress");
  yes.disabled = true;
  bars.hidden = false;
  bars.value = 0;
  const listen = ({ detail }) => { if (detail.kind === "bulk") { const { done, refused } = JSON.parse(detail.data); bars.value = done + refused; } };
  document.addEventListener("news", listen);
  try {
    const result = await order("/api/bulk", { ...body, dry_run: false });
    notice(said(result, action), result.refused ? "partly" : "done");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    notice(error.message, "wrong");
  } finally {
    document.removeEventListener("news", listen);
    dialog.close();
  }
}

if (bar) {
  bar.hidden = false;
  for (const box of document.querySelectorAll(".pick")) box.hidden = false;
  bar.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.clear !== undefined) picked.clear();
    else if (button?.dataset.bulk) await (picked.size ? eachPicked(button.dataset.bulk) : allThatMatch(button.dataset.bulk));
    show();
    refresh();
  });
  document.addEventListener("htmx:after:swap", show);
  show();
}

// A group of failures: its newest ones again, by their ids.
document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-retry-ids]");
  if (!button) return;
  const ids = JSON.parse(button.dataset.retryIds);
  const go = await confirmed({ title: `Retry ${count(ids.length)} task${ids.length === 1 ? "" : "s"}?`, detail: MEANS.retry, items: ids, go: `Retry ${count(ids.length)}` });
  if (go === null) return;
  const result = { done: 0, refused: 0 };
  let last = "";
  for (const id of ids) {
    try { await order(`/api/tasks/${encodeURIComponent(id)}/retry`); result.done += 1; }
    catch (error) { if (!(error instanceof Refused)) throw error; result.refused += 1; last = error.message; }
  }
  notice(said(result, "retry") + (last ? ` The last one: ${last}` : ""), result.refused ? "partly" : "done");
  refresh();
});
