import { useMemo, useSyncExternalStore } from "react";

/** Where the page is: `#/jobs/o/r?status=FAILED` has the path `["jobs", "o", "r"]`. */
export type Route = { path: string[]; query: URLSearchParams };

export function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#?\/?/, "").split("?", 2);
  return {
    path: path.split("/").filter(Boolean).map(decoded),
    query: new URLSearchParams(query),
  };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // It was typed, and leads to no page.
  }
}

/** The address of a path with its filters; empty filters are left out. */
export function href(path: string[], query: Record<string, string | undefined> = {}): string {
  const filters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) filters.set(name, value);
  const text = filters.toString();
  return `#/${path.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

function subscribe(changed: () => void): () => void {
  addEventListener("hashchange", changed);
  return () => removeEventListener("hashchange", changed);
}

export function useRoute(): Route {
  const hash = useSyncExternalStore(subscribe, () => location.hash);
  return useMemo(() => parse(hash), [hash]);
}

/** Changes filters in place: they are part of the address, not of the history. */
export function setFilters(path: string[], query: Record<string, string | undefined>): void {
  history.replaceState(null, "", href(path, query));
  dispatchEvent(new HashChangeEvent("hashchange"));
}
