// The spaces, their features and their candidate pairs, as the rest of the page reads them.

import { type Numbers, type Packed, starts, unfixed } from "./packed";

export type MapKind = "decoder" | "firing";
export type Measure = "r" | "heldout" | "within" | "elsewhere";
export const MEASURES: readonly Measure[] = ["r", "heldout", "within", "elsewhere"];
export const MEASURE_NAMES: Record<Measure, string> = {
  r: "r",
  heldout: "held-out r",
  within: "r within token",
  elsewhere: "r on other text",
};

export interface EffectFact {
  pair: number;
  direct: number | null;
  added: number | null;
  removed: number | null;
  promotes_a: string[];
  suppresses_a: string[];
  promotes_b: string[];
  suppresses_b: string[];
}

export interface Data {
  run: { name: string; created: string };
  around: number;
  minimum: number | null;
  heldout: boolean;
  spaces: {
    name: string;
    features: number;
    tokens: number;
    maps: MapKind[];
    model: string;
    layer: number;
    hook: string;
    control: string | null;
  }[];
  cells: { a: number; b: number; role: string; reasons: string[]; effects: EffectFact[] }[];
  labels: Record<string, string>[];
  categories: string[];
  families: {
    spaces: string[];
    facts: Record<string, (number | null)[]>;
    /** Labels of members in spaces that are not shown. */
    labels: Record<string, Record<string, string>>;
  } | null;
}

/** One space's features. */
export interface Space {
  readonly number: number;
  readonly name: string;
  readonly features: number;
  readonly tokens: number;
  readonly about: Data["spaces"][number];
  readonly count: Numbers;
  readonly mean: Numbers;
  readonly low: Numbers;
  readonly high: Numbers;
  readonly histogram: Numbers;
  readonly bins: number;
  /** First context of each feature, and the number of all. */
  readonly contexts: Uint32Array;
  readonly maps: Partial<Record<MapKind, Numbers>>;
  readonly labels: Map<number, string>;
  readonly categories: Map<number, number[]>;
  /** A feature's family, and −1 for none. */
  readonly family: Int32Array;
}

/** The candidates between two spaces. */
export interface Cell {
  readonly number: number;
  readonly a: number;
  readonly b: number;
  readonly role: string;
  readonly feature: readonly [Numbers, Numbers];
  readonly values: Readonly<Record<Measure | "low" | "high" | "fdr", Float32Array | null>>;
  readonly cofiring: Numbers;
  readonly reason: Numbers;
  readonly reasons: string[];
  readonly effects: Map<number, EffectFact>;
  /** Candidates by feature of either side, kept ones first, then highest r. */
  readonly of: readonly [Listed, Listed];
}

/** Rows of candidates by feature: those of feature f are `rows[start[f]]` … */
export interface Listed {
  readonly start: Uint32Array;
  readonly rows: Uint32Array;
}

/** A cell seen from one of its spaces. */
export interface Side {
  readonly cell: Cell;
  readonly side: 0 | 1;
  readonly other: number;
}

export class Model {
  readonly spaces: Space[];
  readonly cells: Cell[];
  /** The members of each family of the run: numbers of spaces in `data.families.spaces`, and features. */
  readonly families: { space: number; feature: number }[][];

  constructor(
    readonly data: Data,
    packed: Packed<Data>,
  ) {
    this.families = familiesOf(data, packed);
    this.spaces = data.spaces.map((about, number) => spaceOf(data, packed, about, number, this.families));
    this.cells = data.cells.map((_, number) => cellOf(data, packed, number, this.spaces));
  }

  /** The comparisons of a space with the other spaces that are shown. */
  sides(space: number): Side[] {
    return this.cells.flatMap((cell): Side[] => {
      if (cell.a === space) return [{ cell, side: 0, other: cell.b }];
      return cell.b === space ? [{ cell, side: 1, other: cell.a }] : [];
    });
  }

  sideOf(space: number, other: number): Side | undefined {
    return this.sides(space).find((side) => side.other === other);
  }

  /** The space that a space is compared with at the beginning. */
  counterpart(space: number): number {
    return this.sides(space)[0].other;
  }

  named(name: string): number {
    return this.data.spaces.findIndex((space) => space.name === name);
  }
}

/** The rows of a feature's candidates, best first. */
export function candidates(side: Side, feature: number): Uint32Array {
  const { start, rows } = side.cell.of[side.side];
  return rows.subarray(start[feature], start[feature + 1]);
}

