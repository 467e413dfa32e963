// The contexts of a feature, and of its partner beside them.

import { h } from "./dom";
import { partners, type Side } from "./model";
import { activation, percent } from "./numbers";
import type { Place } from "./state";
import { type Context, visible } from "./texts";
import type { Values } from "./values";

/** Where a feature fires most, and where its partner does. */
export function contextsOf(values: Values, { space, feature }: Place): HTMLElement {
  const { texts, model } = values;
  const section = h("section", { "aria-label": "Contexts" }, h("h3", {}, "Where it fires most"));
  if (!texts) {
    section.append(h("p", { class: "quiet" }, "The text is being read …"));
    return section;
  }
  const side = model.sides(space).find((one) => partners(one, feature).length) ?? values.side(space);
  const partner = partners(side, feature)[0];
  if (partner === undefined) {
    section.append(lines(texts.contexts(space, feature, null), space, null));
    return section;
  }
  const [own, other] = [model.spaces[space].name, model.spaces[side.other].name];
  // Of each feature, the page knows where one partner fires: the strongest.
  const [theirs] = partners(model.sideOf(side.other, space) as Side, partner);
  const mutual = theirs === feature;
  section.append(
    h(
      "p",
      { class: "quiet small" },
      h("span", { class: `shade space-${space}` }, "shaded"),
      ": this feature fires, the darker the stronger; ",
      h("span", { class: `under space-${side.other}` }, "underlined"),
      `: its partner ${other} / ${partner} fires.`,
    ),
    h(
      "div",
      { class: "sides" },
      h(
        "div",
        {},
        h("h4", {}, `strongest in ${own}`),
        lines(texts.contexts(space, feature, side.other), space, side.other),
      ),
      h(
        "div",
        {},
        h("h4", {}, `strongest of the partner in ${other}`),
        lines(texts.contexts(side.other, partner, mutual ? space : null), side.other, mutual ? space : null),
        mutual
          ? null
          : h(
              "p",
              { class: "quiet small" },
              `Nothing is underlined here: the strongest partner of ${other} / ${partner} is ${own} / ${theirs}.`,
            ),
      ),
    ),
  );
  return section;
}

function lines(contexts: Context[], space: number, other: number | null): HTMLElement {
  if (!contexts.length) return h("p", { class: "quiet" }, "Nowhere.");
  return h("ol", { class: "contexts" }, ...contexts.map((context) => line(context, space, other)));
}

function line(context: Context, space: number, other: number | null): HTMLElement {
  const parts: (Node | string)[] = context.cut[0] ? ["…"] : [];
  for (const { text, own, partner, peak } of context.tokens) {
    const shown = visible(text);
    if (!own && !partner) {
      parts.push(shown);
      continue;
    }
    const classes = [own ? `shade space-${space}` : "", peak ? "peak" : ""].join(" ").trim();
    const title = [
      own ? `${percent(own)} of its largest activation` : "",
      partner ? `partner: ${percent(partner)}` : "",
    ];
    // A token's leading blank stays outside, where it can end a line.
    const blank = shown.trim() ? shown.length - shown.trimStart().length : 0;
    if (blank) parts.push(shown.slice(0, blank));
    const inner = h(
      own ? "mark" : "span",
      { class: classes, title: title.filter(Boolean).join("; ") },
      shown.slice(blank) || "∅",
    );
    if (own) inner.style.setProperty("--share", own.toFixed(3));
    if (partner && other !== null) {
      const under = h("span", { class: `under space-${other}` }, inner);
      under.style.setProperty("--share", partner.toFixed(3));
      parts.push(under);
    } else parts.push(inner);
  }
  if (context.cut[1]) parts.push("…");
  return h(
    "li",
    {},
    h("span", { class: "text" }, ...parts),
    h("span", { class: "value", title: `document ${context.document}` }, activation(context.value)),
  );
}
