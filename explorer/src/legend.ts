// What the colours of points say.

import type { Legend } from "./colours";
import { byId, h } from "./dom";
import { spoken } from "./words";

export function showLegend(legend: Legend): void {
  const element = byId("legend");
  if (legend.kind === "names") {
    const names = legend.names.map(([name, colour]) =>
      h("span", { class: "key", title: name }, dot(colour), h("span", { class: "text" }, spoken(name))),
    );
    element.replaceChildren(...names);
    return;
  }
  const bar = h("span", { class: "bar", "aria-hidden": "true" });
  bar.style.background = `linear-gradient(to right, ${legend.colours.join(", ")})`;
  element.replaceChildren(
    h("span", { class: "key" }, legend.title, " ", legend.low, bar, legend.high),
    h("span", { class: "key" }, dot(legend.none), "none"),
  );
}

function dot(colour: string): HTMLElement {
  const element = h("i", { class: "dot", "aria-hidden": "true" });
  element.style.background = colour;
  return element;
}
