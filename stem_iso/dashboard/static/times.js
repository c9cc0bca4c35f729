// Moments in the reader's zone, and what runs on: a <time> says how long ago or the local time; a bar grows until the server is heard again.
//
//   <time datetime="2026-12-01T12:00:00+00:00" data-when="ago">    3 m ago, its title the local time
//   <div class="meter" data-elapsed="12.5" data-soft="30" data-hard="60" data-ticks>

import { duration } from "./formats.js";

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const seen = new WeakMap(); // element -> [what the server wrote, when that was, performance.now()]

function distance(at, now) {
  const seconds = (now - at) / 1000;
  const far = Math.abs(seconds);
  if (far < 1) return "now";
  const said = far < 60 ? `${Math.round(far)} s` : far < 3600 ? `${Math.floor(far / 60)} m` : duration(far);
  return seconds > 0 ? `${said} ago` : `in ${said}`;
}

function local(at, now) {
  const sameDay = at.toDateString() === now.toDateString();
  return sameDay ? clock.format(at) : `${day.format(at)}, ${clock.format(at)}`;
}

const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };

function writeTimes(now) {
  for (const element of document.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    put(element, element.dataset.when === "ago" ? distance(at, now) : local(at, now));
    const title = exact.format(at);
    if (element.title !== title) element.title = title;
  }
}

function elapsed(element) {
  const written = element.dataset.elapsed;
  const known = seen.get(element);
  if (!known || known[0] !== written) seen.set(element, [written, performance.now()]);
  return Number(written) + ("ticks" in element.dataset ? (performance.now() - seen.get(element)[1]) / 1000 : 0);
}

function tone(value, soft, hard) {
  if (hard && value >= hard) return "over";
  if (hard && value >= 0.9 * hard) return "near";
  return soft && value >= soft ? "late" : "calm";
}

function growBars() {
  for (const element of document.querySelectorAll("[data-elapsed]")) {
    const value = elapsed(element);
    const now = element.querySelector(".now") || element;
    put(now, duration(value));
    const fill = element.querySelector(".fill");
    if (!fill) continue;
    const soft = Number(element.dataset.soft) || 0, hard = Number(element.dataset.hard) || 0;
    const end = hard || Number(element.dataset.end);
    fill.setAttribute("width", `${Math.min(100, (100 * value) / end).toFixed(2)}%`);
    element.dataset.tone = tone(value, soft, hard);
    element.setAttribute("aria-valuenow", Math.min(value, end).toFixed(1));
  }
}

export function refreshTimes() {
  if (document.body.classList.contains("stale")) { writeTimes(new Date()); return; }
  writeTimes(new Date());
  growBars();
}

refreshTimes();
document.addEventListener("htmx:after:swap", refreshTimes);
setInterval(() => { if (!document.hidden) refreshTimes(); }, 1000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refreshTimes(); });
