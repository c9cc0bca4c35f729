// Buttons that do something. What one does stands in its attributes:
//
//   data-post="/api/queues/images/pause"   where to        data-confirm="Pause images?"   asked first; data-detail says more
//   data-body='{"action": "drain"}'        with what       data-ask="number|select"       a value is asked for, and goes as `value`
//   data-done="images is paused."          said after      data-then="/tasks"             where to go after

import { inWords, notice, order, Refused } from "./server.js";
import { refresh } from "./live.js";

const dialog = document.getElementById("confirm");
const field = (name) => dialog.querySelector(`[data-field="${name}"]`);

// Asks in the dialog; the answer is null where it was left, else what was typed.
export function confirmed({ title, detail = "", go = "Yes", danger = false, ask = null, items = [] }) {
  field("title").textContent = title;
  field("detail").textContent = detail;
  field("detail").hidden = !detail;
  field("items").replaceChildren(...items.map((each) => { const item = document.createElement("li"); item.textContent = each; return item; }));
  field("items").hidden = !items.length;
  const yes = field("yes"), number = field("number"), select = field("select");
  yes.textContent = go;
  yes.classList.toggle("danger", danger);
  number.closest("label").hidden = ask?.kind !== "number";
  select.closest("label").hidden = ask?.kind !== "select";
  number.required = ask?.kind === "number";
  if (ask?.kind === "number") { field("number-label").textContent = ask.label; number.value = ask.value; }
  if (ask?.kind === "select") {
    field("select-label").textContent = ask.label;
    select.replaceChildren(...ask.options.map((each) => new Option(each, each, each === ask.value, each === ask.value)));
  }
  dialog.returnValue = "";
  dialog.showModal();
  (ask?.kind === "number" ? number : ask?.kind === "select" ? select : danger ? field("no") : yes).focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      if (dialog.returnValue !== "yes") return resolve(null);
      return resolve(ask?.kind === "number" ? Number(number.value) : ask?.kind === "select" ? select.value : true);
    }, { once: true });
  });
}

function asked(button) {
  const { ask, askLabel: label, askValue: value, askOptions } = button.dataset;
  return ask ? { kind: ask, label, value, options: askOptions ? askOptions.split(",") : [] } : null;
}

async function act(button) {
  const { post, body, confirm, detail, done, go, then } = button.dataset;
  const given = body ? JSON.parse(body) : {};
  if (confirm) {
    const answer = await confirmed({ title: confirm, detail, go: go ?? button.textContent.trim(), danger: button.classList.contains("danger"), ask: asked(button) });
    if (answer === null) return;
    if (button.dataset.ask) given.value = answer;
  }
  button.setAttribute("aria-busy", "true");
  try {
    notice(...inWords(await order(post, given), done ?? "Done."));
    if (then) location.assign(document.body.dataset.root + then);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    notice(error.message, "wrong");
  } finally {
    button.removeAttribute("aria-busy");
    refresh();
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-post]");
  if (button && button.getAttribute("aria-busy") !== "true") act(button);
  const closing = event.target.closest?.("[data-close]");
  if (closing) closing.closest("dialog").close();
  const leaving = event.target.closest?.("[data-leave]");
  if (leaving) fetch(leaving.dataset.leave, { method: "POST", headers: { "x-stem-iso": "1" } }).then(() => location.assign(`${document.body.dataset.root}/login`));
});
