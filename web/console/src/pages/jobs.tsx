import { type JSX, type ReactNode, useCallback, useEffect, useMemo, useRef, useState } from "react";
import type {
  BulkAction,
  BulkPreview,
  Count,
  JobFilter,
  JobPage,
  JobRow,
  JobStatus,
  LaneRow,
} from "../api.js";
import { get, post } from "../client.js";
import { counted, duration, epoch, number, relative, shortId } from "../format.js";
import { mergePage } from "../jobs.js";
import { useLoad } from "../load.js";
import { Ago, Badge, Bones, Confirm, Empty, Failure, Freshness, useNow } from "../parts.js";
import { href, setFilters } from "../route.js";
import { ActionButton, useStage } from "../stage.js";
import { type Column, LongTable, useNarrow } from "../table.js";
import { ended, filterWords, statuses, summary, titled, toneOf } from "../words.js";

const PAGE = 200;
const periods: readonly [string, string][] = [
  ["", "Any time"],
  ["15m", "Last 15 minutes"],
  ["1h", "Last hour"],
  ["24h", "Last 24 hours"],
  ["7d", "Last 7 days"],
];
const seconds: Record<string, number> = { "15m": 900, "1h": 3600, "24h": 86400, "7d": 604800 };

/** The filter of an address. A period begins with a whole minute, so that polls ask the same. */
export function filterOf(query: URLSearchParams, now: number): JobFilter {
  const list = (name: string) => query.get(name)?.split(",").filter(Boolean) ?? [];
  const text = (name: string) => query.get(name)?.trim() || null;
  const period = seconds[query.get("period") ?? ""];
  const since = period === undefined ? null : Math.floor((now - period) / 60) * 60;
  const tenant = text("tenant");
  return {
    status: statuses.filter((status) => list("status").includes(status)),
    action: list("action"),
    tenant,
    user: tenant ? text("user") : null,
    tag: text("tag"),
    since: since === null ? null : new Date(since * 1000).toISOString(),
    until: null,
  };
}

export function JobTabs({ here }: { here: "jobs" | "bulk" | "audit" }): JSX.Element {
  return (
    <nav className="tabs" aria-label="Jobs">
      <a href={href(["jobs"])} aria-current={here === "jobs" ? "page" : undefined}>
        Jobs
      </a>
      <a href={href(["bulk"])} aria-current={here === "bulk" ? "page" : undefined}>
        Bulk operations
      </a>
      <a href={href(["audit"])} aria-current={here === "audit" ? "page" : undefined}>
        Audit
      </a>
    </nav>
  );
}

