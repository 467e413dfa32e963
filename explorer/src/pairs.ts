// A feature's partners and candidates, with their numbers.

import { h } from "./dom";
import { candidates, type Cell, isKept, MEASURE_NAMES, MEASURES, type Side } from "./model";
import { decimal, percent, whole } from "./numbers";
import { linkTo } from "./permalink";
import type { Place } from "./state";
import type { Values } from "./values";
import { spoken } from "./words";

/** A link to a feature. */
export function linked(values: Values, place: Place, text?: string): HTMLElement {
  const { model } = values;
  return h(
    "a",
    { href: linkTo(model, place), class: `of space-${place.space}` },
    text ?? `${model.spaces[place.space].name} / ${place.feature}`,
  );
}

/** Cards of a feature's partners in another space, or why it has none. */
export function partnersIn(values: Values, side: Side, feature: number): HTMLElement {
  const { cell } = side;
  const rows = [...candidates(side, feature)];
  const other = values.model.spaces[side.other];
  const kept = rows.filter((row) => isKept(cell, row));
  if (kept.length) return h("div", { class: "partners" }, ...kept.map((row) => partnerCard(values, side, row)));
  const best = rows[0];
  const why =
    best === undefined
      ? "no candidate"
      : `the best of ${rows.length} candidates has r ${decimal(cell.values.r?.[best])} and was dropped: ${cell.reasons[cell.reason[best]]}`;
  return h("div", { class: "partner none" }, h("h3", {}, `No partner in ${other.name}`), h("p", {}, `${why}.`));
}

function partnerCard(values: Values, side: Side, row: number): HTMLElement {
  const { cell } = side;
  const other = values.model.spaces[side.other];
  const feature = cell.feature[1 - side.side][row];
  const { low, high, fdr } = cell.values;
  const numbers = MEASURES.filter((measure) => cell.values[measure]).map((measure) => {
    const value = decimal(cell.values[measure]?.[row]);
    const interval =
      measure === "r" && low && high && !Number.isNaN(low[row])
        ? ` (${decimal(low[row])} to ${decimal(high[row])})`
        : "";
    return h("div", {}, h("dt", {}, MEASURE_NAMES[measure]), h("dd", {}, value, h("small", {}, interval)));
  });
  numbers.push(h("div", {}, h("dt", {}, "fire together on"), h("dd", {}, `${whole(cell.cofiring[row])} tokens`)));
  if (fdr && !Number.isNaN(fdr[row])) {
    numbers.push(
      h(
        "div",
        {},
        h("dt", { title: "expected share of chance pairs among those with at least this r" }, "false discovery"),
        h("dd", {}, percent(fdr[row])),
      ),
    );
  }
  return h(
    "div",
    { class: `partner space-${other.number}` },
    h("h3", {}, "Partner ", linked(values, { space: other.number, feature })),
    h("p", { class: "words" }, spoken(values.words(other.number, feature))),
    h("dl", {}, ...numbers),
  );
}

/** The table of a feature's candidates in another space. */
export function candidatesIn(values: Values, side: Side, feature: number): HTMLElement {
  const { cell } = side;
  const rows = [...candidates(side, feature)];
  const other = values.model.spaces[side.other];
  const section = h(
    "section",
    { "aria-label": `Candidates in ${other.name}` },
    h("h3", {}, `Candidates in ${other.name}`),
  );
  if (!rows.length) {
    section.append(
      h("p", { class: "quiet" }, "None: no feature there is among its best, and it is among the best of none."),
    );
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
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ...["feature", "", ...columns.map((m) => MEASURE_NAMES[m]), ""].map((name) =>
              h("th", { scope: "col" }, name),
            ),
          ),
        ),
        h("tbody", {}, ...rows.map((row) => candidate(values, cell, side, row, columns))),
      ),
    ),
  );
  return section;
}

function candidate(
  values: Values,
  cell: Cell,
  side: Side,
  row: number,
  columns: (typeof MEASURES)[number][],
): HTMLElement {
  const feature = cell.feature[1 - side.side][row];
  const kept = isKept(cell, row);
  return h(
    "tr",
    { class: kept ? "kept" : null },
    h("td", {}, linked(values, { space: side.other, feature }, String(feature))),
    h("td", { class: "words" }, spoken(values.words(side.other, feature))),
    ...columns.map((measure) => h("td", { class: "number" }, decimal(cell.values[measure]?.[row]))),
    h("td", { class: "why" }, kept ? "kept" : cell.reasons[cell.reason[row]]),
  );
}
