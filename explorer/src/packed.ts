// Reads what `unifeat.explorer.blob.packed` writes: JSON data and typed arrays, deflated, as base64 text.

export type Numbers = Uint8Array | Uint16Array | Uint32Array | Int16Array | Int32Array | Float32Array;

export interface Packed<Data> {
  readonly data: Data;
  /** An array by its name, or undefined where there is none. */
  get(name: string): Numbers | undefined;
  /** An array that must be there. */
  need(name: string): Numbers;
}

const KINDS: Record<string, new (buffer: ArrayBuffer, offset: number, length: number) => Numbers> = {
  u1: Uint8Array,
  u2: Uint16Array,
  u4: Uint32Array,
  i2: Int16Array,
  i4: Int32Array,
  f4: Float32Array,
};
const ALIGN = 8;

interface Index {
  data: unknown;
  arrays: Record<string, [kind: string, offset: number, length: number]>;
}

/** Inflate the base64 text of an element and view its arrays. */
export async function unpack<Data>(base64: string): Promise<Packed<Data>> {
  const buffer = await inflate(bytesOf(base64.trim()));
  const length = new DataView(buffer).getUint32(0, true);
  const index = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length))) as Index;
  const start = Math.ceil((4 + length) / ALIGN) * ALIGN;
  const get = (name: string): Numbers | undefined => {
    const found = index.arrays[name];
    return found && new KINDS[found[0]](buffer, start + found[1], found[2]);
  };
  const need = (name: string): Numbers => {
    const found = get(name);
    if (!found) throw new Error(`the page's data lack ${name}`);
    return found;
  };
  return { data: index.data as Data, get, need };
}

async function inflate(bytes: Uint8Array<ArrayBuffer>): Promise<ArrayBuffer> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Response(stream).arrayBuffer();
}

function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  const native = (Uint8Array as unknown as { fromBase64?: (text: string) => Uint8Array<ArrayBuffer> }).fromBase64;
  if (native) return native.call(Uint8Array, base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

const FIXED_SCALE = 32000;
const FIXED_NONE = -32768;

/** Two-byte numbers as they were; NaN where there is none. */
export function unfixed(values: Numbers | undefined): Float32Array | null {
  if (!values) return null;
  return Float32Array.from(values, (v) => (v === FIXED_NONE ? NaN : v / FIXED_SCALE));
}

/** Running sums. */
export function summed(values: Numbers): Uint32Array {
  const sums = new Uint32Array(values.length);
  let sum = 0;
  for (let i = 0; i < values.length; i++) sums[i] = sum += values[i];
  return sums;
}

/** Where each of consecutive stretches begins, and where the last one ends. */
export function starts(lengths: Numbers): Uint32Array {
  const found = new Uint32Array(lengths.length + 1);
  for (let i = 0; i < lengths.length; i++) found[i + 1] = found[i] + lengths[i];
  return found;
}

/** The number of values of an ascending array that are at most `value`. */
export function upTo(values: Numbers, value: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}
