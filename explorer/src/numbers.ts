// Numbers as text.

const WHOLE = new Intl.NumberFormat("en");

export const whole = (value: number): string => WHOLE.format(value);

/** `1 feature`, `2,048 features`. */
export const counted = (value: number, noun: string): string => `${whole(value)} ${noun}${value === 1 ? "" : "s"}`;

/** `0.41` with a typographic minus; an en dash where there is none. */
export function decimal(value: number | null | undefined, digits = 2): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return value
    .toFixed(digits)
    .replace(/^-(?=.*[1-9])/, "−")
    .replace(/^-/, "");
}

/** A share as `3.0 %`, `0.042 %`. */
export function percent(share: number): string {
  const value = share * 100;
  if (value === 0) return "0 %";
  return `${value >= 10 ? value.toFixed(0) : value >= 1 ? value.toFixed(1) : Number(value.toPrecision(2)).toString()} %`;
}

/** An activation, to three digits. */
export function activation(value: number): string {
  if (value === 0) return "0";
  return Math.abs(value) >= 100 ? value.toFixed(0) : Number(value.toPrecision(3)).toString();
}
