// What keeps a page up to date: one stream of events for each tab, which says that something happened, and a look at the page's part that
// lives whenever something did, at least every few seconds. Both rest while the tab is hidden.
//
//   live      the stream is there          polling   it is not; the page is asked for all the same
//   away      the server or its broker does not answer: what stands on the page is old, is shown as old, and is asked for again

const POLL = 3000, EVENT_GAP = 1000, RETRY = 2000; // milliseconds

const part = () => document.getElementById("live");
const pulse = document.getElementById("pulse");
const banner = document.getElementById("away");
const gone = document.getElementById("gone");

let stream = null, streaming = false, timer = 0, asking = false, askAgain = false, fresh = Date.now(), took = 0, broken = null, ended = false;

function show() {
  const state = broken ? "away" : streaming ? "live" : "polling";
  const words = { live: "Live", polling: "Polling", away: "Not up to date" }[state];
  if (!pulse || pulse.dataset.state === state) return;
  pulse.dataset.state = state;
  pulse.textContent = words;
}

function setBroken(why) {
  broken = why;
  document.body.classList.toggle("stale", why !== null);
  banner.hidden = why === null;
  if (why !== null) {
    banner.querySelector(".why").textContent = why;
    banner.querySelector(".since").textContent = new Date(fresh).toLocaleTimeString();
  }
  show();
}

function setGone(text) {
  ended = true;
  gone.hidden = false;
  gone.querySelector(".why").textContent = text;
}

export function refresh() {
  if (asking) { askAgain = true; return; }
  clearTimeout(timer);
  if (!part() || ended || document.hidden) return;
  asking = true;
  window.htmx.trigger(part(), "refresh");
}

function plan(after) {
  clearTimeout(timer);
  timer = setTimeout(refresh, after);
}

const ours = (event) => event.detail?.ctx?.sourceElement?.id === "live";

document.addEventListener("htmx:before:request", (event) => {
  if (!ours(event)) return;
  event.detail.ctx.began = performance.now();
});

document.addEventListener("htmx:before:response", (event) => {
  if (!ours(event)) return;
  const answer = event.detail.ctx.response.raw;
  if (answer.redirected || answer.status === 401 || answer.status === 403) { location.reload(); event.preventDefault(); return; }
  if (answer.ok) return;
  event.preventDefault();
  if (answer.status === 404) setGone("What this page showed is not known any more: it has expired, or was deleted. Below is how it was last seen.");
  else setBroken(answer.status === 503 ? "The broker does not answer." : `The server answered with ${answer.status}.`);
});

document.addEventListener("htmx:after:swap", (event) => {
  if (!ours(event)) return;
  fresh = Date.now();
  took = performance.now() - (event.detail.ctx.began ?? performance.now());
  if (broken) setBroken(null);
});

document.addEventListener("htmx:error", (event) => { if (ours(event)) setBroken("The dashboard's server cannot be reached."); });

document.addEventListener("htmx:finally:request", (event) => {
  if (!ours(event)) return;
  asking = false;
  const gap = Math.max(EVENT_GAP, 5 * took); // a page that costs much is asked for seldom
  if (askAgain) { askAgain = false; plan(gap); } else plan(broken ? RETRY : Math.max(POLL, gap));
});

// -- the stream ---------------------------------------------------------------------------------------------------------------------------

const KINDS = ["started", "progress", "timeout", "completed", "retried", "failed", "revoked", "error", "isolate", "skipped", "bulk"];
let soon = 0;

function news() {
  const since = Date.now() - fresh;
  if (soon || document.hidden) return;
  soon = setTimeout(() => { soon = 0; refresh(); }, Math.max(120, Math.max(EVENT_GAP, 5 * took) - since));
}

function open() {
  if (stream || document.hidden || !document.body.dataset.events) return;
  stream = new EventSource(document.body.dataset.events);
  stream.addEventListener("open", () => { streaming = true; show(); news(); });
  stream.addEventListener("error", () => {
    streaming = false;
    show();
    if (stream.readyState === EventSource.CLOSED) { stream = null; setTimeout(open, RETRY); }
  });
  stream.addEventListener("broker", (event) => {
    const { up } = JSON.parse(event.data);
    if (up) refresh(); else setBroken("The broker does not answer.");
  });
  for (const kind of KINDS) {
    stream.addEventListener(kind, (event) => {
      news();
      document.dispatchEvent(new CustomEvent("news", { detail: { kind, data: event.data } }));
    });
  }
}

function close() {
  stream?.close();
  stream = null;
  streaming = false;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) { close(); clearTimeout(timer); } else { open(); refresh(); }
});
addEventListener("pagehide", close);
addEventListener("pageshow", (event) => { if (event.persisted) { open(); refresh(); } });

if (part()?.hasAttribute("hx-get")) {
  show();
  open();
  plan(POLL);
}
