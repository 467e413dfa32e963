// Words for features, as the page shows them.

import { h } from "./dom";

const AUTOMATIC = "auto: "; // as `unifeat.labels.automatic.MARK`

/** A label; one that was made from contexts stands in italics instead of beginning with `auto: `. */
export function spoken(words: string): Node | string {
  if (!words.startsWith(AUTOMATIC)) return words;
  return h("i", { class: "auto", title: "automatic: made from its contexts" }, words.slice(AUTOMATIC.length));
}
