// What maps and lists show of each feature, and which features pass the filters and the search.

import { bestRow, isKept, MEASURES, type Measure, type Model, type Side, type Space } from "./model";
import { LEAST_FREQUENCY, type State } from "./state";
import type { Texts } from "./texts";

/** How a feature was found by a search: the lower, the better. */
export const RANKS = ["number", "label", "token", "text"] as const;

export interface Match {
  rank: number;
  /** Contexts with the text, or 1. */
  times: number;
}

export class Values {
  /** Of each space, each feature's row in the cell with its counterpart: its partner, or its best candidate. */
  private rows: Int32Array[] = [];
  /** Of each space, whether each feature passes. */
  passing: Uint8Array[] = [];
  /** Of each space, the features that the search found; null without a search. */
  matches: Map<number, Match>[] | null = null;
  texts: Texts | null = null;
  private readonly tokens = new Map<string, string>();

  constructor(
    readonly model: Model,
    readonly state: State,
  ) {
    this.compare();
    this.filter();
  }

  /** The comparison of a space with its counterpart. */
  side(space: number): Side {
    return this.model.sideOf(space, this.state.against[space]) as Side;
  }

  /** To be called when counterparts have changed. */
  compare(): void {
    this.rows = this.model.spaces.map((space) => {
      const side = this.side(space.number);
      return Int32Array.from({ length: space.features }, (_, feature) => bestRow(side, feature));
    });
  }

  /** The row of a feature's partner or best candidate; −1 if it has none. */
  row(space: number, feature: number): number {
    return this.rows[space][feature];
  }

  hasPartner(space: number, feature: number): boolean {
    const row = this.rows[space][feature];
    return row >= 0 && isKept(this.side(space).cell, row);
  }

  /** The feature's partner, or −1. */
  partner(space: number, feature: number): number {
    if (!this.hasPartner(space, feature)) return -1;
    const { cell, side } = this.side(space);
    return cell.feature[1 - side][this.rows[space][feature]];
  }

  /** A measure of a feature's partner or best candidate; NaN where it has none. */
  measure(space: number, feature: number, measure: Measure): number {
    const row = this.rows[space][feature];
    return row < 0 ? NaN : (this.side(space).cell.values[measure]?.[row] ?? NaN);
  }

  has(measure: Measure): boolean {
    return this.model.cells.some((cell) => cell.values[measure] !== null);
  }

  /** Share of the tokens on which a feature fires. */
  frequency(space: Space, feature: number): number {
    return space.count[feature] / Math.max(space.tokens, 1);
  }

  /** What a feature is about, in a few words: its label, or else the tokens that fire it most. */
  words(space: number, feature: number): string {
    return this.model.spaces[space].labels.get(feature) ?? this.tokensOf(space, feature);
  }

  tokensOf(space: number, feature: number): string {
    if (!this.texts) return "";
    const key = `${space}/${feature}`;
    let found = this.tokens.get(key);
    if (found === undefined) this.tokens.set(key, (found = this.texts.peakTokens(space, feature).join(" · ")));
    return found;
  }

  /** Which features pass; to be called when filters, search or counterparts have changed. */
  filter(): void {
    this.matches = this.state.query.trim() ? this.model.spaces.map((space) => this.search(space)) : null;
    this.passing = this.model.spaces.map((space) =>
      Uint8Array.from({ length: space.features }, (_, feature) => Number(this.passes(space, feature))),
    );
  }

  private passes(space: Space, feature: number): boolean {
    const { filters } = this.state;
    const { number } = space;
    if (this.matches && !this.matches[number].has(feature)) return false;
    for (const measure of MEASURES) {
      const [least, most] = filters.measures[measure];
      if (least > -1 || most < 1) {
        const value = this.measure(number, feature, measure);
        if (!(value >= least && value <= most)) return false;
      }
    }
    const [least, most] = filters.frequency;
    if (least > LEAST_FREQUENCY || most < 0) {
      const power = Math.log10(this.frequency(space, feature));
      if (!(power >= least && power <= most)) return false;
    }
    if (filters.category !== null && !space.categories.get(feature)?.includes(filters.category)) return false;
    if (filters.partner === "any") return true;
    if (filters.partner === "no candidate") return this.rows[number][feature] < 0;
    return this.hasPartner(number, feature) === (filters.partner === "with");
  }

  /** The features of a space that the search finds: by number, label, token, or a text in their contexts. */
  private search(space: Space): Map<number, Match> {
    const found = new Map<number, Match>();
    const add = (feature: number, rank: (typeof RANKS)[number], times = 1) => {
      const known = found.get(feature);
      const place = RANKS.indexOf(rank);
      if (!known || place < known.rank) found.set(feature, { rank: place, times });
    };
    const [, only, wanted] = /^(?:(label|token|text|number):)?\s*(.*)$/s.exec(
      this.state.query.trim(),
    ) as RegExpExecArray;
    if (!wanted) return found;
    const folded = wanted.toLowerCase();
    const digits = /^#?(\d+)$/.exec(wanted);
    if ((!only || only === "number") && digits && Number(digits[1]) < space.features) add(Number(digits[1]), "number");
    if (!only || only === "label") {
      for (const [feature, label] of space.labels) if (label.toLowerCase().includes(folded)) add(feature, "label");
    }
    if (!this.texts) return found;
    if (!only || only === "token") {
      for (let feature = 0; feature < space.features; feature++) {
        const tokens = this.tokensOf(space.number, feature).toLowerCase().split(" · ");
        if (tokens.includes(folded)) add(feature, "token");
      }
    }
    if (!only || only === "text") {
      for (const [feature, times] of this.texts.holding(space.number, wanted)) add(feature, "text", times);
    }
    return found;
  }
}
