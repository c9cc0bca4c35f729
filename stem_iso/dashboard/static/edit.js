// Editing the arguments of a task. The JSON goes to the server as it was typed: a number of any length stays what it is.

import { refresh } from "./live.js";
import { notice, order, Refused } from "./server.js";

const dialog = document.getElementById("edit-dialog");
const text = dialog?.querySelector("textarea");
let path = "";
let run = "";  // the one that is shown: what somebody else has edited meanwhile is not overwritten
const wrong = dialog?.querySelector("[data-field=wrong]");

function refuse(message) {
  wrong.textContent = message;
  wrong.hidden = !message;
  text.setAttribute("aria-invalid", message ? "true" : "false");
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-edit]");
  if (!button) return;
  path = button.dataset.edit;
  run = button.dataset.run;
  text.value = button.dataset.args;
  refuse("");
  dialog.showModal();
  text.focus();
});

dialog?.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const args = JSON.parse(text.value);
    if (args === null || typeof args !== "object" || Array.isArray(args)) { refuse("This must be an object: the arguments by their names."); return; }
  } catch (error) { refuse(`This is no JSON: ${error.message}`); return; }
  try {
    await order(path, null, `{"args": ${text.value}, "run": ${run}}`);
    dialog.close();
    notice("It has new arguments, and runs anew.");
    refresh();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    refuse(error.message);
  }
});
