// How strongly a feature fires, its family, and what it does to the next token.

import { h, svg } from "./dom";
import { candidates, type Space } from "./model";
import { activation, decimal, whole } from "./numbers";
import { linked } from "./pairs";
import { visible } from "./texts";
import type { Values } from "./values";
import { spoken } from "./words";

const BAR = { width: 320, height: 56 };

/** A histogram of its activations. */
export function histogram(space: Space, feature: number): HTMLElement {
  const section = h("section", { "aria-label": "Activations" }, h("h3", {}, "How strongly it fires"));
  if (!space.count[feature]) return section;
  const counts = Array.from(space.histogram.subarray(feature * space.bins, (feature + 1) * space.bins));
  const most = Math.max(...counts);
  const [low, high] = [Math.min(space.low[feature], 0), Math.max(space.high[feature], 0)];
  const step = BAR.width / space.bins;
  // Square roots: most activations are weak, and the few strong ones should be seen.
  const bars = counts.map((count, i) => {
    const height = count ? Math.max(1.5, Math.sqrt(count / most) * BAR.height) : 0;
    const from = low + ((high - low) * i) / space.bins;
    const to = low + ((high - low) * (i + 1)) / space.bins;
    return svg(
      "rect",
      { x: i * step + 0.5, y: BAR.height - height, width: step - 1, height },
      svg("title", {}, `${activation(from)} to ${activation(to)}: ${whole(count)} tokens`),
    );
  });
  const label = `Histogram of ${whole(space.count[feature])} activations from ${activation(space.low[feature])} to ${activation(high)}`;
  section.append(
    svg(
      "svg",
      {
        viewBox: `0 0 ${BAR.width} ${BAR.height}`,
        preserveAspectRatio: "none",
        role: "img",
        "aria-label": label,
        class: `histogram space-${space.number}`,
      },
      ...bars,
    ),
    h(
      "p",
      { class: "axis small quiet" },
      h("span", {}, activation(low)),
      h("span", {}, `most: ${whole(most)} tokens (heights are square roots)`),
      h("span", {}, activation(high)),
    ),
  );
  return section;
}

/** The members of its family, if it is in one. */
export function family(values: Values, space: Space, feature: number): HTMLElement[] {
  const { model } = values;
  const id = space.family[feature];
  if (id < 0 || !model.data.families) return [];
  const { spaces, facts, labels } = model.data.families;
  const members = model.families[id].map((member) => {
    const shown = model.named(spaces[member.space]);
    const words =
      shown < 0 ? (labels[spaces[member.space]]?.[member.feature] ?? "") : values.words(shown, member.feature);
    const name = `${spaces[member.space]} / ${member.feature}`;
    return h(
      "li",
      {},
      shown < 0 ? h("span", {}, name) : linked(values, { space: shown, feature: member.feature }),
      " ",
      h("span", { class: "quiet" }, spoken(words)),
    );
  });
  const told = Object.entries({ r_min: "least r", r_mean: "mean r", consistency: "cycle consistency" })
    .filter(([name]) => facts[name]?.[id] !== null && facts[name]?.[id] !== undefined)
    .map(([name, title]) => `${title} ${decimal(facts[name][id])}`);
  return [
    h(
      "section",
      { "aria-label": "Family" },
      h("h3", {}, `Family of ${members.length}`),
      told.length ? h("p", { class: "quiet small" }, `${told.join(", ")}.`) : null,
      h("ul", { class: "plain" }, ...members),
    ),
  ];
}

/** Effects of the feature and its partners, if the run has them. */
export function effects(values: Values, space: Space, feature: number): HTMLElement[] {
  return values.model.sides(space.number).flatMap((side) =>
    [...candidates(side, feature)].flatMap((row) => {
      const effect = side.cell.effects.get(row);
      if (!effect) return [];
      const other = values.model.spaces[side.other];
      const own = side.side === 0 ? "a" : "b";
      const theirs = side.side === 0 ? "b" : "a";
      const ways = { direct: "direct", added: "a dose added", removed: "removed where both fire" } as const;
      const alike = (Object.keys(ways) as (keyof typeof ways)[]).map((way) =>
        h("div", {}, h("dt", {}, ways[way]), h("dd", {}, decimal(effect[way]))),
      );
      const strings = (name: string, promotes: string[], suppresses: string[]) =>
        h(
          "div",
          {},
          h("h4", {}, name),
          h("p", {}, "promotes ", ...spaced(promotes)),
          h("p", {}, "suppresses ", ...spaced(suppresses)),
        );
      return [
        h(
          "section",
          { "aria-label": "Effects on the next token" },
          h("h3", {}, `Effects on the next token, beside ${other.name} / ${side.cell.feature[1 - side.side][row]}`),
          h("dl", {}, ...alike),
          h(
            "div",
            { class: "sides" },
            strings(space.name, effect[`promotes_${own}`], effect[`suppresses_${own}`]),
            strings(other.name, effect[`promotes_${theirs}`], effect[`suppresses_${theirs}`]),
          ),
        ),
      ];
    }),
  );
}

function spaced(strings: string[]): (Node | string)[] {
  return strings.flatMap((text) => [h("code", {}, visible(text) || "∅"), " "]);
}
