// The text around the places where features fire, and which of its tokens fire what.

import type { Model } from "./model";
import { type Numbers, type Packed, starts, summed, upTo } from "./packed";

/** A token of a context: how strongly a feature and its partner fire on it, as shares of their largest activation. */
export interface Token {
  text: string;
  own: number;
  partner: number;
  peak: boolean;
}

export interface Context {
  document: number;
  value: number;
  tokens: Token[];
  /** Whether the document goes on before and after. */
  cut: [boolean, boolean];
}

interface OfSpace {
  end: Uint32Array;
  cut: Numbers;
  peak: Numbers;
  back: Numbers;
  value: Numbers;
  fires: Uint32Array;
  token: Numbers;
  shade: Numbers;
}

interface Beside {
  fires: Uint32Array;
  token: Numbers;
  shade: Numbers;
}

const SHADES = 255;
const LONGEST_WORD = 16; // characters; a longer one is cut
const SIGNS: Record<string, string> = { "\n": "↵", "\r": "", "\t": " ", "\u2028": "↵", "\u2029": "↵" };

/** Text on one line: newlines become ↵, other control characters ·. */
export function visible(text: string): string {
  return text.replace(/[\p{Cc}\p{Cs}\u2028\u2029]/gu, (sign) => SIGNS[sign] ?? "·");
}

export class Texts {
  readonly text: string;
  private readonly lower: string;
  private readonly stretch: Uint32Array;
  private readonly document: Numbers;
  private readonly spaces: OfSpace[];
  private readonly beside: Beside[][];
  private readonly byPlace: Uint32Array[] = [];

  constructor(
    private readonly model: Model,
    packed: Packed<unknown>,
  ) {
    // (A mark of the byte order at the beginning is a character of the text, and places count it.)
    this.text = new TextDecoder("utf-16le", { ignoreBOM: true }).decode(packed.need("text"));
    this.lower = lowered(this.text);
    this.stretch = summed(packed.need("stretch"));
    this.document = packed.need("document");
    this.spaces = model.spaces.map(({ number }) => {
      const need = (name: string) => packed.need(`${number}.${name}`);
      return {
        end: summed(need("end")),
        cut: need("cut"),
        peak: need("peak"),
        back: need("back"),
        value: need("value"),
        fires: starts(need("fires")),
        token: need("token"),
        shade: need("shade"),
      };
    });
    this.beside = model.cells.map(({ number }) =>
      ["a", "b"].map((side) => {
        const need = (name: string) => packed.need(`cell${number}.${side}.${name}`);
        return { fires: starts(need("fires")), token: need("token"), shade: need("shade") };
      }),
    );
  }

  /** The contexts of a feature, strongest first; its partner in `other` is shown beside it, if it has one. */
  contexts(space: number, feature: number, other: number | null): Context[] {
    const { contexts } = this.model.spaces[space];
    const side = other === null ? undefined : this.model.sideOf(space, other);
    const found: Context[] = [];
    for (let n = contexts[feature]; n < contexts[feature + 1]; n++) {
      found.push(
        this.context(space, n, side ? { of: other as number, fired: this.beside[side.cell.number][side.side] } : null),
      );
    }
    return found;
  }

  private context(space: number, n: number, beside: { of: number; fired: Beside } | null): Context {
    const own = this.spaces[space];
    const peak = own.peak[n];
    const low = peak - own.back[n];
    const stretch = upTo(this.stretch, peak - 1) - 1;
    const [from, to] = [this.stretch[stretch], this.stretch[stretch + 1]];
    const high = Math.min(peak + this.model.data.around, to);
    const [first, last] = [this.wordFrom(low, from, peak), this.wordTo(high, to, peak)];
    const marks = this.marks(own, low, own.fires[n], own.fires[n + 1], own.token, own.shade);
    const partner = beside
      ? this.marks(
          this.spaces[beside.of],
          low,
          beside.fired.fires[n],
          beside.fired.fires[n + 1],
          beside.fired.token,
          beside.fired.shade,
        )
      : [];
    return {
      document: this.document[stretch],
      value: own.value[n],
      tokens: this.tokens(first, last, peak, marks, partner),
      cut: [first > from, last < to],
    };
  }

  /** A window begins and ends with a whole word, if it can. */
  private wordFrom(low: number, from: number, peak: number): number {
    if (low === from || /\s/.test(this.text[low - 1])) return low;
    const space = this.text.slice(low, Math.min(low + LONGEST_WORD, peak)).search(/\s/);
    return space < 0 || low + space + 1 >= peak - LONGEST_WORD ? low : low + space + 1;
  }

