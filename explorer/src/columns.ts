// The columns of the list, on the page and as CSV.

import { MEASURES } from "./model";
import { decimal, percent } from "./numbers";
import { RANKS, type Values } from "./values";

export interface Column {
  name: string;
  title: string;
  /** For CSS. */
  kind: "number" | "words";
  /** In rem, and whether it takes what is left. */
  width: number;
  grows?: boolean;
  /** What is sorted by; NaN and empty texts come last. */
  value: (feature: number) => number | string;
  text: (feature: number) => string;
  /** Whether a cell is of a candidate that was not kept. */
  faint?: (feature: number) => boolean;
  /** Whether larger values come first when it is sorted by for the first time. */
  down: boolean;
}

/** The columns for the features of a space, beside its counterpart. */
export function columnsOf(values: Values, space: number): Column[] {
  const { model, matches } = values;
  const own = model.spaces[space];
  const other = model.spaces[values.side(space).other];
  const found = matches?.[space];
  const faint = (feature: number) => !values.hasPartner(space, feature);
  const columns: Column[] = [
    { name: "feature", title: "feature", kind: "number", width: 3.7, value: (f) => f, text: String, down: false },
    words("words", own.labels.size ? "label" : "fires most on", (f) => values.words(space, f)),
  ];
  if (found) {
    columns.push({
      name: "found",
      title: "found in",
      kind: "words",
      width: 5.4,
      value: (f) => -(found.get(f)?.rank ?? 9) + Math.min(found.get(f)?.times ?? 0, 99) / 100,
      text: (f) => {
        const match = found.get(f);
        return match ? `${RANKS[match.rank]}${match.times > 1 ? ` ×${match.times}` : ""}` : "";
      },
      down: true,
    });
  }
  columns.push(
    numeric("fires", "fires on", 4.8, (f) => own.count[f] / Math.max(own.tokens, 1), percent),
    {
      name: "partner",
      title: "partner",
      kind: "number",
      width: 3.8,
      value: (f) => (values.hasPartner(space, f) ? values.partner(space, f) : NaN),
      text: (f) => (values.hasPartner(space, f) ? String(values.partner(space, f)) : "–"),
      down: false,
    },
    words("partner words", `in ${other.name}`, (f) =>
      values.hasPartner(space, f) ? values.words(other.number, values.partner(space, f)) : "",
    ),
  );
  for (const measure of MEASURES) {
    if (!values.has(measure)) continue;
    const title = { r: "r", heldout: "held out", within: "within token", elsewhere: "other text" }[measure];
    columns.push({
      ...numeric(
        measure,
        title,
        { r: 2.6, heldout: 4.2, within: 6.1, elsewhere: 4.9 }[measure],
        (f) => values.measure(space, f, measure),
        (v) => decimal(v),
      ),
      faint,
    });
  }
  if (model.data.categories.length) {
    const text = (f: number) => (own.categories.get(f) ?? []).map((c) => model.data.categories[c]).join(", ");
    columns.push({ name: "category", title: "category", kind: "words", width: 4.6, value: text, text, down: false });
  }
  if (model.families.length) {
    const size = (f: number) => (own.family[f] < 0 ? NaN : model.families[own.family[f]].length);
    columns.push(numeric("family", "family", 3.3, size, (v) => (Number.isNaN(v) ? "–" : String(v))));
  }
  return columns;
}

function words(name: string, title: string, text: (feature: number) => string): Column {
  return { name, title, kind: "words", width: 7, grows: true, value: text, text, down: false };
}

function numeric(
  name: string,
  title: string,
  width: number,
  value: (feature: number) => number,
  shown: (value: number) => string,
): Column {
  return { name, title, kind: "number", width, value, text: (f) => shown(value(f)), down: true };
}

/** Features in the order of a column; those without a value last, equal ones by number. */
export function sorted(features: number[], column: Column, down: boolean): number[] {
  const keys = new Map(features.map((feature) => [feature, column.value(feature)]));
  const missing = (key: number | string) => key === "" || Number.isNaN(key);
  return features.slice().sort((x, y) => {
    const [a, b] = [keys.get(x) as number | string, keys.get(y) as number | string];
    if (missing(a) || missing(b)) return Number(missing(a)) - Number(missing(b)) || x - y;
    const order = typeof a === "string" ? a.localeCompare(b as string) : a - (b as number);
    return (down ? -order : order) || x - y;
  });
}

/** The listed features as CSV, with every number in full. */
export function csv(values: Values, space: number, features: number[]): string {
  const { model } = values;
  const own = model.spaces[space];
  const { cell, other, side } = values.side(space);
  const measures = MEASURES.filter((measure) => values.has(measure));
  const head = ["space", "feature", "label", "top_tokens", "count", "frequency", "max_activation", "other_space"];
  head.push(
    "best_candidate",
    "candidate_tokens",
    "kept",
    "dropped_because",
    ...measures.map((m) => COLUMNS[m]),
    "categories",
  );
  const rows = features.map((feature) => {
    const row = values.row(space, feature);
    const partner = row < 0 ? -1 : cell.feature[1 - side][row];
    return [
      own.name,
      feature,
      own.labels.get(feature) ?? "",
      values.tokensOf(space, feature),
      own.count[feature],
      values.frequency(own, feature),
      own.high[feature],
      model.spaces[other].name,
      row < 0 ? "" : partner,
      row < 0 ? "" : values.words(other, partner),
      values.hasPartner(space, feature),
      row < 0 ? "no candidate" : cell.reasons[cell.reason[row]],
      ...measures.map((measure) => {
        const value = values.measure(space, feature, measure);
        return Number.isNaN(value) ? "" : Number(value.toFixed(5));
      }),
      (own.categories.get(feature) ?? []).map((c) => model.data.categories[c]).join("; "),
    ];
  });
  return [head, ...rows].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
}

const COLUMNS = {
  r: "correlation",
  heldout: "correlation_heldout",
  within: "correlation_within_token",
  elsewhere: "correlation_elsewhere",
} as const;

/** A field of CSV. A text that a spreadsheet would read as a formula is given a leading apostrophe. */
function quoted(value: string | number | boolean): string {
  let text = String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
