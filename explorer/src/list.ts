// The list of features: those that pass, or those in the lasso. Only the rows in view are in the page.

import { elementScroll, observeElementOffset, observeElementRect, Virtualizer } from "@tanstack/virtual-core";
import { type Column, columnsOf, csv, sorted } from "./columns";
import { byId, framed, h } from "./dom";
import { counted, whole } from "./numbers";
import type { State } from "./state";
import type { Values } from "./values";
import { spoken } from "./words";

const ROW = 30;
const GAP = 0.55; // rem between columns, as in the style

export class List {
  features: number[] = [];
  private columns: Column[] = [];
  private readonly scroller = byId("rows");
  private readonly inner = h("div", { class: "inner", role: "rowgroup" });
  private readonly virtual: Virtualizer<HTMLElement, HTMLElement>;
  private readonly refreshed = framed(() => this.refresh());

  constructor(
    private readonly values: Values,
    private readonly state: State,
  ) {
    this.scroller.append(this.inner);
    this.virtual = new Virtualizer(this.options());
    this.virtual._didMount();
    this.virtual._willUpdate();
    for (const space of values.model.spaces) {
      const button = h(
        "button",
        {
          type: "button",
          role: "tab",
          "aria-controls": "rows",
          id: `tab-${space.number}`,
          onclick: () => this.show(space.number),
        },
        space.name,
      );
      byId("tabs").append(button);
    }
    byId("download").addEventListener("click", () => this.download());
    byId("unlasso").addEventListener("click", () => this.clearLasso());
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    state.on(["filters", "query", "lasso", "list", "texts"], () => this.refreshed());
    state.on(["feature"], () => this.marked());
    this.refresh();
    requestAnimationFrame(() => this.marked()); // (the rows have no height before)
  }

  /** The features that come before and after the selected one in the list. */
  step(by: number): void {
    const { feature, list } = this.state;
    if (!this.features.length) return;
    const at = feature && feature.space === list ? this.features.indexOf(feature.feature) : -1;
    const next =
      at < 0 ? (by > 0 ? 0 : this.features.length - 1) : Math.min(this.features.length - 1, Math.max(0, at + by));
    this.state.select({ space: list, feature: this.features[next] });
  }

  clearLasso(): void {
    this.state.lasso = null;
    this.state.changed("lasso");
  }

  private show(space: number): void {
    this.state.list = space;
    this.state.changed("list");
  }

  private options() {
    return {
      count: this.features.length,
      getScrollElement: () => this.scroller,
      estimateSize: () => ROW,
      overscan: 8,
      scrollMargin: ROW, // the heads, which stay
      scrollPaddingStart: ROW,
      scrollToFn: elementScroll,
      observeElementRect,
      observeElementOffset,
      onChange: () => this.draw(),
    };
  }

  private refresh(): void {
    const { state, values } = this;
    const space = state.list;
    const { lasso } = state;
    this.columns = columnsOf(values, space);
    const passing: number[] = [];
    const only = lasso?.space === space ? lasso.features : null;
    values.passing[space].forEach((passes, feature) => {
      if (passes && (!only || only.has(feature))) passing.push(feature);
    });
    const named = (name: string) => this.columns.find((column) => column.name === name);
    const wanted = state.sort && named(state.sort.column);
    const down = wanted && state.sort ? state.sort.down : true;
    const column = wanted ?? named(values.matches ? "found" : "r") ?? this.columns[0];
    this.features = sorted(passing, column, down);
    if (!wanted && !values.matches) {
      const kept = (feature: number) => values.hasPartner(space, feature);
      this.features = [...this.features.filter(kept), ...this.features.filter((feature) => !kept(feature))];
    }
    this.head(column.name, down);
    const widths = this.columns.map(({ width, grows }) => (grows ? `minmax(${width}rem, 1fr)` : `${width}rem`));
    this.scroller.style.setProperty("--columns", widths.join(" "));
    const least = this.columns.reduce((sum, { width }) => sum + width + GAP, GAP);
    this.scroller.style.setProperty("--least", `${least}rem`);
    this.scroller.setAttribute("aria-rowcount", String(this.features.length + 1));
    this.scroller.setAttribute("aria-label", `Features of ${values.model.spaces[space].name}`);
    for (const tab of byId("tabs").children) tab.setAttribute("aria-selected", String(tab.id === `tab-${space}`));
    byId("count").textContent = this.counted(only !== null);
    byId("unlasso").hidden = !lasso;
    this.virtual.setOptions({ ...this.virtual.options, ...this.options() });
    this.virtual._willUpdate();
    this.virtual.measure();
    this.draw();
  }

