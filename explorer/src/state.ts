// What the user has chosen. Whoever changes it says what, and whoever shows it is told.

import { type MapKind, MEASURES, type Measure, type Model } from "./model";

export interface Place {
  space: number;
  feature: number;
}

export type PartnerFilter = "any" | "with" | "without" | "no candidate";

export interface Filters {
  /** Least and most, between −1 and 1. Features without a value pass only where nothing is asked. */
  measures: Record<Measure, [number, number]>;
  /** Least and most share of tokens, as powers of ten. */
  frequency: [number, number];
  category: number | null;
  partner: PartnerFilter;
}

export type Colour = Measure | "frequency" | "partner" | "category" | "family" | "members" | "label";

export interface Sort {
  column: string;
  down: boolean;
}

export const LEAST_FREQUENCY = -7;

export function noFilters(): Filters {
  const measures = Object.fromEntries(MEASURES.map((measure) => [measure, [-1, 1]])) as Filters["measures"];
  return { measures, frequency: [LEAST_FREQUENCY, 0], category: null, partner: "any" };
}

export type What =
  "feature" | "hover" | "lasso" | "filters" | "query" | "colour" | "map" | "list" | "sort" | "texts" | "theme";

export class State {
  feature: Place | null = null;
  hover: Place | null = null;
  lasso: { space: number; features: Set<number> } | null = null;
  filters = noFilters();
  query = "";
  colour: Colour = "r";
  map: MapKind = "decoder";
  /** The space whose features are listed. */
  list = 0;
  /** Of each space, the one that it is compared with where a single one is shown. */
  against: number[];
  sort: Sort | null = null;

  private readonly listeners: [Set<What>, () => void][] = [];

  constructor(model: Model) {
    this.against = model.spaces.map(({ number }) => model.counterpart(number));
  }

  on(what: What[], run: () => void): void {
    this.listeners.push([new Set(what), run]);
  }

  changed(...what: What[]): void {
    for (const [wanted, run] of this.listeners) if (what.some((one) => wanted.has(one))) run();
  }

  select(feature: Place | null): void {
    if (this.feature?.space === feature?.space && this.feature?.feature === feature?.feature) return;
    this.feature = feature;
    const other = feature !== null && feature.space !== this.list;
    if (other) this.list = feature.space;
    this.changed("feature", ...(other ? (["list"] as const) : []));
  }
}