export function JobsPage({ query }: { query: URLSearchParams }): JSX.Element {
  const stage = useStage();
  const now = useNow();
  const address = query.toString();
  const [older, setOlder] = useState<{ address: string; jobs: JobRow[]; next: string | null }>();
  const [more, setMore] = useState<{ busy: boolean; error?: Error }>({ busy: false });
  const [bulk, setBulk] = useState<BulkAction>();
  const newest = useLoad(
    `jobs?${address}`,
    (signal) => get("jobs", { ...filterOf(query, Date.now() / 1000), limit: PAGE }, signal),
    stage.poll_seconds,
  );
  const rest = older?.address === address ? older : undefined;
  const first: JobPage | undefined = newest.value;
  const rows = useMemo(
    () => (first ? mergePage(first, rest?.jobs ?? []) : []),
    [first, rest?.jobs],
  );
  const next = rest ? rest.next : (first?.next ?? null);

  const readMore = useCallback(async () => {
    if (!next || more.busy) return;
    setMore({ busy: true });
    try {
      const filter = filterOf(new URLSearchParams(address), Date.now() / 1000);
      const page = await get("jobs", { ...filter, limit: 500, next });
      // What left the first page since is kept: the merge drops what it shows itself.
      setOlder((last) => ({
        address,
        jobs: [...(last?.address === address ? last.jobs : (first?.jobs ?? [])), ...page.jobs],
        next: page.next,
      }));
      setMore({ busy: false });
    } catch (failure) {
      setMore({
        busy: false,
        error: failure instanceof Error ? failure : new Error(String(failure)),
      });
    }
  }, [next, more.busy, address, first?.jobs]);

  const columns = useMemo(() => jobColumns(now), [now]);
  const isFiltered = address !== "";
  return (
    <>
      <div className="head">
        <h1>Jobs</h1>
        <div>
          <Freshness answer={newest} />
          <ActionButton act={() => setBulk("replay")}>Replay by filter…</ActionButton>
          <ActionButton danger act={() => setBulk("cancel")}>
            Cancel by filter…
          </ActionButton>
        </div>
      </div>
      <JobTabs here="jobs" />
      <LaneCards />
      <Filters query={query} />
      <section className="card" aria-label="List of jobs">
        {first ? (
          rows.length ? (
            <>
              <LongTable label="Jobs" rows={rows} columns={columns} rowKey={keyOf} />
              {first.is_cut && (
                <p className="notice small" data-tone="wait">
                  <span>
                    More jobs are under way than can be sorted by time: filter by tenant or time to
                    see the newest.
                  </span>
                </p>
              )}
              <More
                count={rows.length}
                next={next}
                busy={more.busy}
                error={more.error}
                read={readMore}
              />
            </>
          ) : next ? (
            <More count={0} next={next} busy={more.busy} error={more.error} read={readMore} />
          ) : isFiltered ? (
            <Empty
              title="No job matches these filters"
              actions={
                <button type="button" onClick={() => setFilters(["jobs"], {})}>
                  Remove all filters
                </button>
              }
            >
              {`Searched for: ${filterWords(filterOf(query, now))}.`}
            </Empty>
          ) : (
            <Empty title="No jobs yet">
              A job appears here as soon as a client sends one. Rows are kept for seven days after
              they were created.
            </Empty>
          )
        ) : newest.error ? (
          <Failure error={newest.error} retry={newest.again} />
        ) : (
          <Bones rows={12} />
        )}
      </section>
      {bulk && (
        <BulkDialog
          action={bulk}
          filter={bulkFilter(bulk, filterOf(query, Date.now() / 1000))}
          close={() => setBulk(undefined)}
        />
      )}
    </>
  );
}

/** A cancel is about jobs that have not ended, a replay about those that failed, unless chosen. */
export function bulkFilter(action: BulkAction, filter: JobFilter): JobFilter {
  const fits = (status: JobStatus) => ended.includes(status) === (action === "replay");
  const chosen = (filter.status ?? []).filter(fits);
  if (chosen.length) return { ...filter, status: chosen };
  return { ...filter, status: action === "replay" ? ["FAILED"] : statuses.filter(fits) };
}

function keyOf(job: JobRow): string {
  return `${job.tenant}/${job.user}/${job.id}`;
}

export function jobColumns(now: number): Column<JobRow>[] {
  return [
    {
      key: "status",
      head: "Status",
      width: "124px",
      line: 1,
      cell: (job) => <Badge tone={toneOf(job.status)}>{titled(job.status)}</Badge>,
    },
    {
      key: "id",
      head: "Job",
      width: "15%",
      line: 1,
      grow: true,
      cell: (job) => (
        <a
          className="mono"
          href={href(["job", job.tenant, job.user, job.id])}
          title={shortId(job.id)}
        >
          {job.id}
        </a>
      ),
    },
    { key: "action", head: "Action", width: "11.5%", cell: (job) => job.action },
    {
      key: "owner",
      head: "Tenant / user",
      width: "12.5%",
      cell: (job) => (
        <span title={`${job.tenant} / ${job.user}`}>
          {job.tenant} <span className="quiet">/ {job.user}</span>
        </span>
      ),
    },
    {
      key: "what",
      head: "What happens",
      line: 2,
      grow: true,
      cell: (job) => {
        const text = summary(job, now);
        return (
          <span className={job.status === "FAILED" ? "bad" : "quiet"} title={text}>
            {text || <PhoneOnly>{job.action}</PhoneOnly>}
          </span>
        );
      },
    },
    {
      key: "attempts",
      head: "Attempts",
      width: "72px",
      number: true,
      cell: (job) => `${job.attempts}${job.max_attempts === null ? "" : ` / ${job.max_attempts}`}`,
    },
    {
      key: "took",
      head: "Took",
      width: "88px",
      number: true,
      cell: (job) =>
        job.duration_seconds === null ? (
          <span className="quiet">–</span>
        ) : (
          duration(job.duration_seconds)
        ),
    },
    {
      key: "created",
      head: "Created",
      width: "108px",
      number: true,
      line: 1,
      cell: (job) => <Ago time={job.created_at} now={now} />,
    },
  ];
}

