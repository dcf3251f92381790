const units = ["B", "KB", "MB", "GB", "TB"];

export function bytes(count: number): string {
  const power = count < 1 ? 0 : Math.min(Math.floor(Math.log(count) / Math.log(1024)), 4);
  return `${(count / 1024 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}

export function number(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: 1 });
}

export function counted(count: number, noun: string, plural = `${noun}s`): string {
  return `${number(count)} ${count === 1 ? noun : plural}`;
}

/** An id for a table: those made at about the same time differ at their ends. */
export function shortId(id: string): string {
  return id.length > 21 ? `${id.slice(0, 8)}…${id.slice(-10)}` : id;
}

/** Who an ARN names, without its account: `operators/ada`, `user/ada`, `root`. */
export function whoOf(arn: string): string {
  return (arn.split(":").at(-1) ?? arn).replace(/^assumed-role\//, "");
}

/** A length of time with two units at most: `4.2 s`, `3 min 5 s`, `2 d 4 h`. */
export function duration(seconds: number): string {
  const length = Math.max(0, seconds);
  if (length < 1) return `${Math.round(length * 1000)} ms`;
  if (length < 10) return `${length.toFixed(1)} s`;
  const whole = Math.round(length);
  const steps: [number, string, number, string][] = [
    [86400, "d", 3600, "h"],
    [3600, "h", 60, "min"],
    [60, "min", 1, "s"],
  ];
  for (const [size, unit, part, partUnit] of steps) {
    if (whole < size) continue;
    const rest = Math.floor((whole % size) / part);
    return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${partUnit}` : ""}`;
  }
  return `${whole} s`;
}

/** How long ago, or how soon, a time is; one unit is enough in a table. */
export function relative(time: number, now: number): string {
  const seconds = Math.abs(now - time);
  if (seconds < 1) return "now";
  const [size, unit] =
    seconds < 60
      ? [1, "s"]
      : seconds < 3600
        ? [60, "min"]
        : seconds < 172800
          ? [3600, "h"]
          : [86400, "d"];
  const text = `${Math.floor(seconds / size)} ${unit}`;
  return time > now ? `in ${text}` : `${text} ago`;
}

/** Epoch seconds of an ISO time, or undefined if it can't be read. */
export function epoch(time: string | null | undefined): number | undefined {
  const parsed = Date.parse(time ?? "");
  return Number.isNaN(parsed) ? undefined : parsed / 1000;
}

/** `14:03:07.250`, in the reader's time zone. */
export function clock(time: number): string {
  const at = new Date(time * 1000);
  const two = (part: number) => String(part).padStart(2, "0");
  const thousandths = String(at.getMilliseconds()).padStart(3, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${thousandths}`;
}

/** `2026-11-29 14:03:07`, in the reader's time zone. */
export function stamp(time: number): string {
  const at = new Date(time * 1000);
  const two = (part: number) => String(part).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(time).slice(0, 8)}`;
}
