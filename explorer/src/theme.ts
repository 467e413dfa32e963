// Light or dark: as the system is, until the button says otherwise; the choice is kept where the browser lets a page.

import { byId } from "./dom";
import type { State } from "./state";

const KEPT_AS = "unifeat-theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;

export function isDark(): boolean {
  return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
}

export function chooseTheme(state: State): void {
  try {
    const kept = localStorage.getItem(KEPT_AS);
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch {
    // A page from a file may have no storage.
  }
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem(KEPT_AS, root.dataset.theme);
    } catch {
      // (as above)
    }
    state.changed("theme");
  });
  system.addEventListener("change", () => state.changed("theme"));
}