function PhoneOnly({ children }: { children: string }): JSX.Element {
  return <span className="phone">{children}</span>;
}

function More(props: {
  count: number;
  next: string | null;
  busy: boolean;
  error: Error | undefined;
  read: () => Promise<void>;
}): JSX.Element {
  const { read, next, busy, error } = props;
  const end = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!next || busy || error || !end.current) return;
    const seen = new IntersectionObserver(
      ([entry]) => {
        if (entry?.isIntersecting) void read();
      },
      { rootMargin: "800px" },
    );
    seen.observe(end.current);
    return () => seen.disconnect();
  }, [read, next, busy, error]);
  return (
    <div ref={end} className="more">
      <span className="quiet small" role="status">
        {next
          ? `${counted(props.count, "job")} so far`
          : `${counted(props.count, "job")}, all of them`}
      </span>
      {error && <span className="bad small">{error.message}</span>}
      {next && (
        <button type="button" disabled={busy} onClick={() => void read()}>
          {busy ? "Reading…" : "Read more"}
        </button>
      )}
    </div>
  );
}

function Filters({ query }: { query: URLSearchParams }): JSX.Element {
  const chosen = new Set(query.get("status")?.split(",").filter(Boolean));
  const set = (name: string, value: string) => {
    const next = { ...Object.fromEntries(query), [name]: value };
    if (!next.tenant) delete next.user;
    setFilters(["jobs"], next);
  };
  const isNarrow = useNarrow();
  const rest = [...query.keys()].some((name) => name !== "status");
  const others = (
    <>
      <Typed name="action" label="Action" query={query} set={set} />
      <Typed name="tenant" label="Tenant" query={query} set={set} />
      <Typed name="user" label="User" query={query} set={set} needs="tenant" />
      <Typed name="tag" label="Tag" query={query} set={set} />
      <label>
        Created
        <select
          value={query.get("period") ?? ""}
          onChange={(event) => set("period", event.target.value)}
        >
          {periods.map(([value, words]) => (
            <option key={value} value={value}>
              {words}
            </option>
          ))}
        </select>
      </label>
    </>
  );
  return (
    <search className="filters" aria-label="Filters">
      <fieldset className="chips">
        <legend>Status</legend>
        {statuses.map((status) => (
          <button
            key={status}
            type="button"
            aria-pressed={chosen.has(status)}
            onClick={() => {
              const next = statuses.filter((one) => (one === status) !== chosen.has(one));
              set("status", next.join(","));
            }}
          >
            {titled(status)}
          </button>
        ))}
      </fieldset>
      {isNarrow ? (
        <details className="morefilters" open={rest}>
          <summary>More filters</summary>
          <div className="filters">{others}</div>
        </details>
      ) : (
        others
      )}
      {query.size > 0 && (
        <button type="button" className="plain" onClick={() => setFilters(["jobs"], {})}>
          Clear
        </button>
      )}
    </search>
  );
}

/** A filter that is typed; it is applied after a pause, or with Enter. */
function Typed(props: {
  name: string;
  label: string;
  query: URLSearchParams;
  set: (name: string, value: string) => void;
  needs?: string;
}): JSX.Element {
  const { name, label, query, set, needs } = props;
  const applied = query.get(name) ?? "";
  const [text, setText] = useState(applied);
  const last = useRef(applied);
  if (last.current !== applied) {
    last.current = applied;
    if (text.trim() !== applied) setText(applied);
  }
  const off = needs !== undefined && !query.get(needs);
  const apply = useRef(set);
  apply.current = set;
  useEffect(() => {
    if (text.trim() === applied) return;
    const timer = setTimeout(() => apply.current(name, text.trim()), 350);
    return () => clearTimeout(timer);
  }, [text, applied, name]);
  return (
    <label>
      {label}
      <input
        value={text}
        disabled={off}
        placeholder={off ? "Needs a tenant" : "All"}
        spellCheck={false}
        onChange={(event) => setText(event.target.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter") set(name, text.trim());
        }}
      />
    </label>
  );
}

