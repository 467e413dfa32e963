// The explorer: reads the data in the page, and joins its parts.

import { byId } from "./dom";
import { FeaturePage } from "./feature";
import { Controls } from "./filters";
import { List } from "./list";
import { Maps } from "./maps";
import { type Data, Model } from "./model";
import { unpack } from "./packed";
import { follow, hashOf } from "./permalink";
import { State } from "./state";
import { Texts } from "./texts";
import { chooseTheme } from "./theme";
import { Values } from "./values";

async function start(): Promise<void> {
  const packed = await unpack<Data>(byId("features-data").textContent ?? "");
  byId("features-data").remove();
  const model = new Model(packed.data, packed);
  const state = new State(model);
  follow(location.hash, model, state);
  const values = new Values(model, state);
  byId("title").textContent = model.spaces.map((space) => space.name).join(" × ");
  byId("run").textContent = `run ${model.data.run.name} · ${model.data.run.created.slice(0, 10)}`;
  const controls = new Controls(values, state);
  chooseTheme(state);
  const list = new List(values, state);
  new FeaturePage(values, state, (by) => list.step(by));
  const maps = draw(values, state);
  modes(maps);
  links(model, state, values, controls);
  keys(state, controls, list);
  document.documentElement.dataset.ready = "features";
  // The text is the larger part, and maps and lists do not wait for it.
  setTimeout(() => void readTexts(model, state, values));
}

async function readTexts(model: Model, state: State, values: Values): Promise<void> {
  const packed = await unpack(byId("contexts-data").textContent ?? "");
  byId("contexts-data").remove();
  values.texts = new Texts(model, packed);
  if (state.query) values.filter();
  state.changed("texts", ...(state.query ? (["query"] as const) : []));
  document.documentElement.dataset.ready = "all";
}

function draw(values: Values, state: State): Maps | null {
  try {
    if (Maps.supported()) return new Maps(values, state);
  } catch (error) {
    console.error(error);
  }
  byId("maps").hidden = byId("legend").hidden = true;
  byId("no-maps").hidden = false;
  return null;
}

function modes(maps: Maps | null): void {
  for (const input of document.querySelectorAll<HTMLInputElement>('input[name="mode"]')) {
    input.addEventListener("change", () => maps?.setMode(input.value === "lasso" ? "lasso" : "panZoom"));
  }
  byId("view").addEventListener("click", () => maps?.resetView());
}

/** The address follows what is chosen, and what is chosen follows the address. */
function links(model: Model, state: State, values: Values, controls: Controls): void {
  let own = location.hash;
  let last = 0;
  const write = (push: boolean) => {
    const hash = hashOf(model, state);
    if (hash === (location.hash || "#")) return;
    own = hash;
    // Walking through the list is one step of the history.
    const walking = Date.now() - last < 2000;
    last = Date.now();
    if (push && !walking) location.hash = hash;
    else history.replaceState(null, "", hash);
  };
  state.on(["feature"], () => write(true));
  state.on(["filters", "query", "colour", "map", "list", "sort"], () => write(false));
  addEventListener("hashchange", () => {
    if (location.hash === own) return;
    own = location.hash;
    follow(location.hash, model, state);
    values.compare();
    values.filter();
    controls.show();
    state.changed("feature", "filters", "query", "colour", "map", "list");
  });
}

function keys(state: State, controls: Controls, list: List): void {
  const help = byId<HTMLDialogElement>("help");
  byId("ask").addEventListener("click", () => help.showModal());
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || help.open) return;
    const typing =
      event.target instanceof HTMLElement && event.target.matches("input:not([type=range]), select, textarea");
    if (event.key === "Escape") {
      if (typing) {
        event.preventDefault(); // (a browser empties a search field, and tells nobody who no longer has the focus)
        (event.target as HTMLElement).blur();
      } else if (state.lasso) list.clearLasso();
      else state.select(null);
      return;
    }
    if (typing) return;
    const actions: Record<string, () => void> = {
      j: () => list.step(1),
      k: () => list.step(-1),
      "/": () => controls.focusSearch(),
      "?": () => help.showModal(),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

start().catch((error: unknown) => {
  console.error(error);
  byId("failed").hidden = false;
  byId("why").textContent = error instanceof Error ? error.message : String(error);
});
