// What is drawn over the maps: lines between partners, rings around features, and the tip at the pointer.

import { h } from "./dom";
import { keptRows, partners } from "./model";
import { counted, decimal } from "./numbers";
import type { Place, State } from "./state";
import type { Values } from "./values";
import { spoken } from "./words";

const MOST_LINES = 400;

export class Overlay {
  private readonly canvas = h("canvas", { class: "overlay", "aria-hidden": "true" });
  private readonly tip = h("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  private readonly note = h("p", { class: "lines quiet small", hidden: true });

  /** `at` says where a feature is drawn, in the container's pixels; null if it is nowhere, or outside of its panel. */
  constructor(
    private readonly container: HTMLElement,
    private readonly values: Values,
    private readonly state: State,
    private readonly at: (place: Place) => [number, number] | null,
  ) {
    container.append(this.canvas, this.note, this.tip);
  }

  resize(): void {
    const { width, height } = this.container.getBoundingClientRect();
    this.canvas.width = width * devicePixelRatio;
    this.canvas.height = height * devicePixelRatio;
  }

  draw(): void {
    const context = this.canvas.getContext("2d") as CanvasRenderingContext2D;
    const style = getComputedStyle(document.documentElement);
    const [ink, ground] = ["--ink", "--surface"].map((name) => style.getPropertyValue(name).trim());
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.strokeStyle = ink;
    const { lasso, hover, feature } = this.state;
    let [lines, left] = [0, 0];
    if (lasso) {
      context.globalAlpha = 0.25;
      context.lineWidth = 1;
      const sides = this.values.model.sides(lasso.space);
      for (const one of lasso.features) {
        if (lines < MOST_LINES) lines += this.link(context, { space: lasso.space, feature: one }, false, ink, ground);
        else left += Number(sides.some((side) => partners(side, one).length > 0));
      }
    }
    this.note.hidden = !left;
    this.note.textContent = `Lines of ${counted(left, "more feature")} are not drawn.`;
    context.globalAlpha = 1;
    context.lineWidth = 1.5;
    if (feature) lines += this.link(context, feature, true, ink, ground);
    if (hover) lines += this.link(context, hover, true, ink, ground);
    this.container.dataset.lines = String(lines);
  }

  private link(context: CanvasRenderingContext2D, place: Place, rings: boolean, ink: string, ground: string): number {
    const from = this.at(place);
    let lines = 0;
    const ends: [number, number][] = from ? [from] : [];
    for (const side of this.values.model.sides(place.space)) {
      for (const other of partners(side, place.feature)) {
        const to = this.at({ space: side.other, feature: other });
        if (!to) continue;
        ends.push(to);
        if (!from) continue;
        context.beginPath();
        context.moveTo(...from);
        context.lineTo(...to);
        context.stroke();
        lines++;
      }
    }
    for (const end of rings ? ends : []) {
      for (const [radius, width, colour] of [
        [7, 4, ground],
        [7, 2, ink],
      ] as const) {
        context.beginPath();
        context.arc(...end, radius, 0, 2 * Math.PI);
        context.lineWidth = width;
        context.strokeStyle = colour;
        context.stroke();
      }
      context.lineWidth = 1.5;
    }
    return lines;
  }

  showTip(): void {
    const { hover } = this.state;
    const at = hover && this.at(hover);
    this.tip.hidden = !at;
    if (!hover || !at) return;
    const { model } = this.values;
    const lines: [string, string][] = [
      [`${model.spaces[hover.space].name}/${hover.feature}`, this.values.words(hover.space, hover.feature)],
    ];
    for (const side of model.sides(hover.space)) {
      const { feature, values } = side.cell;
      for (const row of keptRows(side, hover.feature)) {
        const other = feature[1 - side.side][row];
        const name = `↔ ${model.spaces[side.other].name}/${other}, r ${decimal(values.r?.[row])}`;
        lines.push([name, this.values.words(side.other, other)]);
      }
    }
    if (lines.length === 1) lines.push(["no partner", ""]);
    this.tip.replaceChildren(...lines.map(([name, words]) => h("div", {}, h("b", {}, name), " ", spoken(words))));
    const width = this.container.clientWidth;
    const right = at[0] > width / 2;
    this.tip.style.left = right ? "auto" : `${at[0] + 14}px`;
    this.tip.style.right = right ? `${width - at[0] + 14}px` : "auto";
    this.tip.style.top = `${at[1] + 10}px`;
  }
}
