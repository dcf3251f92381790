import type { JobPage, JobRow } from "./api.js";

/**
 * The first page, which is read again and again, before older rows that were read once.
 *
 * Of the older rows only those stay that lie behind the page's last: what is missing in the page
 * before that has left the filter. Rows are sorted by their creation, the newest first.
 */
export function mergePage(page: JobPage, older: readonly JobRow[]): JobRow[] {
  const last = page.jobs.at(-1);
  if (page.next === null || !last) return page.next === null ? page.jobs : [...page.jobs, ...older];
  const seen = new Set(page.jobs.map(name));
  const rest: JobRow[] = [];
  for (const job of older) {
    if (job.created_at > last.created_at || seen.has(name(job))) continue;
    seen.add(name(job));
    rest.push(job);
  }
  return [...page.jobs, ...rest];
}

function name(job: JobRow): string {
  return JSON.stringify([job.tenant, job.user, job.id]);
}
