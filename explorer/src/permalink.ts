// Addresses: `#smollm2@15/831` is a feature; what else differs from the beginning comes after a question mark.

import { MEASURES, type Model } from "./model";
import { LEAST_FREQUENCY, noFilters, type PartnerFilter, type Place, type State, type Colour } from "./state";

/** The address of a feature within the page. */
export function linkTo(model: Model, place: Place): string {
  return `#${coded(model.spaces[place.space].name)}/${place.feature}`;
}

/** A name as a part of an address; `@`, `/` and `:` are easier to read as they are. */
function coded(text: string): string {
  return encodeURIComponent(text).replace(/%40/g, "@").replace(/%2F/g, "/").replace(/%3A/g, ":");
}

/** The whole of what is chosen, as an address. */
export function hashOf(model: Model, state: State): string {
  const words = new URLSearchParams();
  const { filters } = state;
  if (state.query.trim()) words.set("q", state.query.trim());
  if (state.colour !== "r") words.set("colour", state.colour);
  if (state.map !== "decoder") words.set("map", state.map);
  for (const measure of MEASURES) {
    const [least, most] = filters.measures[measure];
    if (least > -1 || most < 1) words.set(measure, `${least},${most}`);
  }
  const [least, most] = filters.frequency;
  if (least > LEAST_FREQUENCY || most < 0) words.set("frequency", `${least},${most}`);
  if (filters.category !== null) words.set("category", model.data.categories[filters.category]);
  if (filters.partner !== "any") words.set("partner", filters.partner);
  if (state.list !== (state.feature?.space ?? 0)) words.set("list", model.spaces[state.list].name);
  for (const { number } of model.spaces) {
    const other = state.against[number];
    if (other !== model.counterpart(number)) words.append("against", compared(model, number, other));
  }
  if (state.sort) words.set("sort", `${state.sort.down ? "-" : ""}${state.sort.column}`);
  const place = state.feature ? linkTo(model, state.feature) : "#";
  const rest = words.toString();
  return rest ? `${place}?${rest}` : place;
}

/** Choose what an address says. What it does not name is as at the beginning; what is not there is left out. */
export function follow(hash: string, model: Model, state: State): void {
  const [path, rest] = hash.replace(/^#/, "").split(/\?(.*)/s);
  const words = new URLSearchParams(rest ?? "");
  state.feature = placeOf(path, model);
  if (state.feature) state.list = state.feature.space;
  if (rest === undefined && state.feature) return; // a link to a feature leaves filters as they are
  state.query = words.get("q") ?? "";
  state.colour = (words.get("colour") ?? "r") as Colour;
  state.map = words.get("map") === "firing" ? "firing" : "decoder";
  const filters = noFilters();
  for (const measure of MEASURES) filters.measures[measure] = range(words.get(measure), -1, 1);
  filters.frequency = range(words.get("frequency"), LEAST_FREQUENCY, 0);
  const category = model.data.categories.indexOf(words.get("category") ?? "");
  filters.category = category < 0 ? null : category;
  const partner = words.get("partner");
  filters.partner =
    partner === "with" || partner === "without" || partner === "no candidate" ? (partner as PartnerFilter) : "any";
  state.filters = filters;
  const list = model.named(words.get("list") ?? "");
  if (list >= 0) state.list = list;
  else if (!state.feature) state.list = 0;
  const wanted = words.getAll("against");
  state.against = model.spaces.map(({ number }) => {
    const side = model.sides(number).find(({ other }) => wanted.includes(compared(model, number, other)));
    return side?.other ?? model.counterpart(number);
  });
  const sort = words.get("sort");
  state.sort = sort ? { column: sort.replace(/^-/, ""), down: sort.startsWith("-") } : null;
}

/** That a space is compared with another one. */
function compared(model: Model, space: number, other: number): string {
  return `${model.spaces[space].name} ${model.spaces[other].name}`;
}

function placeOf(path: string, model: Model): Place | null {
  const at = path.lastIndexOf("/");
  let name: string;
  try {
    name = decodeURIComponent(path.slice(0, Math.max(at, 0)));
  } catch {
    return null;
  }
  const space = model.named(name);
  const text = path.slice(at + 1);
  if (space < 0 || !/^\d+$/.test(text) || Number(text) >= model.spaces[space].features) return null;
  return { space, feature: Number(text) };
}

function range(text: string | null, least: number, most: number): [number, number] {
  const [low, high] = (text ?? "").split(",").map(Number);
  if (!Number.isFinite(low) || !Number.isFinite(high) || text === null) return [least, most];
  return [Math.max(least, Math.min(low, most)), Math.min(most, Math.max(high, least))];
}
