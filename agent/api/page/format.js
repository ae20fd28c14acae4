/* Numbers in words. */

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
export const NOTHING = "–";

/** Three digits, as 1.93, 19.3 or 193. */
function digits(value) {
  return value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0);
}

/** Bytes as `384 MiB`. */
export function bytes(value) {
  if (value === null || value === undefined) {
    return NOTHING;
  }
  let size = value;
  let unit = 0;
  // 999.5 KiB would be shown as 1000.
  while (size >= 999.5 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${value} B` : `${digits(size)} ${UNITS[unit]}`;
}

/** A duration of any length: `12 ms`, `1.93 s`, `4 min 10 s`. */
export function seconds(value) {
  if (value === null || value === undefined) {
    return NOTHING;
  }
  if (value < 0.9995) {
    const ms = value * 1000;
    return `${ms > 0 && ms < 9.95 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
  }
  if (value < 99.95) {
    return `${digits(value)} s`;
  }
  const whole = Math.round(value);
  const minutes = Math.floor(whole / 60);
  return minutes < 60
    ? `${minutes} min ${whole % 60} s`
    : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** How much is left of the raw bytes: `0.66`. */
export function ratio(raw, stored) {
  return raw && stored !== null ? `${(stored / raw).toFixed(2)}` : NOTHING;
}

/** How long ago, in one unit: `now`, `12 s`, `3 min`, `5 h`, `9 d`. */
export function age(time, now = Date.now()) {
  if (!time) {
    return NOTHING;
  }
  // The server's clock may be ahead of this one.
  const passed = Math.max(0, (now - Date.parse(time)) / 1000);
  if (passed < 1) {
    return "now";
  }
  if (passed < 60) {
    return `${Math.floor(passed)} s`;
  }
  if (passed < 3600) {
    return `${Math.floor(passed / 60)} min`;
  }
  return passed < 172800 ? `${Math.floor(passed / 3600)} h` : `${Math.floor(passed / 86400)} d`;
}

/** A moment on this machine's clock: `2026-11-24 04:42:26`. */
export function moment(time) {
  if (!time) {
    return NOTHING;
  }
  const at = new Date(time);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** A moment's time of day, or its date and time without seconds where that was another day. */
export function clock(time, now = Date.now()) {
  const at = moment(time);
  return at.slice(0, 10) === moment(now).slice(0, 10) ? at.slice(11) : at.slice(5, 16);
}

/** A moment here and in UTC. */
export function exactly(time) {
  if (!time) {
    return null;
  }
  const [day, clockUtc] = new Date(time).toISOString().slice(0, 23).split("T");
  return `${moment(time)} here, ${day} ${clockUtc} UTC`;
}

/** `1 action`, `12 actions`. */
export function counted(number, what) {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}
