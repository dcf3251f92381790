import type { JobList, JobplaneError, ListOptions } from "@jobplane/client";
import { useCallback, useEffect, useState } from "react";
import { useJobplane } from "./hooks.js";

export type ListedJob = JobList["jobs"][number];

export interface JobsView {
  jobs: readonly ListedJob[];
  loading: boolean;
  error: JobplaneError | null;
  /** Whether there are older jobs than those shown. */
  hasMore: boolean;
  /** Adds the next page. */
  more: () => void;
  refresh: () => void;
}

const none: Omit<JobsView, "more" | "refresh"> = {
  jobs: [],
  loading: true,
  error: null,
  hasMore: false,
};

/**
 * The caller's jobs, the newest first. The first page is read again every `every` milliseconds
 * while one of its jobs has not ended, and when `refresh` is called.
 */
export function useJobs(
  options: Omit<ListOptions, "next"> = {},
  { every = 5_000 }: { every?: number } = {},
): JobsView {
  const client = useJobplane();
  const asked = JSON.stringify(options);
  const [view, setView] = useState({ ...none, asked, next: null as string | null });
  const [round, setRound] = useState(0);
  const shown = view.asked === asked ? view : { ...none, asked, next: null };

  // biome-ignore lint/correctness/useExhaustiveDependencies: each round reads again
  useEffect(() => {
    let isOver = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const read = async (): Promise<void> => {
      let isActive = true;
      try {
        const page = await client.jobs.list(JSON.parse(asked) as ListOptions);
        isActive = page.jobs.some(({ status }) => !/^(COMPLETED|FAILED|CANCELLED)$/.test(status));
        if (isOver) return;
        setView((before) => {
          const ids = new Set(page.jobs.map(({ request_id }) => request_id));
          const same = before.asked === asked && before.jobs.length > page.jobs.length;
          const older = same ? before.jobs.filter(({ request_id }) => !ids.has(request_id)) : [];
          const next = (same ? before.next : page.next) ?? null;
          const jobs = [...page.jobs, ...older];
          return { asked, jobs, loading: false, error: null, hasMore: next !== null, next };
        });
      } catch (error) {
        if (isOver) return;
        const { retryable } = error as { retryable?: boolean };
        isActive = retryable === true;
        setView((before) => ({
          ...(before.asked === asked ? before : { ...none, next: null }),
          ...{ asked, loading: false, error: error as JobplaneError },
        }));
      }
      if (isActive && !isOver) timer = setTimeout(read, every);
    };
    void read();
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [client, asked, every, round]);

  const { next } = shown;
  const more = useCallback(() => {
    if (next === null) return;
    const add = async (): Promise<void> => {
      try {
        const page = await client.jobs.list({ ...(JSON.parse(asked) as ListOptions), next });
        setView((before) => {
          if (before.asked !== asked || before.next !== next) return before;
          const jobs = [...before.jobs, ...page.jobs];
          const after = page.next ?? null;
          return { ...before, jobs, next: after, hasMore: after !== null, error: null };
        });
      } catch (error) {
        setView((before) => ({ ...before, error: error as JobplaneError }));
      }
    };
    void add();
  }, [client, asked, next]);
  const refresh = useCallback(() => setRound((before) => before + 1), []);
  const { jobs, loading, error, hasMore } = shown;
  return { jobs, loading, error, hasMore, more, refresh };
}
