// One map a space: points where features lie. What is hovered or selected in one is lit in the others, with lines.

import createScatterplot from "regl-scatterplot";
import { type Scheme, scheme } from "./colours";
import { onClick } from "./clicks";
import { byId, framed, h } from "./dom";
import { type MapKind, partners } from "./model";
import { showLegend } from "./legend";
import { counted, whole } from "./numbers";
import { Overlay } from "./overlay";
import type { Place, State } from "./state";
import { isDark } from "./theme";
import type { Values } from "./values";

/** With a setting that the library's types lack. */
type Settings = NonNullable<Parameters<typeof createScatterplot>[0]> & { actionKeyMap: Record<string, string> };
type Scatterplot = ReturnType<typeof createScatterplot>;

const GRID = 65534;
const NOWHERE = 65535;
const FAR = -100; // where points that are nowhere are put: outside of every view
const MARGIN = 0.95;
const DIM = 0.07;
const CLEAR = 0.85;
const MANY = 6000;
const REACH = 12; // pixels from a click to the point that it means

interface Points {
  x: Float32Array;
  y: Float32Array;
  /** Made at the first drawing, and given at the next ones. */
  spatialIndex?: ArrayBuffer;
}

interface Panel {
  space: number;
  element: HTMLElement;
  frame: HTMLElement;
  canvas: HTMLCanvasElement;
  note: HTMLElement;
  plot: Scatterplot;
  points: Partial<Record<MapKind, Points>>;
  shown: MapKind | null;
  /** Whether the user has moved or zoomed it. */
  moved: boolean;
  busy: boolean;
  again: boolean;
}

export class Maps {
  private readonly panels: Panel[] = [];
  private readonly overlay: Overlay;
  private readonly container: HTMLElement;
  private scheme: Scheme;
  private readonly overlaid = framed(() => this.overlay.draw());
  private readonly drawn = framed(() => this.drawAll());

  constructor(
    private readonly values: Values,
    private readonly state: State,
  ) {
    this.container = byId("maps");
    this.scheme = this.colour();
    for (const space of values.model.spaces) this.addPanel(space.number);
    this.overlay = new Overlay(this.container, values, state, (place) => this.at(place));
    this.container.style.setProperty("--maps", String(this.panels.length));
    new ResizeObserver(() => this.resize()).observe(this.container);
    this.resize();
    state.on(["colour", "theme", "list", "texts"], () => {
      this.scheme = this.colour();
      this.drawn();
      showLegend(this.scheme.legend);
    });
    state.on(["filters", "query", "lasso", "map"], () => this.drawn());
    state.on(["feature", "hover", "lasso", "filters", "query", "list", "theme"], () => this.overlaid());
    state.on(["hover"], () => this.overlay.showTip());
    showLegend(this.scheme.legend);
    this.drawn();
  }

  /** Whether the maps can be drawn at all. */
  static supported(): boolean {
    const gl = document.createElement("canvas").getContext("webgl");
    return Boolean(gl && gl.getExtension("OES_texture_float"));
  }

  /** Whether a drag pans or draws a lasso. */
  setMode(mode: "panZoom" | "lasso"): void {
    for (const panel of this.panels) void panel.plot.set({ mouseMode: mode });
  }

  /** Show all of every map. */
  resetView(): void {
    for (const panel of this.panels) {
      panel.moved = false;
      void panel.plot.zoomToLocation([0, 0], this.distance(panel));
    }
  }

  /** How far the camera stands so that a whole map is seen: in a narrow panel, further away. */
  private distance({ frame }: Panel): number {
    return Math.max(1, frame.clientHeight / Math.max(frame.clientWidth, 1));
  }

  private colour(): Scheme {
    return scheme(this.values, this.state, isDark());
  }

  private addPanel(space: number): void {
    const about = this.values.model.spaces[space];
    const canvas = h("canvas", { role: "img", "aria-label": this.described(space) });
    const frame = h("div", { class: "frame" }, canvas);
    const note = h("p", { class: "quiet small" });
    const element = h(
      "section",
      { class: `panel space-${space}`, "aria-label": `Map of ${about.name}` },
      h("header", {}, h("h2", {}, h("i", { class: "swatch", "aria-hidden": "true" }), about.name), note),
      frame,
    );
    this.container.append(element);
    const settings: Settings = {
      canvas,
      width: 100,
      height: 100,
      colorBy: "valueA",
      opacityBy: "valueB",
      opacity: [DIM, CLEAR],
      pointSize: about.features > MANY ? 3.5 : 5.5,
      lassoInitiator: false,
      lassoMinDelay: 8,
      deselectOnEscape: false,
      deselectOnDblClick: false,
      actionKeyMap: { lasso: "shift" },
    };
    onClick(canvas, (x, y) => this.clicked(space, x, y));
    const plot = createScatterplot(settings);
    const panel: Panel = {
      space,
      element,
      frame,
      canvas,
      note,
      plot,
      points: {},
      shown: null,
      moved: false,
      busy: false,
      again: false,
    };
    this.panels.push(panel);
    plot.subscribe("pointOver", (feature) => this.hover({ space, feature }));
    plot.subscribe("pointOut", () => this.hover(null));
    plot.subscribe("select", ({ points }) => this.lassoed(space, points));
    plot.subscribe("view", () => this.overlaid());
    for (const event of ["pointerdown", "wheel"])
      canvas.addEventListener(event, () => (panel.moved = true), { passive: true });
  }

