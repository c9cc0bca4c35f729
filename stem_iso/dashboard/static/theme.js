// The reader's choice of light or dark, set before anything is painted; without one the system's holds.
"use strict";
{
  const root = document.documentElement;
  const kept = () => { try { return localStorage.getItem("stem_iso.theme"); } catch { return null; } };
  const keep = (theme) => { try { localStorage.setItem("stem_iso.theme", theme); } catch { /* then for this page alone */ } };
  const apply = (theme) => { if (theme === "light" || theme === "dark") root.dataset.theme = theme; };
  apply(kept());
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const change = () => {
    const theme = isDark() ? "light" : "dark";
    apply(theme);
    keep(theme);
    document.dispatchEvent(new CustomEvent("theme"));
  };
  document.addEventListener("click", (event) => { if (event.target.closest?.("[data-theme-switch]")) change(); });
  document.addEventListener("theme-switch", change);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new CustomEvent("theme")));
}
