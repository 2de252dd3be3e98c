// @ts-check
/** Values as people read them. Pure; unknown (null) is never shown as zero. */

export function usd(dollars) {
  if (dollars === null) return "unknown";
  if (dollars === 0) return "$0";
  if (dollars >= 1) return `$${dollars.toFixed(2)}`;
  if (dollars < 0.000001) return "<$0.000001";
  const digits = Math.min(9, 2 - Math.floor(Math.log10(dollars)));
  return `$${dollars.toFixed(digits).replace(/0+$/, "")}`;
}

/** A price per thousand tokens as one per million; never rounded. */
export function perMillion(per1k) {
  if (per1k === null) return "unknown";
  const exact = String(Number((per1k * 1000).toPrecision(12)));
  return `$${exact.replace(/\.(\d)$/, ".$10")}`;
}

export function ms(value) {
  if (value === null) return "–";
  if (value < 1000) return `${Math.round(value)} ms`;
  return `${(value / 1000).toFixed(value < 10_000 ? 2 : 1)} s`;
}

export const count = (value) => (value === null ? "–" : value.toLocaleString("en"));

/** @param {string | null} at RFC 3339 */
export function time(at, now = new Date()) {
  if (!at) return "never";
  const moment = new Date(at);
  const clock = moment.toLocaleTimeString("en-GB");
  if (moment.toDateString() === now.toDateString()) return clock;
  return `${moment.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${clock}`;
}
