// The page of one feature: contexts, activations, candidates, family, effects.

import { contextsOf } from "./contexts";
import { byId, h } from "./dom";
import { bestRow, isKept, type Space } from "./model";
import { effects, family, histogram } from "./more";
import { activation, percent, whole } from "./numbers";
import { candidatesIn, partnersIn } from "./pairs";
import { linkTo } from "./permalink";
import type { Place, State } from "./state";
import type { Values } from "./values";
import { spoken } from "./words";

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
      ...model.sides(space.number).map((side) => partnersIn(this.values, side, feature)),
      contextsOf(this.values, place),
      histogram(space, feature),
      ...model.sides(space.number).map((side) => candidatesIn(this.values, side, feature)),
      ...family(this.values, space, feature),
      ...effects(this.values, space, feature),
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
    const link = h(
      "button",
      { type: "button", onclick: () => void this.copy(link, { space: space.number, feature }) },
      "Copy link",
    );
    return h(
      "header",
      {},
      h(
        "div",
        { class: "tools" },
        h(
          "button",
          {
            type: "button",
            title: "Previous in the list (k)",
            "aria-label": "Previous feature in the list",
            onclick: () => this.step(-1),
          },
          "↑",
        ),
        h(
          "button",
          {
            type: "button",
            title: "Next in the list (j)",
            "aria-label": "Next feature in the list",
            onclick: () => this.step(1),
          },
          "↓",
        ),
        link,
        h(
          "button",
          { type: "button", title: "Close (Esc)", "aria-label": "Close", onclick: () => this.state.select(null) },
          "✕",
        ),
      ),
      h(
        "h2",
        { class: `of space-${space.number}` },
        h("i", { class: "swatch", "aria-hidden": "true" }),
        `${space.name} / ${feature}`,
      ),
      label ? h("p", { class: "label" }, spoken(label)) : null,
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
}