function LaneCards(): JSX.Element | null {
  const stage = useStage();
  const now = useNow();
  const lanes = useLoad("lanes", (signal) => get("lanes", {}, signal), stage.poll_seconds * 2);
  const [all, setAll] = useState(false);
  const value = lanes.value;
  if (!value)
    return lanes.error ? (
      <p className="notice small" data-tone="bad" role="alert">
        The lanes could not be read: {lanes.error.message}
      </p>
    ) : (
      <div className="tiles" aria-hidden>
        {[1, 2, 3, 4].map((tile) => (
          <div key={tile} className="tile">
            <div className="bone" style={{ width: "50%" }} />
          </div>
        ))}
      </div>
    );
  const order = [...value.lanes].sort((a, b) => b.waiting - a.waiting || b.running - a.running);
  const shown = all ? order : order.slice(0, 3);
  return (
    <>
      <div className="tiles">
        {statuses
          .filter((status) => !ended.includes(status))
          .map((status) => {
            const total = value.totals.find((one) => one.status === status);
            const oldest = epoch(total?.oldest_since);
            return (
              <a key={status} className="tile" href={href(["jobs"], { status })}>
                <Badge tone={total?.count ? toneOf(status) : "off"}>{titled(status)}</Badge>
                <strong>
                  {number(total?.count ?? 0)}
                  {value.at_least && total?.count ? "+" : ""}
                </strong>
                <span className="quiet small">
                  {oldest === undefined ? "None now" : `Oldest: ${relative(oldest, now)}`}
                </span>
              </a>
            );
          })}
      </div>
      {order.length > 0 && (
        <LanePanel lanes={order}>
          <table className="rows free">
            <thead>
              <tr>
                <th scope="col">Lane</th>
                <th scope="col">Slots</th>
                <th scope="col" className="number">
                  Waiting
                </th>
                <th scope="col" className="number">
                  Oldest waits
                </th>
              </tr>
            </thead>
            <tbody>
              {shown.map((lane) => {
                const since = epoch(lane.oldest_since);
                return (
                  <tr key={lane.lane}>
                    <td className="break">
                      <span className="quiet">{titled(lane.kind)}</span> {lane.name}
                    </td>
                    <td>
                      <a
                        href={href(["jobs"], {
                          [lane.kind]: lane.name,
                          status: "PROCESSING,RETRYING",
                        })}
                        title="Show the jobs that have its slots"
                      >
                        <Slots running={lane.running} slots={lane.slots} />
                      </a>
                      {lane.per_minute !== null && (
                        <span className="quiet small">
                          {` · ${number(lane.per_minute)} starts a minute`}
                        </span>
                      )}
                    </td>
                    <td className="number">{number(lane.waiting)}</td>
                    <td className="number">
                      {since === undefined ? (
                        <span className="quiet">–</span>
                      ) : lane.oldest ? (
                        <a
                          href={href(["job", lane.oldest.tenant, lane.oldest.user, lane.oldest.id])}
                        >
                          {duration(now - since)}
                        </a>
                      ) : (
                        duration(now - since)
                      )}
                    </td>
                  </tr>
                );
              })}
            </tbody>
          </table>
          {order.length > 3 && (
            <div className="more">
              <button type="button" className="link" onClick={() => setAll(!all)}>
                {all ? "Show fewer" : `Show all ${number(order.length)} lanes`}
              </button>
            </div>
          )}
        </LanePanel>
      )}
    </>
  );
}

function LanePanel(props: { lanes: readonly LaneRow[]; children: ReactNode }): JSX.Element {
  const isNarrow = useNarrow();
  const full = props.lanes.filter((lane) => lane.is_full).length;
  const waiting = props.lanes.reduce((sum, lane) => sum + lane.waiting, 0);
  const says = [
    counted(props.lanes.length, "lane"),
    full ? `${full} full` : "",
    waiting ? `${counted(waiting, "job")} wait for a slot` : "no job waits for a slot",
  ];
  return (
    <details className="card lanes" open={!isNarrow && waiting > 0}>
      <summary>
        <span className={full && waiting ? "wait" : "quiet"}>
          {says.filter(Boolean).join(", ")}
        </span>
      </summary>
      {props.children}
    </details>
  );
}

function Slots({ running, slots }: { running: number; slots: number | null }): JSX.Element {
  if (slots === null) return <span>{`${number(running)} running`}</span>;
  const full = running >= slots;
  return (
    <span className="slots">
      <span className="meter" data-full={full} aria-hidden>
        <span style={{ width: `${Math.min(100, (running / Math.max(1, slots)) * 100)}%` }} />
      </span>
      <span className={full ? "wait" : undefined}>
        {`${number(running)} of ${number(slots)}`}
        {full ? " · full" : ""}
      </span>
    </span>
  );
}

