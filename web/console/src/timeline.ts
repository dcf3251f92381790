import type { TimelineEvent } from "./api.js";

/** Events of the row and of the logs in order of time, each once. */
export function mergeTimeline(
  events: readonly TimelineEvent[],
  more: readonly TimelineEvent[],
): TimelineEvent[] {
  const seen = new Set<string>();
  const all = [...events, ...more].filter((event) => {
    const name = JSON.stringify([event.at, event.kind, event.title]);
    if (seen.has(name)) return false;
    seen.add(name);
    return true;
  });
  // Stable: what happened in the same millisecond stays in the order in which it was answered.
  return all.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
}

/** Runs of progress become one line with the last of them, so that what matters stays in sight. */
export function foldProgress(
  events: readonly TimelineEvent[],
): (TimelineEvent & { folded: number })[] {
  const folded: (TimelineEvent & { folded: number })[] = [];
  for (const event of events) {
    const last = folded.at(-1);
    if (event.kind === "progress" && last?.kind === "progress")
      folded[folded.length - 1] = { ...event, folded: last.folded + 1 };
    else folded.push({ ...event, folded: 0 });
  }
  return folded;
}
