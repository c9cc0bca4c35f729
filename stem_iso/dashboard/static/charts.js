// Charts of the overview with uPlot: ended attempts as stacked columns, what was enqueued as a line. The numbers stand in #series, which is
// renewed with the page; the charts stay. Until this script runs, the server's still picture is there.

import { count } from "./formats.js";

const STACK = ["failed", "retried", "succeeded"]; // drawn in this order: each covers the lower part of the one before
const drawn = new Map();

const color = (name) => {
  const probe = document.createElement("i");
  probe.className = name;
  document.body.append(probe);
  probe.style.color = `var(--${name})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
};

const numbers = (name) => JSON.parse(document.getElementById("series").dataset[name]);

function stacked(data) {
  const sums = STACK.map((own, place) => data.at.map((_, at) => (data[own][at] ? STACK.slice(place).reduce((sum, kind) => sum + data[kind][at], 0) : null)));
  return [data.at, ...sums, data.enqueued];
}

function legend(element, data, at) {
  const totals = at === null || at === undefined;
  const when = totals ? "In all" : moment(data.at[at]);
  const parts = [document.createTextNode(`${when}:`)];
  for (const kind of ["enqueued", "succeeded", "retried", "failed"]) {
    const part = document.createElement("span"), mark = document.createElement("i"), figure = document.createElement("b");
    mark.className = kind;
    figure.textContent = count(totals ? data[kind].reduce((sum, each) => sum + each, 0) : data[kind][at]);
    part.append(mark, figure, ` ${kind}`);
    parts.push(part);
  }
  element.replaceChildren(...parts);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

const moment = (at) => clock.format(new Date(at * 1000));

function axes() {
  const muted = color("muted"), line = color("line");
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const font = `${Math.round(0.8 * rem)}px system-ui, sans-serif`;
  const axis = { stroke: muted, font, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 } };
  return [
    { ...axis, grid: { show: false }, space: 4.4 * rem, size: 2 * rem, values: (_, all) => all.map(moment) },
    { ...axis, size: 3.5 * rem, space: 2.4 * rem, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6], values: (_, all) => all.map((each) => (each >= 1e4 ? `${each / 1e3}k` : count(each))) },
  ];
}

function draw(element) {
  const name = element.dataset.chart, said = element.nextElementSibling;
  const data = numbers(name);
  const state = { data };
  const { uPlot } = window;
  const bars = uPlot.paths.bars({ size: [0.86, 40], align: 1, gap: 0 });
  const series = STACK.map((kind) => ({ label: kind, fill: color(`chart-${kind}`), stroke: color(`chart-${kind}`), width: 0, paths: bars, points: { show: false } }));
  const chart = new uPlot({
    width: Math.max(200, element.clientWidth - 16),
    height: element.clientHeight || 200,
    padding: [12, 24, 0, 0],
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    legend: { show: false },
    axes: axes(),
    scales: { x: { range: (_, low, high) => [low, high + (data.at[1] - data.at[0])] }, y: { range: (_, low, high) => [0, Math.max(4, high * 1.08)] } },
    series: [{}, ...series, { label: "enqueued", stroke: color("text"), width: 1.5, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) }],
    hooks: { setCursor: [(self) => legend(said, state.data, self.cursor.idx)] },
  }, stacked(data), element);
  element.querySelector(".still")?.remove();
  legend(said, data, null);
  drawn.set(element, { chart, state });
}

function redraw() {
  for (const [element, { chart }] of drawn) { chart.destroy(); draw(element); }
}

function renew() {
  for (const [element, { chart, state }] of drawn) {
    state.data = numbers(element.dataset.chart);
    chart.setData(stacked(state.data));
    legend(element.nextElementSibling, state.data, chart.cursor.idx);
  }
}

const elements = document.querySelectorAll("[data-chart]");
if (elements.length && window.uPlot) {
  for (const element of elements) draw(element);
  document.addEventListener("htmx:after:swap", renew);
  document.addEventListener("theme", () => requestAnimationFrame(redraw));
  new ResizeObserver(() => {
    for (const [element, { chart }] of drawn) chart.setSize({ width: Math.max(200, element.clientWidth - 16), height: element.clientHeight || 200 });
  }).observe(document.querySelector("main"));
}