  private wordTo(high: number, to: number, peak: number): number {
    if (high === to || /\s/.test(this.text[high])) return high;
    const start = Math.max(high - LONGEST_WORD, peak);
    const space = this.text.slice(start, high).search(/\s\S*$/);
    return space < 0 ? high : start + space;
  }

  /** Which characters are marked, how strongly. */
  private marks(of: OfSpace, low: number, first: number, last: number, token: Numbers, shade: Numbers): Mark[] {
    const anchor = upTo(of.end, low);
    const found: Mark[] = [];
    for (let i = first; i < last; i++) {
      const at = anchor + token[i];
      const before = at > 0 ? of.end[at - 1] : 0;
      found.push({
        start: Math.max(this.begin(before + of.cut[at], of.end[at]), low),
        end: of.end[at],
        shade: shade[i] / SHADES,
      });
    }
    return found;
  }

  /** A window's text, cut where a mark begins or ends. */
  private tokens(low: number, high: number, peak: number, marks: Mark[], partner: Mark[]): Token[] {
    const cuts = new Set([low, high]);
    for (const { start, end } of [...marks, ...partner]) {
      for (const at of [start, end]) if (at > low && at < high) cuts.add(at);
    }
    const at = [...cuts].sort((x, y) => x - y);
    const found: Token[] = [];
    for (let i = 0; i + 1 < at.length; i++) {
      const [start, end] = [at[i], at[i + 1]];
      const here = (mark: Mark) => mark.start <= start && end <= mark.end;
      const shade = (all: Mark[]) => Math.max(0, ...all.filter(here).map((mark) => mark.shade));
      const strongest = marks.some((mark) => mark.end === peak && here(mark));
      found.push({ text: this.text.slice(start, end), own: shade(marks), partner: shade(partner), peak: strongest });
    }
    return found;
  }

  /** The token at a context's peak. */
  peakToken(space: number, n: number): string {
    const own = this.spaces[space];
    const at = upTo(own.end, own.peak[n]) - 1;
    const before = at > 0 ? own.end[at - 1] : 0;
    return this.text.slice(
      Math.max(this.begin(before + own.cut[at], own.end[at]), own.peak[n] - own.back[n]),
      own.peak[n],
    );
  }

  /** Where a token begins. Several tokens may make one sign; each of them is shown as all of it. */
  private begin(start: number, end: number): number {
    if (start < end) return start;
    const low = this.text.charCodeAt(end - 1);
    return end - (low >= 0xdc00 && low < 0xe000 ? 2 : 1);
  }

  /** The different tokens that fire a feature most. */
  peakTokens(space: number, feature: number, most = 4): string[] {
    const { contexts } = this.model.spaces[space];
    const found = new Set<string>();
    for (let n = contexts[feature]; n < contexts[feature + 1] && found.size < most; n++) {
      found.add(visible(this.peakToken(space, n)).trim() || "∅");
    }
    return [...found];
  }

  /** How many contexts of each feature hold some text, whatever its case. */
  holding(space: number, wanted: string): Map<number, number> {
    const found = new Map<number, number>();
    const places: number[] = [];
    const text = lowered(wanted);
    for (let at = this.lower.indexOf(text); at >= 0; at = this.lower.indexOf(text, at + 1)) places.push(at);
    if (!places.length) return found;
    const own = this.spaces[space];
    const order = this.placed(space);
    const { contexts } = this.model.spaces[space];
    const around = this.model.data.around;
    let first = 0;
    for (const n of order) {
      while (first < places.length && places[first] < own.peak[n] - own.back[n]) first++;
      if (
        first < places.length &&
        places[first] + text.length <= own.peak[n] + around &&
        this.together(own.peak[n], places[first])
      ) {
        const feature = upTo(contexts, n) - 1;
        found.set(feature, (found.get(feature) ?? 0) + 1);
      }
    }
    return found;
  }

  /** Whether a place after a peak is still in the peak's stretch. */
  private together(peak: number, place: number): boolean {
    return place < peak || place < this.stretch[upTo(this.stretch, peak - 1)];
  }

  /** Contexts in the order of where their windows begin. */
  private placed(space: number): Uint32Array {
    const { peak, back } = this.spaces[space];
    this.byPlace[space] ??= Uint32Array.from(peak, (_, n) => n).sort((x, y) => peak[x] - back[x] - (peak[y] - back[y]));
    return this.byPlace[space];
  }
}

interface Mark {
  start: number;
  end: number;
  shade: number;
}

/** Lower case, of the same length: signs whose lower case is longer stay as they are. */
function lowered(text: string): string {
  const lower = text.toLowerCase();
  if (lower.length === text.length) return lower;
  return Array.from(text, (sign) => (sign.toLowerCase().length === sign.length ? sign.toLowerCase() : sign)).join("");
}