function BulkDialog(props: {
  action: BulkAction;
  filter: JobFilter;
  close: () => void;
}): JSX.Element {
  const { action, close } = props;
  const [filter] = useState(props.filter);
  const [preview, setPreview] = useState<BulkPreview>();
  const [error, setError] = useState<Error>();
  const [turn, setTurn] = useState(0);
  // biome-ignore lint/correctness/useExhaustiveDependencies: a turn tries again
  useEffect(() => {
    let gone = false;
    setError(undefined);
    post("bulk/preview", { action, filter }).then(
      (value) => gone || setPreview(value),
      (failure: Error) => gone || setError(failure),
    );
    return () => {
      gone = true;
    };
  }, [action, filter, turn]);
  const total = preview?.total ?? 0;
  const verb = action === "cancel" ? "Cancel" : "Replay";
  return (
    <Confirm
      title={`${verb} ${preview ? counted(total, "job") : "jobs"}`}
      verb={total ? `${verb} ${counted(total, "job")}` : verb}
      danger={action === "cancel"}
      typed={total ? String(total) : undefined}
      {...(total ? { reason: "required" as const } : {})}
      ready={total > 0}
      act={async (reason) => {
        if (!preview) return;
        await post("bulk/run", { id: preview.id, reason });
        location.hash = href(["bulk", preview.id]);
      }}
      close={close}
    >
      <p className="quiet">{`Jobs with ${filterWords(filter)}.`}</p>
      {error ? (
        <Failure error={error} retry={() => setTurn(turn + 1)} />
      ) : !preview ? (
        <>
          <p role="status">Searching for the jobs that would change. Nothing is changed yet.</p>
          <Bones rows={4} />
        </>
      ) : total === 0 ? (
        <p>
          {action === "cancel"
            ? "No such job is under way: there is nothing to cancel."
            : "No such job has ended: there is nothing to replay."}
        </p>
      ) : (
        <>
          <p>
            {action === "cancel"
              ? "Jobs that wait end at once. A worker that runs a job is asked to end it. A cancelled job can't be continued, only replayed as a new job."
              : "Each job is sent again as a new job with the same action and payload. The old jobs stay as they are."}
          </p>
          <div className="splits">
            <Split name="Status" counts={preview.by_status} word={titled} />
            <Split name="Action" counts={preview.by_action} />
            <Split name="Tenant" counts={preview.by_tenant} />
          </div>
          {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls */}
          <section className="touched" tabIndex={0} aria-label="Jobs that change">
            <table className="rows free small">
              <thead>
                <tr>
                  <th scope="col">Job</th>
                  <th scope="col">Tenant</th>
                  <th scope="col">Status</th>
                </tr>
              </thead>
              <tbody>
                {preview.sample.map((job) => (
                  <tr key={keyOf(job)}>
                    <td className="mono break">{job.id}</td>
                    <td className="break">{job.tenant}</td>
                    <td>{titled(job.status)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </section>
          <p className="quiet small">
            {total > preview.sample.length
              ? `The first ${preview.sample.length} of ${number(total)}. `
              : ""}
            Exactly these jobs change; jobs that arrive later don’t.
            {preview.is_cut
              ? " More jobs match than one run may change: repeat it afterwards."
              : ""}
          </p>
        </>
      )}
    </Confirm>
  );
}

function Split(props: {
  name: string;
  counts: readonly Count[];
  word?: (name: string) => string;
}): JSX.Element {
  const shown = props.counts.slice(0, 4);
  const rest = props.counts.slice(4).reduce((sum, one) => sum + one.count, 0);
  return (
    <div>
      <h3>{props.name}</h3>
      <ul>
        {shown.map((one) => (
          <li key={one.name}>
            <span className="cut" title={one.name}>
              {props.word ? props.word(one.name) : one.name}
            </span>
            <span>{number(one.count)}</span>
          </li>
        ))}
        {rest > 0 && (
          <li>
            <span className="quiet">{counted(props.counts.length - 4, "other")}</span>
            <span>{number(rest)}</span>
          </li>
        )}
      </ul>
    </div>
  );
}
