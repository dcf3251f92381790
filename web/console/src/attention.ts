import type { Part, StageInfo } from "./api.js";
import { get } from "./client.js";
import { useLoad } from "./load.js";

export type Attention = { count: number; more: boolean; says: string };

const HOUR = 3600_000;

/** What an operator should look at, by page: the numbers in the navigation. */
export function useAttention(stage: StageInfo): Partial<Record<Part, Attention>> {
  const has = (part: Part) => stage.parts.includes(part);
  const found = useLoad(
    "attention",
    async (signal) => {
      const since = new Date(Math.floor(Date.now() / HOUR - 1) * HOUR).toISOString();
      const [jobs, workspaces, webhooks, health] = await Promise.all([
        has("jobs")
          ? get("jobs", { status: ["FAILED"], since, limit: 100 }, signal).catch(none)
          : undefined,
        has("workspaces") ? get("workspaces", {}, signal).catch(none) : undefined,
        has("webhooks") ? get("webhooks", { failing: true }, signal).catch(none) : undefined,
        has("health") ? get("health", {}, signal).catch(none) : undefined,
      ]);
      const stuck = workspaces?.claims.filter((claim) => claim.is_stuck).length ?? 0;
      const ringing = health?.alarms.filter((alarm) => alarm.state === "ALARM").length ?? 0;
      return {
        jobs: attention(jobs?.jobs.length, jobs?.next, "jobs failed since the last full hour"),
        workspaces: attention(stuck, null, "claims are stuck"),
        webhooks: attention(webhooks?.deliveries.length, webhooks?.next, "webhooks fail"),
        health: attention(ringing, null, "alarms ring"),
      };
    },
    60,
  );
  const orphans = useLoad(
    "orphans",
    async (signal) => (has("files") ? get("files/orphans", {}, signal).catch(none) : undefined),
    300,
  );
  const all: Partial<Record<Part, Attention | undefined>> = {
    ...found.value,
    files: attention(
      orphans.value?.total,
      orphans.value?.next,
      "files are stuck, lost or contradictory",
    ),
  };
  const seen: Partial<Record<Part, Attention>> = {};
  for (const part of stage.parts) {
    const one = all[part];
    if (one) seen[part] = one;
  }
  return seen;
}

function none(): undefined {
  return undefined;
}

function attention(
  count: number | undefined,
  next: string | null | undefined,
  says: string,
): Attention | undefined {
  return count ? { count, more: Boolean(next), says } : undefined;
}
