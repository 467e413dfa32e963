// Colours of points: an index into a list of colours, the first of which is for features without a value.

import type { Model, Space } from "./model";
import { MEASURE_NAMES, MEASURES } from "./model";
import { percent } from "./numbers";
import type { Colour, State } from "./state";
import type { Values } from "./values";

const STEPS = 32;
// Viridis (van der Walt and Smith), in nine steps: even in lightness, and for the colour-blind too.
const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
// Okabe and Ito's colours for the colour-blind, those with enough contrast on both grounds first.
const DISTINCT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#a6761d"];

export interface Scheme {
  /** Of each space, each feature's colour. */
  index: Uint8Array[];
  colours: string[];
  legend: Legend;
}

export type Legend =
  | { kind: "scale"; title: string; low: string; high: string; colours: string[]; none: string }
  | { kind: "names"; title: string; names: [string, string][] };

export function colourNames(model: Model, values: Values): [Colour, string][] {
  const found: [Colour, string][] = MEASURES.filter((measure) => values.has(measure)).map((m) => [m, MEASURE_NAMES[m]]);
  found.push(["partner", "partner or none"], ["frequency", "firing frequency"]);
  if (model.data.categories.length) found.push(["category", "category"]);
  if (model.spaces.some((space) => space.labels.size)) found.push(["label", "label"]);
  if (model.families.length) found.push(["family", "family"], ["members", "size of its family"]);
  return found;
}

export function scheme(values: Values, state: State, dark: boolean): Scheme {
  const grey = dark ? "#4a515c" : "#c3c8cf";
  const { model } = values;
  const { colour } = state;
  if (colour === "partner") {
    const names: [string, string][] = [
      ["has a partner", dark ? "#56b4e9" : "#0072b2"],
      ["candidates, none kept", dark ? "#e69f00" : "#d55e00"],
      ["no candidate", grey],
    ];
    return categorical("partner", names, grey, model, (space, feature) =>
      values.hasPartner(space.number, feature) ? 0 : values.row(space.number, feature) >= 0 ? 1 : 2,
    );
  }
  if (colour === "category") {
    const names = model.data.categories.map((name, i): [string, string] => [name, DISTINCT[i % DISTINCT.length]]);
    return categorical(
      "category",
      [...names, ["in none", grey]],
      grey,
      model,
      (space, feature) => space.categories.get(feature)?.[0] ?? -1,
    );
  }
  if (colour === "label") {
    const counts = new Map<string, number>();
    for (const space of model.spaces)
      for (const label of space.labels.values()) counts.set(label, (counts.get(label) ?? 0) + 1);
    const top = [...counts]
      .sort((x, y) => y[1] - x[1])
      .slice(0, DISTINCT.length - 1)
      .map(([label]) => label);
    const names: [string, string][] = [...top, "another label"].map((label, i) => [label, DISTINCT[i]]);
    return categorical("label", [...names, ["none", grey]], grey, model, (space, feature) => {
      const label = space.labels.get(feature);
      if (label === undefined) return -1;
      const place = top.indexOf(label);
      return place < 0 ? top.length : place;
    });
  }
  if (colour === "family") {
    const top = largest(model, DISTINCT.length);
    const names = top.map((family, i): [string, string] => [familyName(values, family), DISTINCT[i]]);
    const place = new Map(top.map((family, i) => [family, i]));
    return categorical(
      "family",
      [...names, ["another, or none", grey]],
      grey,
      model,
      (space, feature) => place.get(space.family[feature]) ?? -1,
    );
  }
  if (colour === "members") {
    const most = Math.max(2, ...model.families.map((members) => members.length));
    return graded("members of its family", 2, most, String, dark, grey, model, (space, feature) => {
      const family = space.family[feature];
      return family < 0 ? NaN : model.families[family].length;
    });
  }
  if (colour === "frequency") {
    const of = (space: Space, feature: number) => Math.log10(values.frequency(space, feature));
    let [low, high] = [0, -20];
    for (const space of model.spaces) {
      for (let feature = 0; feature < space.features; feature++) {
        if (!space.count[feature]) continue;
        low = Math.min(low, of(space, feature));
        high = Math.max(high, of(space, feature));
      }
    }
    const scheme = graded(
      "share of tokens",
      low,
      Math.max(high, low),
      (v) => percent(10 ** v),
      dark,
      grey,
      model,
      (space, feature) => (space.count[feature] ? of(space, feature) : NaN),
    );
    return scheme;
  }
  return graded(
    `${MEASURE_NAMES[colour]} of its partner`,
    0,
    1,
    (v) => v.toFixed(0),
    dark,
    grey,
    model,
    (space, feature) =>
      values.hasPartner(space.number, feature) ? values.measure(space.number, feature, colour) : NaN,
  );
}

/** The families with the most members; of equals, those with the most in the spaces that are shown, then the tightest. */
function largest(model: Model, count: number): number[] {
  const shown = model.families.map(() => 0);
  for (const { family } of model.spaces) for (const id of family) if (id >= 0) shown[id]++;
  const least = (id: number) => model.data.families?.facts.r_min?.[id] ?? -1;
  return [...model.families.keys()]
    .sort(
      (x, y) =>
        model.families[y].length - model.families[x].length || shown[y] - shown[x] || least(y) - least(x) || x - y,
    )
    .slice(0, count);
}

/** A family is called after its first member that is shown. */
function familyName(values: Values, id: number): string {
  const { model } = values;
  const members = model.families[id];
  for (const space of model.spaces) {
    const feature = space.family.indexOf(id);
    if (feature < 0) continue;
    return `${values.words(space.number, feature) || `${space.name} / ${feature}`} (${members.length})`;
  }
  return `family of ${members.length}`;
}

function categorical(
  title: string,
  names: [string, string][],
  grey: string,
  model: Model,
  of: (space: Space, feature: number) => number,
): Scheme {
  const index = model.spaces.map((space) =>
    Uint8Array.from({ length: space.features }, (_, feature) => of(space, feature) + 1),
  );
  return { index, colours: [grey, ...names.map(([, colour]) => colour)], legend: { kind: "names", title, names } };
}

function graded(
  title: string,
  low: number,
  high: number,
  text: (value: number) => string,
  dark: boolean,
  grey: string,
  model: Model,
  of: (space: Space, feature: number) => number,
): Scheme {
  const colours = gradient(dark);
  const index = model.spaces.map((space) =>
    Uint8Array.from({ length: space.features }, (_, feature) => {
      const share = (of(space, feature) - low) / Math.max(high - low, 1e-9);
      return Number.isNaN(share) ? 0 : 1 + Math.min(STEPS - 1, Math.max(0, Math.floor(share * STEPS)));
    }),
  );
  return {
    index,
    colours: [grey, ...colours],
    legend: { kind: "scale", title, low: text(low), high: text(high), colours, none: grey },
  };
}

/** From faint to strong: towards dark on a light ground, towards bright on a dark one. */
function gradient(dark: boolean): string[] {
  return Array.from({ length: STEPS }, (_, i) => {
    const share = i / (STEPS - 1);
    return between(dark ? 0.12 + 0.88 * share : 0.95 - 0.95 * share);
  });
}

function between(share: number): string {
  const at = share * (VIRIDIS.length - 1);
  const low = Math.min(VIRIDIS.length - 2, Math.floor(at));
  const parts = (hex: string) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const [x, y] = [parts(VIRIDIS[low]), parts(VIRIDIS[low + 1])];
  return `#${x
    .map((v, i) =>
      Math.round(v + (y[i] - v) * (at - low))
        .toString(16)
        .padStart(2, "0"),
    )
    .join("")}`;
}
