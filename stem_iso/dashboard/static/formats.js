// Durations as the server writes them (formats.py), for what goes on while the page is open.

const two = (number, unit, rest, smaller) => (rest ? `${count(number)} ${unit} ${rest} ${smaller}` : `${count(number)} ${unit}`);

export function duration(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return "–";
  if (seconds <= 0) return "0 s";
  if (seconds < 0.00095) return `${Math.max(1, Math.round(seconds * 1e6))} µs`;
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`.replace(".0 ", " ");
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return two(Math.floor(whole / 60), "m", whole % 60, "s");
  if (whole < 86400) return two(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "m");
  return two(Math.floor(whole / 86400), "d", Math.floor((whole % 86400) / 3600), "h");
}

export const count = (number) => Number(number).toLocaleString("en-US");