  private described(space: number): string {
    const { name, features } = this.values.model.spaces[space];
    return `Map of the ${counted(features, "feature")} of ${name}. The list below has the same features.`;
  }

  private hover(place: Place | null): void {
    if (place && !this.lit(place.space)[place.feature]) return;
    this.state.hover = place;
    this.state.changed("hover");
  }

  /** Select the point nearest to a click, of those that are lit. */
  private clicked(space: number, x: number, y: number): void {
    const { plot, shown } = this.panels[space];
    if (!shown) return;
    const lit = this.lit(space);
    let [nearest, least] = [-1, REACH];
    lit.forEach((one, feature) => {
      const at = one ? plot.getScreenPosition(feature) : undefined;
      const far = at ? Math.hypot(at[0] - x, at[1] - y) : Infinity;
      if (far < least) [nearest, least] = [feature, far];
    });
    if (nearest >= 0) this.state.select({ space, feature: nearest });
  }

  /** Points in a lasso. (The library tells of nothing else: clicks do not reach it.) */
  private lassoed(space: number, points: number[]): void {
    const { state } = this;
    this.panels[space].plot.deselect({ preventEvent: true });
    const features = points.filter((feature) => this.values.passing[space][feature]);
    state.lasso = features.length ? { space, features: new Set(features) } : null;
    state.list = space;
    state.changed("lasso", "list");
  }

  /** Which points are drawn clearly: they pass, and belong to the lasso or are partners of those that do. */
  private lit(space: number): Uint8Array {
    const passing = this.values.passing[space];
    const { lasso } = this.state;
    if (!lasso) return passing;
    const only = lasso.space === space ? lasso.features : this.beyond(lasso, space);
    return passing.map((passes, feature) => Number(passes && only.has(feature)));
  }

  /** The partners of the features in the lasso. */
  private beyond(lasso: NonNullable<State["lasso"]>, space: number): Set<number> {
    const side = this.values.model.sideOf(lasso.space, space);
    return new Set(side ? [...lasso.features].flatMap((feature) => partners(side, feature)) : []);
  }

  private resize(): void {
    for (const panel of this.panels) {
      const { width, height } = panel.frame.getBoundingClientRect();
      if (!width || !height) continue;
      void panel.plot.set({ width, height, ...(panel.moved ? {} : { cameraDistance: this.distance(panel) }) });
    }
    this.overlay.resize();
    this.overlaid();
  }

  private drawAll(): void {
    for (const panel of this.panels) void this.draw(panel);
  }

  private async draw(panel: Panel): Promise<void> {
    if (panel.busy) {
      panel.again = true;
      return;
    }
    panel.busy = true;
    try {
      do {
        panel.again = false;
        await this.drawOnce(panel);
      } while (panel.again);
    } finally {
      panel.busy = false;
    }
    panel.element.dataset.drawn = panel.shown ?? "none";
    this.overlaid();
  }

  private async drawOnce(panel: Panel): Promise<void> {
    const space = this.values.model.spaces[panel.space];
    const kind = space.maps[this.state.map] ? this.state.map : space.about.maps[0];
    const points = (panel.points[kind] ??= placed(space.maps[kind] as Uint16Array));
    const passing = this.values.passing[panel.space];
    const moves = panel.shown !== null && panel.shown !== kind;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    await panel.plot.set({ pointColor: this.scheme.colours, backgroundColor: this.ground() });
    await panel.plot.draw(
      { x: points.x, y: points.y, valueA: this.scheme.index[panel.space], valueB: this.lit(panel.space) },
      {
        zDataType: "categorical",
        wDataType: "categorical",
        ...(points.spatialIndex ? { spatialIndex: points.spatialIndex } : {}),
        ...(moves && !still ? { transition: true, transitionDuration: 450 } : {}),
      },
    );
    points.spatialIndex ??= panel.plot.get("spatialIndex");
    panel.shown = kind;
    const count = passing.reduce((sum, one) => sum + one, 0);
    const all = count === passing.length;
    panel.note.textContent = all
      ? counted(passing.length, "feature")
      : `${whole(count)} of ${counted(passing.length, "feature")}`;
  }

  private ground(): string {
    return getComputedStyle(document.documentElement).getPropertyValue("--surface").trim();
  }

  /** Where a feature is drawn, in the container's pixels; null if it is nowhere, or outside of its panel. */
  private at({ space, feature }: Place): [number, number] | null {
    const panel = this.panels[space];
    if (!panel.shown) return null;
    const x = panel.points[panel.shown]?.x[feature];
    if (x === undefined || x <= FAR) return null;
    const own = panel.plot.getScreenPosition(feature);
    const { clientWidth, clientHeight } = panel.frame;
    if (!own || own[0] < 0 || own[1] < 0 || own[0] > clientWidth || own[1] > clientHeight) return null;
    const [frame, all] = [panel.frame.getBoundingClientRect(), this.container.getBoundingClientRect()];
    return [own[0] + frame.left - all.left, own[1] + frame.top - all.top];
  }
}

function placed(grid: Uint16Array): Points {
  const [x, y] = [new Float32Array(grid.length / 2), new Float32Array(grid.length / 2)];
  for (let i = 0; i < x.length; i++) {
    const nowhere = grid[2 * i] === NOWHERE;
    x[i] = nowhere ? FAR : ((grid[2 * i] / GRID) * 2 - 1) * MARGIN;
    y[i] = nowhere ? FAR : ((grid[2 * i + 1] / GRID) * 2 - 1) * MARGIN;
  }
  return { x, y };
}
