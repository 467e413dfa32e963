// The page of one feature: contexts, activations, candidates, family, effects.

import { byId, h, svg } from "./dom";
import { bestRow, candidates, type Cell, isKept, MEASURE_NAMES, MEASURES, type Side, type Space } from "./model";
import { activation, decimal, percent, whole } from "./numbers";
import { linkTo } from "./permalink";
import type { Place, State } from "./state";
import { type Context, visible } from "./texts";
import type { Values } from "./values";

const BAR = { width: 320, height: 56 };

export class FeaturePage {
  private readonly element = byId("feature");

  constructor(
    private readonly values: Values,
    private readonly state: State,
    private readonly step: (by: number) => void,
  ) {
    state.on(["feature", "texts"], () => this.draw());
    this.draw();
  }

  private draw(): void {
    const place = this.state.feature;
    if (!place) {
      this.element.replaceChildren(...this.empty());
      return;
    }
    const { model } = this.values;
    const space = model.spaces[place.space];
    const { feature } = place;
    this.element.replaceChildren(
      this.header(space, feature),
      this.facts(space, feature),
      ...model.sides(space.number).map((side) => this.partner(side, feature)),
      this.contexts(place),
      this.histogram(space, feature),
      ...model.sides(space.number).map((side) => this.candidates(side, feature)),
      ...this.family(space, feature),
      ...this.effects(space, feature),
    );
    this.element.scrollTop = 0;
    byId("said").textContent = `${space.name} feature ${feature}: ${this.values.words(space.number, feature)}`;
  }

  private empty(): Node[] {
    const { model } = this.values;
    const lines = model.spaces.flatMap((space) =>
      model.sides(space.number).map((side) => {
        let [kept, none] = [0, 0];
        for (let feature = 0; feature < space.features; feature++) {
          const row = bestRow(side, feature);
          if (row < 0) none++;
          else if (isKept(side.cell, row)) kept++;
        }
        const share = percent(kept / Math.max(space.features, 1));
        return h(
          "p",
          { class: `partner space-${space.number}` },
          h("b", {}, `${space.name}: ${whole(kept)} of ${whole(space.features)} features (${share})`),
          ` have a partner in ${model.spaces[side.other].name}; ${whole(space.features - kept - none)} have only candidates that were dropped, ${whole(none)} have none.`,
        );
      }),
    );
    return [
      h("h2", {}, "Choose a feature"),
      h(
        "p",
        { class: "quiet" },
        "Each point is a feature; near points are alike. Hover over one to see a line to its partner, click it for its page, ",
        "or press ",
        h("kbd", {}, "j"),
        " to walk through the list.",
      ),
      ...lines,
    ];
  }

  private header(space: Space, feature: number): HTMLElement {
    const label = space.labels.get(feature);
    const tokens = this.values.tokensOf(space.number, feature);
    const link = h("button", { type: "button", onclick: () => void this.copy(link, { space: space.number, feature }) }, "Copy link");
    return h(
      "header",
      {},
      h(
        "div",
        { class: "tools" },
        h("button", { type: "button", title: "Previous in the list (k)", "aria-label": "Previous feature in the list", onclick: () => this.step(-1) }, "↑"),
        h("button", { type: "button", title: "Next in the list (j)", "aria-label": "Next feature in the list", onclick: () => this.step(1) }, "↓"),
        link,
        h("button", { type: "button", title: "Close (Esc)", "aria-label": "Close", onclick: () => this.state.select(null) }, "✕"),
      ),
      h("h2", { class: `of space-${space.number}` }, h("i", { class: "swatch", "aria-hidden": "true" }), `${space.name} / ${feature}`),
      label ? h("p", { class: "label" }, label) : null,
      tokens ? h("p", { class: label ? "quiet" : "label" }, tokens) : null,
    );
  }

