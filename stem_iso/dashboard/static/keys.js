// Keys: `?` shows them. Single keys can be switched off there, for who speaks to the machine; they do nothing in a field or a dialog.

import { refresh } from "./live.js";

const dialog = document.getElementById("keys");
const box = dialog?.querySelector("input");
const on = () => { try { return localStorage.getItem("stem_iso.keys") !== "off"; } catch { return true; } };
let went = 0;

const rows = () => [...document.querySelectorAll("#live tbody tr")].filter((row) => row.querySelector("a"));

function step(by) {
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.classList.contains("at"));
  const next = all[Math.min(all.length - 1, Math.max(0, at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by))];
  for (const row of all) row.classList.toggle("at", row === next);
  next.querySelector("a").focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

const DOES = {
  "?": () => dialog.showModal(),
  "/": () => document.querySelector(".filter input")?.focus(),
  r: () => refresh(),
  t: () => document.dispatchEvent(new CustomEvent("theme-switch")),
  j: () => step(1),
  k: () => step(-1),
  x: () => document.querySelector("#live tr.at input[data-pick]")?.click(),
  n: () => document.querySelector("a[rel=next]")?.click(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || !on()) return;
  if (document.querySelector("dialog[open]") || event.target.closest?.("input, textarea, select, [contenteditable]")) return;
  if (went && Date.now() - went < 1500) {
    went = 0;
    const link = [...document.querySelectorAll(".nav a")].find((each) => each.dataset.key === event.key);
    if (link) { event.preventDefault(); link.click(); return; }
  }
  if (event.key === "g") { went = Date.now(); return; }
  const does = DOES[event.key];
  if (does) { event.preventDefault(); does(); }
});

document.addEventListener("click", (event) => { if (event.target.closest?.("[data-keys]")) dialog.showModal(); });
if (box) {
  box.checked = on();
  box.addEventListener("change", () => { try { localStorage.setItem("stem_iso.keys", box.checked ? "on" : "off"); } catch { /* for this page alone */ } });
}
