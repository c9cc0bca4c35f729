// The stack of what runs, asked from its worker: now, and again while the dialog is open.

import { order, Refused } from "./server.js";

const dialog = document.getElementById("stack-dialog");
const AGAIN = 2000; // milliseconds
const field = (name) => dialog.querySelector(`[data-field="${name}"]`);
let timer = 0;

const FRAME = /^\s*File "([^"\n]{1,1000})", line (\d{1,9}),? in ([^\n]{1,300})$/;

function frames(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const frame = FRAME.exec(line);
    if (!frame) continue;
    const item = document.createElement("li"), where = document.createElement("span"), inside = document.createElement("span");
    where.className = "where";
    where.textContent = `${frame[1]}:${frame[2]}`;
    inside.className = "in";
    inside.textContent = frame[3];
    item.append(inside, where);
    found.push(item);
  }
  found.at(-1)?.classList.add("inner");
  return found;
}

async function look(button) {
  const { stack, pid, worker } = button.dataset;
  try {
    const found = await order(stack, { action: "stack", value: Number(pid) });
    const text = found.texts?.[worker] ?? "";
    const items = frames(text);
    field("frames").replaceChildren(...items);
    field("frames").hidden = !items.length;
    field("plain").textContent = items.length ? "" : text || "No stack came: it does something that cannot be looked into at the moment.";
    field("at").textContent = `As of ${new Date().toLocaleTimeString()}; asked again every ${AGAIN / 1000} s.`;
    if (dialog.open) timer = setTimeout(() => look(button), AGAIN);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    field("at").textContent = error.message;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-stack]");
  if (!button) return;
  field("title").textContent = button.dataset.title;
  field("frames").replaceChildren();
  field("plain").textContent = "";
  field("at").textContent = "Asking the worker …";
  dialog.showModal();
  look(button);
});
dialog?.addEventListener("close", () => clearTimeout(timer));
