// Search, filters, colours and maps: the controls above the maps.

import { colourNames } from "./colours";
import { byId, h, settled } from "./dom";
import { MEASURE_NAMES, MEASURES } from "./model";
import { decimal, percent } from "./numbers";
import { type Colour, LEAST_FREQUENCY, noFilters, type PartnerFilter, type State } from "./state";
import type { Values } from "./values";

interface Range {
  set: (range: [number, number]) => void;
}

export class Controls {
  private readonly search = byId<HTMLInputElement>("search");
  private readonly partner = byId<HTMLSelectElement>("partner");
  private readonly category = byId<HTMLSelectElement>("category");
  private readonly colour = byId<HTMLSelectElement>("colour");
  private readonly ranges: Range[] = [];

  constructor(
    private readonly values: Values,
    private readonly state: State,
  ) {
    const { model } = values;
    const typed = settled(() => this.searched(), 150);
    this.search.addEventListener("input", typed);
    for (const [value, name] of colourNames(model, values)) this.colour.append(h("option", { value }, name));
    this.colour.addEventListener("change", () => {
      state.colour = this.colour.value as Colour;
      state.changed("colour");
    });
    for (const input of document.querySelectorAll<HTMLInputElement>('input[name="map"]')) {
      input.addEventListener("change", () => {
        state.map = input.value === "firing" ? "firing" : "decoder";
        state.changed("map");
      });
    }
    this.partner.addEventListener("change", () =>
      this.change(() => (state.filters.partner = this.partner.value as PartnerFilter)),
    );
    for (const [number, name] of model.data.categories.entries())
      this.category.append(h("option", { value: String(number) }, name));
    byId("category-field").hidden = !model.data.categories.length;
    this.category.addEventListener("change", () =>
      this.change(() => (state.filters.category = this.category.value === "" ? null : Number(this.category.value))),
    );
    const fields = byId("ranges");
    for (const measure of MEASURES) {
      if (!values.has(measure)) continue;
      const text = (value: number) => decimal(value);
      this.ranges.push(
        this.range(
          fields,
          MEASURE_NAMES[measure],
          -1,
          1,
          0.01,
          text,
          () => state.filters.measures[measure],
          (range) => (state.filters.measures[measure] = range),
        ),
      );
    }
    this.ranges.push(
      this.range(
        fields,
        "fires on",
        LEAST_FREQUENCY,
        0,
        0.05,
        (v) => (v <= LEAST_FREQUENCY ? "0 %" : percent(10 ** v)),
        () => state.filters.frequency,
        (range) => (state.filters.frequency = range),
      ),
    );
    byId("reset").addEventListener("click", () => this.reset());
    byId("against-field").hidden = model.spaces.length < 3;
    this.against();
    this.show();
  }

  focusSearch(): void {
    this.search.focus();
    this.search.select();
  }

  /** Make the controls say what is chosen. */
  show(): void {
    const { state } = this;
    this.search.value = state.query;
    this.colour.value = state.colour;
    if (!this.colour.value) this.colour.value = state.colour = "r";
    this.partner.value = state.filters.partner;
    this.category.value = state.filters.category === null ? "" : String(state.filters.category);
    for (const input of document.querySelectorAll<HTMLInputElement>('input[name="map"]'))
      input.checked = input.value === state.map;
    this.ranges.forEach((range, i) => {
      const measures = MEASURES.filter((measure) => this.values.has(measure));
      range.set(i < measures.length ? state.filters.measures[measures[i]] : state.filters.frequency);
    });
    this.told();
  }

  /** All filters and the search as at the beginning. */
  reset(): void {
    this.state.filters = noFilters();
    this.state.query = this.search.value = "";
    this.values.filter();
    this.show();
    this.state.changed("filters", "query");
  }

  private searched(): void {
    this.state.query = this.search.value;
    this.state.sort = null;
    this.values.filter();
    const { matches } = this.values;
    const { list } = this.state;
    // Where the listed space has nothing, list the one that has.
    if (matches && !matches[list].size) {
      const other = matches.findIndex((found) => found.size > 0);
      if (other >= 0) this.state.list = other;
    }
    this.told();
    this.state.changed("query", "list");
  }

  private change(set: () => void): void {
    set();
    this.values.filter();
    this.told();
    this.state.changed("filters");
  }

  private told(): void {
    const { filters } = this.state;
    let active = Number(filters.category !== null) + Number(filters.partner !== "any");
    for (const measure of MEASURES)
      active += Number(filters.measures[measure][0] > -1 || filters.measures[measure][1] < 1);
    active += Number(filters.frequency[0] > LEAST_FREQUENCY || filters.frequency[1] < 0);
    byId("active").textContent = active ? ` (${active})` : "";
    byId("reset").hidden = !active && !this.state.query;
  }

  /** With three spaces, which one each is compared with. */
  private against(): void {
    const { model } = this.values;
    const select = byId<HTMLSelectElement>("against");
    const fill = () => {
      const own = this.state.list;
      select.replaceChildren(
        ...model
          .sides(own)
          .map(({ other }) =>
            h(
              "option",
              { value: String(other), selected: other === this.state.against[own] },
              model.spaces[other].name,
            ),
          ),
      );
    };
    fill();
    this.state.on(["list"], fill);
    select.addEventListener("change", () => {
      this.state.against[this.state.list] = Number(select.value);
      this.values.compare();
      this.values.filter();
      this.state.changed("filters", "colour", "feature", "list");
    });
  }

  /** Two sliders and what they say. */
  private range(
    parent: HTMLElement,
    name: string,
    least: number,
    most: number,
    step: number,
    text: (value: number) => string,
    get: () => [number, number],
    put: (range: [number, number]) => void,
  ): Range {
    const said = h("output", {});
    const slider = (label: string) =>
      h("input", { type: "range", min: least, max: most, step, "aria-label": `${label} ${name}` });
    const [low, high] = [slider("Least"), slider("Most")];
    const tell = () => {
      const [from, to] = [Number(low.value), Number(high.value)];
      said.textContent = from <= least && to >= most ? "any" : `${text(from)} to ${text(to)}`;
      for (const input of [low, high]) input.setAttribute("aria-valuetext", text(Number(input.value)));
    };
    const settle = settled(() => this.change(() => put([Number(low.value), Number(high.value)])), 60);
    low.addEventListener("input", () => {
      if (Number(low.value) > Number(high.value)) high.value = low.value;
      tell();
      settle();
    });
    high.addEventListener("input", () => {
      if (Number(high.value) < Number(low.value)) low.value = high.value;
      tell();
      settle();
    });
    parent.append(
      h("fieldset", { class: "range" }, h("legend", {}, name, " ", said), h("div", { class: "double" }, low, high)),
    );
    const set = ([from, to]: [number, number]) => {
      low.value = String(from);
      high.value = String(to);
      tell();
    };
    set(get());
    return { set };
  }
}