  private counted(lassoed: boolean): string {
    const n = this.features.length;
    if (!n) return "No feature passes the filters and the search.";
    const kept = this.features.reduce(
      (sum, feature) => sum + Number(this.values.hasPartner(this.state.list, feature)),
      0,
    );
    return `${counted(n, "feature")}${lassoed ? " in the lasso" : ""}, ${whole(kept)} with a partner`;
  }

  private head(by: string, down: boolean): void {
    const heads = this.columns.map(({ name, title, kind, down: first }) => {
      const here = name === by;
      const sort = () => {
        this.state.sort = { column: name, down: here ? !down : first };
        this.refresh();
        this.state.changed("sort");
      };
      const arrow = here ? (down ? " ↓" : " ↑") : "";
      return h(
        "div",
        { role: "columnheader", class: kind, "aria-sort": here ? (down ? "descending" : "ascending") : "none" },
        h("button", { type: "button", onclick: sort }, title, h("span", { "aria-hidden": "true" }, arrow)),
      );
    });
    byId("heads").replaceChildren(...heads);
  }

  private draw(): void {
    this.inner.style.height = `${this.virtual.getTotalSize()}px`;
    const rows = this.virtual.getVirtualItems().map(({ index, start }) => this.row(index, start - ROW));
    this.inner.replaceChildren(...rows);
    this.active();
  }

  private row(index: number, start: number): HTMLElement {
    const feature = this.features[index];
    const space = this.state.list;
    const open = () => this.state.select({ space, feature });
    const row = h(
      "div",
      { role: "row", id: `row-${space}-${feature}`, class: "row", "aria-rowindex": index + 2, onclick: open },
      ...this.columns.map(({ kind, text, faint }) =>
        h("div", { role: "gridcell", class: `${kind}${faint?.(feature) ? " faint" : ""}` }, spoken(text(feature))),
      ),
    );
    row.addEventListener("mouseenter", () => this.hover(feature));
    row.addEventListener("mouseleave", () => this.hover(null));
    row.style.transform = `translateY(${start}px)`;
    row.setAttribute("aria-selected", String(this.isOpen(feature)));
    return row;
  }

  private hover(feature: number | null): void {
    this.state.hover = feature === null ? null : { space: this.state.list, feature };
    this.state.changed("hover");
  }

  private isOpen(feature: number): boolean {
    const open = this.state.feature;
    return open?.space === this.state.list && open.feature === feature;
  }

  /** Bring the selected feature into view. */
  private marked(): void {
    const open = this.state.feature;
    const at = open && open.space === this.state.list ? this.features.indexOf(open.feature) : -1;
    if (at >= 0) this.virtual.scrollToIndex(at, { align: "auto" });
    this.draw();
  }

  private active(): void {
    const open = this.state.feature;
    const id = open && `row-${open.space}-${open.feature}`;
    if (id && document.getElementById(id)) this.scroller.setAttribute("aria-activedescendant", id);
    else this.scroller.removeAttribute("aria-activedescendant");
  }

  private key(event: KeyboardEvent): void {
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: 10,
      PageUp: -10,
      Home: -1e9,
      End: 1e9,
    };
    if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.step(steps[event.key]);
  }

  private download(): void {
    const space = this.values.model.spaces[this.state.list];
    const text = csv(this.values, space.number, this.features);
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    const link = h("a", { href: url, download: `${space.name.replace(/[^\w@.-]+/g, "_")}-features.csv` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }
}
