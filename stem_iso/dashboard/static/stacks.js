// The stack of what runs, on its task's page: asked from the worker when the page comes, and again every few seconds while one looks.

const AGAIN = 5000; // milliseconds
let last = performance.now();

document.addEventListener("htmx:after:swap", (event) => {
  if (event.detail?.ctx?.sourceElement?.id !== "live" || document.hidden) return;
  const look = document.getElementById("look");
  if (!look || performance.now() - last < AGAIN) return;
  last = performance.now();
  window.htmx.trigger(look, "look");
});