  private async copy(button: HTMLButtonElement, place: Place): Promise<void> {
    const text = location.href.split("#")[0] + linkTo(this.values.model, place);
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "It is in the address bar";
    }
    setTimeout(() => (button.textContent = "Copy link"), 1500);
  }

  private facts(space: Space, feature: number): HTMLElement {
    const count = space.count[feature];
    if (!count) return h("p", {}, "It never fires on this text.");
    const names = (space.categories.get(feature) ?? []).map((c) => this.values.model.data.categories[c]);
    return h(
      "p",
      { class: "facts" },
      `Fires on ${whole(count)} of ${whole(space.tokens)} tokens (${percent(this.values.frequency(space, feature))}), `,
      `mean ${activation(space.mean[feature])}, largest ${activation(space.high[feature])}.`,
      names.length ? ` In ${names.join(", ")}.` : null,
    );
  }

  private partner(side: Side, feature: number): HTMLElement {
    const { cell } = side;
    const rows = [...candidates(side, feature)];
    const other = this.values.model.spaces[side.other];
    const kept = rows.filter((row) => isKept(cell, row));
    if (kept.length) return h("div", { class: "partners" }, ...kept.map((row) => this.partnerCard(side, row)));
    const best = rows[0];
    const why = best === undefined ? "no candidate" : `the best of ${rows.length} candidates has r ${decimal(cell.values.r?.[best])} and was dropped: ${cell.reasons[cell.reason[best]]}`;
    return h("div", { class: "partner none" }, h("h3", {}, `No partner in ${other.name}`), h("p", {}, `${why}.`));
  }

  private partnerCard(side: Side, row: number): HTMLElement {
    const { cell } = side;
    const other = this.values.model.spaces[side.other];
    const feature = cell.feature[1 - side.side][row];
    const { low, high, fdr } = cell.values;
    const numbers = MEASURES.filter((measure) => cell.values[measure]).map((measure) => {
      const value = decimal(cell.values[measure]?.[row]);
      const interval = measure === "r" && low && high && !Number.isNaN(low[row]) ? ` (${decimal(low[row])} to ${decimal(high[row])})` : "";
      return h("div", {}, h("dt", {}, MEASURE_NAMES[measure]), h("dd", {}, value, h("small", {}, interval)));
    });
    numbers.push(h("div", {}, h("dt", {}, "fire together on"), h("dd", {}, `${whole(cell.cofiring[row])} tokens`)));
    if (fdr && !Number.isNaN(fdr[row])) {
      numbers.push(h("div", {}, h("dt", { title: "expected share of chance pairs among those with at least this r" }, "false discovery"), h("dd", {}, percent(fdr[row]))));
    }
    return h(
      "div",
      { class: `partner space-${other.number}` },
      h("h3", {}, "Partner ", this.link({ space: other.number, feature })),
      h("p", { class: "words" }, this.values.words(other.number, feature)),
      h("dl", {}, ...numbers),
    );
  }

  private link(place: Place, text?: string): HTMLElement {
    const { model } = this.values;
    return h(
      "a",
      { href: linkTo(model, place), class: `of space-${place.space}` },
      text ?? `${model.spaces[place.space].name} / ${place.feature}`,
    );
  }

  private contexts({ space, feature }: Place): HTMLElement {
    const { texts, model } = this.values;
    const section = h("section", { "aria-label": "Contexts" }, h("h3", {}, "Where it fires most"));
    if (!texts) {
      section.append(h("p", { class: "quiet" }, "The text is being read …"));
      return section;
    }
    const side = model.sides(space).find((one) => this.keptOf(one, feature).length) ?? this.values.side(space);
    const partner = this.keptOf(side, feature)[0];
    if (partner === undefined) {
      section.append(this.lines(texts.contexts(space, feature, null), space, null));
      return section;
    }
    const [own, other] = [model.spaces[space].name, model.spaces[side.other].name];
    section.append(
      h(
        "p",
        { class: "quiet small" },
        h("span", { class: `shade space-${space}` }, "shaded"),
        ": this feature fires, the darker the stronger; ",
        h("span", { class: `under space-${side.other}` }, "underlined"),
        `: its partner in ${other} fires.`,
      ),
      h(
        "div",
        { class: "sides" },
        h("div", {}, h("h4", {}, `strongest in ${own}`), this.lines(texts.contexts(space, feature, side.other), space, side.other)),
        h("div", {}, h("h4", {}, `strongest of the partner in ${other}`), this.lines(texts.contexts(side.other, partner, space), side.other, space)),
      ),
    );
    return section;
  }

  private keptOf(side: Side, feature: number): number[] {
    const other = side.cell.feature[1 - side.side];
    return [...candidates(side, feature)].filter((row) => isKept(side.cell, row)).map((row) => other[row]);
  }

  private lines(contexts: Context[], space: number, other: number | null): HTMLElement {
    if (!contexts.length) return h("p", { class: "quiet" }, "Nowhere.");
    return h("ol", { class: "contexts" }, ...contexts.map((context) => this.line(context, space, other)));
  }

  private line(context: Context, space: number, other: number | null): HTMLElement {
    const parts: (Node | string)[] = context.cut[0] ? ["…"] : [];
    for (const { text, own, partner, peak } of context.tokens) {
      const shown = visible(text);
      if (!own && !partner) {
        parts.push(shown);
        continue;
      }
      const classes = [own ? `shade space-${space}` : "", peak ? "peak" : ""].join(" ").trim();
      const title = [own ? `${percent(own)} of its largest activation` : "", partner ? `partner: ${percent(partner)}` : ""];
      // A token's leading blank stays outside, where it can end a line.
      const blank = shown.trim() ? shown.length - shown.trimStart().length : 0;
      if (blank) parts.push(shown.slice(0, blank));
      const inner = h(own ? "mark" : "span", { class: classes, title: title.filter(Boolean).join("; ") }, shown.slice(blank) || "∅");
      if (own) inner.style.setProperty("--share", own.toFixed(3));
      if (partner && other !== null) {
        const under = h("span", { class: `under space-${other}` }, inner);
        under.style.setProperty("--share", partner.toFixed(3));
        parts.push(under);
      } else parts.push(inner);
    }
    if (context.cut[1]) parts.push("…");
    return h("li", {}, h("span", { class: "text" }, ...parts), h("span", { class: "value", title: `document ${context.document}` }, activation(context.value)));
  }

  private histogram(space: Space, feature: number): HTMLElement {
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
      svg("svg", { viewBox: `0 0 ${BAR.width} ${BAR.height}`, preserveAspectRatio: "none", role: "img", "aria-label": label, class: `histogram space-${space.number}` }, ...bars),
      h("p", { class: "axis small quiet" }, h("span", {}, activation(low)), h("span", {}, `most: ${whole(most)} tokens (heights are square roots)`), h("span", {}, activation(high))),
    );
    return section;
  }

  private candidates(side: Side, feature: number): HTMLElement {
    const { cell } = side;
    const rows = [...candidates(side, feature)];
    const other = this.values.model.spaces[side.other];
    const section = h("section", { "aria-label": `Candidates in ${other.name}` }, h("h3", {}, `Candidates in ${other.name}`));
    if (!rows.length) {
      section.append(h("p", { class: "quiet" }, "None: no feature there is among its best, and it is among the best of none."));
      return section;
    }
    const columns = MEASURES.filter((measure) => measure !== "elsewhere" && cell.values[measure]);
    section.append(
      h(
        "div",
        { class: "scroll" },
        h(
          "table",
          {},
          h("thead", {}, h("tr", {}, ...["feature", "", ...columns.map((m) => MEASURE_NAMES[m]), ""].map((name) => h("th", { scope: "col" }, name)))),
          h("tbody", {}, ...rows.map((row) => this.candidate(cell, side, row, columns))),
        ),
      ),
    );
    return section;
  }

  private candidate(cell: Cell, side: Side, row: number, columns: (typeof MEASURES)[number][]): HTMLElement {
    const feature = cell.feature[1 - side.side][row];
    const kept = isKept(cell, row);
    return h(
      "tr",
      { class: kept ? "kept" : null },
      h("td", {}, this.link({ space: side.other, feature }, String(feature))),
      h("td", { class: "words" }, this.values.words(side.other, feature)),
      ...columns.map((measure) => h("td", { class: "number" }, decimal(cell.values[measure]?.[row]))),
      h("td", { class: "why" }, kept ? "kept" : cell.reasons[cell.reason[row]]),
    );
  }

  private family(space: Space, feature: number): HTMLElement[] {
    const { model } = this.values;
    const id = space.family[feature];
    if (id < 0 || !model.data.families) return [];
    const { spaces, facts } = model.data.families;
    const members = model.families[id].map((member) => {
      const shown = model.named(spaces[member.space]);
      const words = shown < 0 ? "" : this.values.words(shown, member.feature);
      const name = `${spaces[member.space]} / ${member.feature}`;
      return h("li", {}, shown < 0 ? h("span", {}, name) : this.link({ space: shown, feature: member.feature }), " ", h("span", { class: "quiet" }, words));
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

  private effects(space: Space, feature: number): HTMLElement[] {
    return this.values.model.sides(space.number).flatMap((side) =>
      [...candidates(side, feature)].flatMap((row) => {
        const effect = side.cell.effects.get(row);
        if (!effect) return [];
        const other = this.values.model.spaces[side.other];
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
}

function spaced(strings: string[]): (Node | string)[] {
  return strings.flatMap((text) => [h("code", {}, visible(text) || "∅"), " "]);
}
