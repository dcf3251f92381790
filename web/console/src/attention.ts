import { useEffect, useRef } from "react";
import type { Findings, Part } from "./api.js";
import { CHANGED, get } from "./client.js";
import { type Answer, useLoad } from "./load.js";

export type Attention = { count: number; more: boolean };

const EVERY = 60;
const STALE_SECONDS = 10;

/** What needs a look, read every minute, after a change, and when another page is opened. */
export function useFindings(place: string): Answer<Findings> {
  const answer = useLoad("findings", (signal) => get("findings", {}, signal), EVERY);
  const { again, readAt } = answer;
  const last = useRef(place);
  useEffect(() => {
    if (last.current === place) return;
    last.current = place;
    if (readAt !== undefined && Date.now() / 1000 - readAt > STALE_SECONDS) again();
  }, [place, again, readAt]);
  useEffect(() => {
    addEventListener(CHANGED, again);
    return () => removeEventListener(CHANGED, again);
  }, [again]);
  return answer;
}

/** How much needs a look, by page: the numbers in the navigation. */
export function attention(findings: Findings | undefined): Partial<Record<Part, Attention>> {
  const found: Partial<Record<Part, Attention>> = {};
  for (const { part, count, is_more, is_urgent } of findings?.findings ?? []) {
    if (!is_urgent) continue;
    const known = found[part] ?? { count: 0, more: false };
    found[part] = { count: known.count + count, more: known.more || is_more };
  }
  return found;
}