/** The row of a feature's partner, or of its best candidate; −1 where there is none. */
export function bestRow(side: Side, feature: number): number {
  const { start, rows } = side.cell.of[side.side];
  return start[feature] < start[feature + 1] ? rows[start[feature]] : -1;
}

export function isKept(cell: Cell, row: number): boolean {
  return cell.reason[row] === 0;
}

/** The rows of a feature's kept pairs, best first. */
export function keptRows(side: Side, feature: number): number[] {
  return [...candidates(side, feature)].filter((row) => isKept(side.cell, row));
}

/** A feature's partners: the other features of its kept pairs, best first. */
export function partners(side: Side, feature: number): number[] {
  const other = side.cell.feature[1 - side.side];
  return keptRows(side, feature).map((row) => other[row]);
}

function spaceOf(
  data: Data,
  packed: Packed<Data>,
  about: Data["spaces"][number],
  number: number,
  families: { space: number; feature: number }[][],
): Space {
  const need = (name: string) => packed.need(`${number}.${name}`);
  const categories = new Map<number, number[]>();
  const member = need("member");
  const category = need("category");
  for (let i = 0; i < member.length; i++) {
    const own = categories.get(member[i]);
    if (own) own.push(category[i]);
    else categories.set(member[i], [category[i]]);
  }
  const family = new Int32Array(about.features).fill(-1);
  const own = data.families?.spaces.indexOf(about.name) ?? -1;
  families.forEach((members, id) => {
    for (const one of members) if (one.space === own) family[one.feature] = id;
  });
  const maps: Partial<Record<MapKind, Numbers>> = {};
  for (const kind of about.maps) maps[kind] = need(kind);
  const histogram = need("histogram");
  return {
    number,
    name: about.name,
    features: about.features,
    tokens: about.tokens,
    about,
    count: need("count"),
    mean: need("mean"),
    low: need("low"),
    high: need("high"),
    histogram,
    bins: histogram.length / Math.max(about.features, 1),
    contexts: starts(need("contexts")),
    maps,
    labels: new Map(Object.entries(data.labels[number]).map(([feature, label]) => [Number(feature), label])),
    categories,
    family,
  };
}

function cellOf(data: Data, packed: Packed<Data>, number: number, spaces: Space[]): Cell {
  const about = data.cells[number];
  const fixed = (name: string) => unfixed(packed.get(`cell${number}.${name}`));
  const feature = [packed.need(`cell${number}.a`), packed.need(`cell${number}.b`)] as const;
  const reason = packed.need(`cell${number}.reason`);
  const r = fixed("r") ?? new Float32Array(reason.length);
  // Kept ones first, then highest r: the order in which `by` gives a feature's rows.
  const order = Uint32Array.from(feature[0], (_, row) => row).sort(
    (x, y) => Number(reason[x] !== 0) - Number(reason[y] !== 0) || (r[y] || 0) - (r[x] || 0) || x - y,
  );
  return {
    number,
    a: about.a,
    b: about.b,
    role: about.role,
    feature,
    values: {
      r,
      heldout: fixed("heldout"),
      within: fixed("within"),
      elsewhere: fixed("elsewhere"),
      low: fixed("low"),
      high: fixed("high"),
      fdr: fixed("fdr"),
    },
    cofiring: packed.need(`cell${number}.cofiring`),
    reason,
    reasons: about.reasons,
    effects: new Map(about.effects.map((effect) => [effect.pair, effect])),
    of: [listed(order, feature[0], spaces[about.a].features), listed(order, feature[1], spaces[about.b].features)],
  };
}

/** Rows in a given order, gathered by feature. */
function listed(order: Uint32Array, feature: Numbers, features: number): Listed {
  const counts = new Uint32Array(features);
  for (const row of order) counts[feature[row]]++;
  const start = starts(counts);
  const next = start.slice();
  const rows = new Uint32Array(order.length);
  for (const row of order) rows[next[feature[row]]++] = row;
  return { start, rows };
}

function familiesOf(data: Data, packed: Packed<Data>): { space: number; feature: number }[][] {
  if (!data.families) return [];
  const [family, space, feature] = ["family", "space", "feature"].map((name) => packed.need(`families.${name}`));
  const found: { space: number; feature: number }[][] = [];
  for (let i = 0; i < family.length; i++) (found[family[i]] ??= []).push({ space: space[i], feature: feature[i] });
  return found;
}
