import { type JSX, useEffect, useMemo, useState } from "react";
import type {
  FileOutcome,
  FileRow,
  FileState,
  FileStats,
  Orphans,
  ResetAnswer,
  Validation,
} from "../api.js";
import { get, post } from "../client.js";
import { counted, duration, epoch, number, stamp } from "../format.js";
import { type Answer, useLoad } from "../load.js";
import {
  Badge,
  Bones,
  Card,
  Confirm,
  Empty,
  Facts,
  Failure,
  Freshness,
  Loaded,
  type Tone,
} from "../parts.js";
import { href, setFilters } from "../route.js";
import { ActionButton } from "../stage.js";
import { type Column, LongTable } from "../table.js";
import { titled } from "../words.js";

export const fileStates: readonly FileState[] = [
  "pending",
  "manifested",
  "processing",
  "completed",
  "failed",
  "quarantined",
];

const fileTones: Record<FileState, Tone> = {
  pending: "wait",
  manifested: "wait",
  processing: "run",
  completed: "good",
  failed: "bad",
  quarantined: "off",
};

/** The status of a row without the number of its shard: `pending#7` is `pending`. */
export function plainStatus(status: string): FileState | undefined {
  return fileStates.find((known) => known === status.split("#")[0]);
}

function StatusBadge({ status }: { status: string }): JSX.Element {
  const plain = plainStatus(status);
  return plain ? (
    <Badge tone={fileTones[plain]}>{titled(plain)}</Badge>
  ) : (
    <Badge tone="bad">{`Unknown: ${status}`}</Badge>
  );
}

const tabs: readonly [string, string][] = [
  ["", "Overview"],
  ["list", "Files"],
  ["date", "Check a date"],
];

export function FilesPage({ query }: { query: URLSearchParams }): JSX.Element {
  const tab = query.get("show") ?? "";
  const [isResetting, setResetting] = useState(false);
  const [done, setDone] = useState("");
  const stats = useLoad("files/stats", (signal) => get("files/stats", {}, signal), 15);
  return (
    <>
      <div className="head">
        <h1>Files</h1>
        <div>
          <Freshness answer={stats} />
          <ActionButton danger act={() => setResetting(true)}>
            Reset stuck files…
          </ActionButton>
        </div>
      </div>
      <nav className="tabs" aria-label="Files">
        {tabs.map(([name, words]) => (
          <a
            key={name}
            href={href(["files"], { show: name })}
            aria-current={name === tab ? "page" : undefined}
          >
            {words}
          </a>
        ))}
      </nav>
      {done && (
        <p className="notice" data-tone="good" role="status">
          <span>{done}</span>
        </p>
      )}
      {tab === "list" ? (
        <FileList query={query} />
      ) : tab === "date" ? (
        <DateCheck date={query.get("date") ?? ""} />
      ) : (
        <Overview stats={stats} turn={done} />
      )}
      {isResetting && (
        <ResetDialog
          close={() => setResetting(false)}
          finish={(message) => {
            setDone(message);
            setResetting(false);
            stats.again();
          }}
        />
      )}
    </>
  );
}

function Overview({ stats, turn }: { stats: Answer<FileStats>; turn: string }): JSX.Element {
  const orphans = useLoad(`files/orphans${turn}`, (signal) => get("files/orphans", {}, signal));
  return (
    <>
      <Card title="By status" aside={stats.value && `${counted(stats.value.total, "file")} in all`}>
        <Loaded answer={stats} rows={6}>
          {(value) =>
            value.total ? (
              <Bars stats={value} />
            ) : (
              <Empty title="No files">
                Files appear here when they arrive in the pipeline’s input.
              </Empty>
            )
          }
        </Loaded>
      </Card>
      <section aria-label="Orphans" className="list">
        <div className="head">
          <h2>
            {orphans.value
              ? orphans.value.total
                ? `${counted(orphans.value.total, "file or lock", "files and locks")} need a look`
                : "Orphans"
              : "Orphans"}
          </h2>
          <div>
            <Freshness answer={orphans} />
            <button type="button" onClick={orphans.again}>
              Search again
            </button>
          </div>
        </div>
        <OrphanList orphans={orphans} />
      </section>
    </>
  );
}

function Bars({ stats }: { stats: FileStats }): JSX.Element {
  const most = Math.max(1, ...Object.values(stats.counts));
  return (
    <table className="bars">
      <tbody>
        {fileStates.map((state) => {
          const count = stats.counts[state] ?? 0;
          return (
            <tr key={state}>
              <th scope="row">
                <a href={href(["files"], { show: "list", status: state })}>{titled(state)}</a>
              </th>
              <td className="number">{number(count)}</td>
              <td>
                <span className="track" aria-hidden>
                  <span
                    data-state={state}
                    style={{ width: count ? `max(3px, ${(count / most) * 100}%)` : 0 }}
                  />
                </span>
              </td>
              <td className="wide">
                <Spark
                  label={titled(state)}
                  values={stats.history.map(({ counts }) => counts[state] ?? 0)}
                  from={stats.history[0]?.at}
                />
              </td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

/** The points of a line of values in a box of 200 by 24. */
export function sparkPoints(values: readonly number[]): string {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const height = high - low || 1;
  return values
    .map((value, index) => {
      const x = (index / Math.max(1, values.length - 1)) * 200;
      const y = high === low ? 12 : 22 - ((value - low) / height) * 20;
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    })
    .join(" ");
}

function Spark(props: {
  label: string;
  values: readonly number[];
  from: string | undefined;
}): JSX.Element {
  const { values, from, label } = props;
  if (values.length < 2) return <span className="quiet small">No history</span>;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const says = `${label} since ${stamp(epoch(from) ?? 0).slice(0, 16)}: ${number(low)} to ${number(high)}`;
  return (
    <svg
      className="spark"
      viewBox="0 0 200 24"
      preserveAspectRatio="none"
      role="img"
      aria-label={says}
    >
      <title>{says}</title>
      <polyline points={sparkPoints(values)} />
    </svg>
  );
}

function OrphanList({ orphans }: { orphans: Answer<Orphans> }): JSX.Element {
  const [isOpen, setOpen] = useState<string>();
  return (
    <Loaded answer={orphans} rows={6}>
      {(value) =>
        value.kinds.length ? (
          <>
            {value.kinds.map((kind) => (
              <section key={kind.kind} className="card" aria-label={kind.title}>
                <div className="orphan">
                  <strong className="figure">{number(kind.count)}</strong>
                  <div>
                    <h3>{kind.title}</h3>
                    <p className="quiet">{kind.explanation}</p>
                  </div>
                  <div className="right small">
                    {kind.oldest_seconds !== null && (
                      <p className="quiet">{`Oldest: ${duration(kind.oldest_seconds)}`}</p>
                    )}
                    {kind.files.length > 0 && (
                      <button
                        type="button"
                        className="link"
                        aria-expanded={isOpen === kind.kind}
                        onClick={() => setOpen(isOpen === kind.kind ? undefined : kind.kind)}
                      >
                        {isOpen === kind.kind ? "Hide" : "Show"}
                        <span className="hidden">{` files: ${kind.title}`}</span>
                      </button>
                    )}
                  </div>
                </div>
                {isOpen === kind.kind && (
                  <LongTable
                    label={kind.title}
                    rows={kind.files}
                    columns={fileColumns}
                    rowKey={fileKey}
                  />
                )}
              </section>
            ))}
            {(value.next || !value.is_complete) && (
              <p className="quiet small">
                There are more than one search finds: correct these, then search again.
              </p>
            )}
          </>
        ) : (
          <section className="card" aria-label="No orphans">
            <Empty title="Nothing is stuck, lost or contradictory">
              The files in flight were compared with their manifests and outputs.
            </Empty>
          </section>
        )
      }
    </Loaded>
  );
}

function fileKey(file: FileRow): string {
  return `${file.date}/${file.key}`;
}

const fileColumns: Column<FileRow>[] = [
  {
    key: "status",
    head: "Status",
    width: "130px",
    line: 1,
    cell: ({ status }) => <StatusBadge status={status} />,
  },
  {
    key: "key",
    head: "File",
    line: 2,
    grow: true,
    cell: (file) => (
      <a className="mono" href={href(["files", file.date, file.key])} title={file.key}>
        {file.key}
      </a>
    ),
  },
  { key: "date", head: "Date", width: "108px", line: 1, cell: ({ date }) => date },
  {
    key: "manifest",
    head: "Manifest, error",
    width: "34%",
    cell: ({ manifest, error }) => (
      <span className={error ? "bad" : "quiet"} title={error ?? manifest ?? undefined}>
        {error ?? manifest?.split("/").at(-1) ?? "–"}
      </span>
    ),
  },
  { key: "resets", head: "Resets", width: "64px", number: true, cell: ({ resets }) => resets },
  {
    key: "age",
    head: "Age",
    width: "116px",
    number: true,
    line: 1,
    cell: ({ age_seconds }) => (age_seconds === null ? "Unknown" : duration(age_seconds)),
  },
];

function FileList({ query }: { query: URLSearchParams }): JSX.Element {
  const date = query.get("date") ?? "";
  const chosen = fileStates.find((state) => state === query.get("status"));
  const status = chosen ?? (date ? null : "failed");
  const key = `${status}/${date}`;
  const first = useLoad(`files/${key}`, (signal) =>
    get("files", { status, date: date || null }, signal),
  );
  const [older, setOlder] = useState<{ key: string; files: FileRow[]; next: string | null }>();
  const [more, setMore] = useState<{ busy: boolean; error?: string }>({ busy: false });
  const rest = older?.key === key ? older : undefined;
  const files = useMemo(
    () => [...(first.value?.files ?? []), ...(rest?.files ?? [])],
    [first.value, rest],
  );
  const next = rest ? rest.next : first.value?.next;
  const readMore = async () => {
    if (!next) return;
    setMore({ busy: true });
    try {
      const page = await get("files", { status, date: date || null, next });
      setOlder({ key, files: [...(rest?.files ?? []), ...page.files], next: page.next });
      setMore({ busy: false });
    } catch (failure) {
      setMore({ busy: false, error: failure instanceof Error ? failure.message : String(failure) });
    }
  };
  const set = (name: string, value: string) =>
    setFilters(["files"], { ...Object.fromEntries(query), show: "list", [name]: value });
  return (
    <>
      <search className="filters" aria-label="Filters">
        <label>
          Status
          <select value={status ?? ""} onChange={(event) => set("status", event.target.value)}>
            {date && <option value="">All</option>}
            {fileStates.map((state) => (
              <option key={state} value={state}>
                {titled(state)}
              </option>
            ))}
          </select>
        </label>
        <label>
          Date
          <input type="date" value={date} onChange={(event) => set("date", event.target.value)} />
        </label>
      </search>
      <section className="card" aria-label="List of files">
        {files.length ? (
          <LongTable label="Files" rows={files} columns={fileColumns} rowKey={fileKey} />
        ) : first.error ? (
          <Failure error={first.error} retry={first.again} />
        ) : first.value ? (
          next ? null : (
            <Empty title="No such file">
              {`No file ${status ? `is ${status}` : "is recorded"}${date ? ` of ${date}` : ""}.`}
            </Empty>
          )
        ) : (
          <Bones />
        )}
        {files.length > 0 || next ? (
          <div className="more">
            <span className="quiet small">
              {`${counted(files.length, "file")}${next ? " so far" : ", all of them"}`}
            </span>
            {more.error && <span className="bad small">{more.error}</span>}
            {next && (
              <button type="button" disabled={more.busy} onClick={() => void readMore()}>
                {more.busy ? "Reading…" : "Read more"}
              </button>
            )}
          </div>
        ) : null}
      </section>
    </>
  );
}

function DateCheck({ date }: { date: string }): JSX.Element {
  return (
    <>
      <search className="filters" aria-label="Date">
        <label>
          Date
          <input
            type="date"
            value={date}
            onChange={(event) => setFilters(["files"], { show: "date", date: event.target.value })}
          />
        </label>
      </search>
      <section className="card" aria-label="Result">
        {date ? (
          <Checked key={date} date={date} />
        ) : (
          <Empty title="Choose a date">
            The rows of its files are compared with the objects in the input, the manifests and the
            output. Nothing is changed.
          </Empty>
        )}
      </section>
    </>
  );
}

function Checked({ date }: { date: string }): JSX.Element {
  const answer = useLoad(`validate/${date}`, (signal) => validateAll(date, signal));
  return (
    <Loaded answer={answer} rows={5}>
      {(value) =>
        value.issues.length ? (
          <>
            <header className="body">
              <strong className="bad">
                {`${counted(value.issues.length, "issue")} among ${counted(value.files, "file")}`}
              </strong>
            </header>
            <LongTable
              label="Issues"
              rows={value.issues.map((issue, index) => ({ ...issue, index }))}
              rowKey={({ index }) => String(index)}
              wraps
              columns={[
                {
                  key: "kind",
                  head: "Kind",
                  width: "190px",
                  line: 1,
                  cell: ({ kind }) => <Badge tone="bad">{titled(kind)}</Badge>,
                },
                {
                  key: "file",
                  head: "File",
                  width: "34%",
                  line: 1,
                  grow: true,
                  cell: ({ file }) =>
                    file ? (
                      <a className="mono" href={href(["files", date, file])} title={file}>
                        {file}
                      </a>
                    ) : (
                      "–"
                    ),
                },
                {
                  key: "message",
                  head: "What is wrong",
                  line: 2,
                  grow: true,
                  cell: ({ message }) => message,
                },
              ]}
            />
          </>
        ) : (
          <Empty title={`${date} is consistent`}>
            {`${counted(value.files, "file")} agree with the objects in S3.`}
          </Empty>
        )
      }
    </Loaded>
  );
}

async function validateAll(date: string, signal: AbortSignal): Promise<Validation> {
  let all = await get("files/validate", { date }, signal);
  for (let page = 1; all.next && page < 20; page++) {
    const more = await get("files/validate", { date, next: all.next }, signal);
    all = {
      ...more,
      issues: [...all.issues, ...more.issues],
      files: Math.max(all.files, more.files),
    };
  }
  return all;
}

export function FilePage({ date, file: name }: { date: string; file: string }): JSX.Element {
  const answer = useLoad(`file/${date}/${name}`, (signal) =>
    get("files/timeline", { date, key: name }, signal),
  );
  const [isUpdating, setUpdating] = useState(false);
  const [done, setDone] = useState("");
  const value = answer.value;
  const plain = value && plainStatus(value.file.status);
  return (
    <>
      <p className="small crumbs">
        <a href={href(["files"], { show: "list", date })}>Files of {date}</a>
      </p>
      <div className="head">
        <div>
          <h1 className="mono">{name}</h1>
          {value && <StatusBadge status={value.file.status} />}
        </div>
        {value && (
          <ActionButton
            danger
            act={() => setUpdating(true)}
            off={
              !plain &&
              "Its status is unknown: correct it with state-manager’s update_state and force."
            }
          >
            Change its status…
          </ActionButton>
        )}
      </div>
      {done && (
        <p className="notice" data-tone="good" role="status">
          <span>{done}</span>
        </p>
      )}
      {value && value.problems.length > 0 && (
        <div className="notice" data-tone="bad">
          {value.problems.map((problem) => (
            <p key={problem}>{problem}</p>
          ))}
        </div>
      )}
      {value ? (
        <div className="columns">
          <Card title="Timeline">
            <ol className="timeline dated">
              {value.events.map((event, index) => (
                // biome-ignore lint/suspicious/noArrayIndexKey: events have no id, and their order stays
                <li key={index} data-tone="off">
                  <span className="when">
                    <time dateTime={event.at}>{stamp(epoch(event.at) ?? 0)}</time>
                  </span>
                  <div>
                    <strong>{event.title}</strong>
                    {event.source && <span className="quiet small">{` from ${event.source}`}</span>}
                    {event.detail && <p className="quiet break">{event.detail}</p>}
                  </div>
                </li>
              ))}
            </ol>
            {value.events.length === 0 && <p className="quiet">Its row has no times.</p>}
          </Card>
          <Card title="Row">
            <Facts
              facts={[
                ["Date", value.file.date],
                ["Status", value.file.status],
                [
                  "Age",
                  value.file.age_seconds === null ? "Unknown" : duration(value.file.age_seconds),
                ],
                ["Manifest", value.file.manifest],
                ["Error", value.file.error],
                ["Resets", number(value.file.resets)],
                ...Object.entries(value.file.fields).map(
                  ([field, one]) => [titled(field), fieldText(field, one)] as const,
                ),
              ]}
            />
          </Card>
        </div>
      ) : (
        <section className="card" aria-label="File">
          {answer.error ? <Failure error={answer.error} retry={answer.again} /> : <Bones />}
        </section>
      )}
      {isUpdating && value && plain && (
        <UpdateDialog
          file={value.file}
          from={plain}
          close={() => setUpdating(false)}
          finish={(message) => {
            setDone(message);
            setUpdating(false);
            answer.again();
          }}
        />
      )}
    </>
  );
}

/** A stored value; seconds since 1970 as a time. */
export function fieldText(field: string, value: unknown): string {
  const isTime = /(_time|_at|^ttl)$/.test(field) && typeof value === "number" && value > 1e9;
  if (isTime) return stamp(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

const steps: Record<FileState, readonly FileState[]> = {
  pending: ["manifested", "quarantined"],
  manifested: ["processing", "quarantined"],
  processing: ["completed", "failed", "quarantined"],
  completed: ["quarantined"],
  failed: ["pending", "quarantined"],
  quarantined: [],
};

/** Whether the pipeline has this step; any other one has to be forced. */
export function isStep(from: FileState, to: FileState): boolean {
  return steps[from].includes(to);
}

function UpdateDialog(props: {
  file: FileRow;
  from: FileState;
  close: () => void;
  finish: (message: string) => void;
}): JSX.Element {
  const { file, from } = props;
  const others = fileStates.filter((state) => state !== from);
  const [to, setTo] = useState<FileState>(steps[from][0] ?? "pending");
  const force = !isStep(from, to);
  return (
    <Confirm
      title="Change the status of this file"
      verb={`Change to ${to}`}
      danger
      reason="required"
      typed={force ? file.key : undefined}
      act={async (reason) => {
        const done = await post("files/update", {
          date: file.date,
          key: file.key,
          new_status: to,
          expected_status: from,
          force,
          reason,
        });
        props.finish(done.message);
      }}
      close={props.close}
    >
      <p className="touched names">
        <code className="break">{file.key}</code>
        <span className="quiet">{`${file.date}, now ${from}`}</span>
      </p>
      <label className="field">
        New status
        <select value={to} onChange={(event) => setTo(event.target.value as FileState)}>
          {others.map((state) => (
            <option key={state} value={state}>
              {titled(state)}
              {isStep(from, state) ? "" : " (forced)"}
            </option>
          ))}
        </select>
      </label>
      <p>
        {force
          ? `The pipeline has no step from ${from} to ${to}, so the change is forced: the file’s data may be in the output twice, or not at all.`
          : "It is refused if the file has changed in the meantime."}
      </p>
    </Confirm>
  );
}

function ResetDialog(props: { close: () => void; finish: (message: string) => void }): JSX.Element {
  const [hours, setHours] = useState(2);
  const [withFailed, setWithFailed] = useState(false);
  const [plan, setPlan] = useState<ResetAnswer>();
  const [error, setError] = useState<Error>();
  const [turn, setTurn] = useState(0);
  const statuses: FileState[] = withFailed
    ? ["processing", "manifested", "failed"]
    : ["processing", "manifested"];
  const order = { hours, statuses };
  const isValid = hours > 0 && hours <= 8760;
  // biome-ignore lint/correctness/useExhaustiveDependencies: the order is made of these
  useEffect(() => {
    setPlan(undefined);
    setError(undefined);
    if (!isValid) return;
    let gone = false;
    const timer = setTimeout(() => {
      resetAll({ ...order, dry_run: true }).then(
        (value) => gone || setPlan(value),
        (failure: Error) => gone || setError(failure),
      );
    }, 300);
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [hours, withFailed, turn]);
  const count = plan?.reset.length ?? 0;
  return (
    <Confirm
      title="Reset stuck files"
      verb={count ? `Reset ${counted(count, "file")}` : "Reset"}
      danger
      typed={count ? String(count) : undefined}
      {...(count ? { reason: "required" as const } : {})}
      ready={count > 0}
      act={async (reason) => {
        const done = await resetAll({ ...order, dry_run: false, reason });
        const rest = [
          done.skipped.length && `${number(done.skipped.length)} skipped`,
          done.failed.length && `${number(done.failed.length)} failed`,
        ].filter(Boolean);
        props.finish(
          `${counted(done.reset.length, "file")} reset${rest.length ? `, ${rest.join(", ")}` : ""}.`,
        );
      }}
      close={props.close}
    >
      <p>
        A reset sets a stuck file back to pending and removes its manifest and run, so that a late
        run can’t complete it. After three resets a file is set to failed.
      </p>
      <div className="filters">
        <label>
          Stuck for at least (hours)
          <input
            type="number"
            min={0.1}
            max={8760}
            step="any"
            value={hours}
            onChange={(event) => setHours(event.target.valueAsNumber || 0)}
          />
        </label>
        <span className="check">
          <input
            id="failed"
            type="checkbox"
            checked={withFailed}
            onChange={(event) => setWithFailed(event.target.checked)}
          />
          <label htmlFor="failed">Failed files too</label>
        </span>
      </div>
      {error ? (
        <Failure error={error} retry={() => setTurn(turn + 1)} />
      ) : !isValid ? (
        <p className="bad">Enter a number of hours above 0 and up to 8,760.</p>
      ) : !plan ? (
        <>
          <p role="status">Trying it without a change…</p>
          <Bones rows={4} />
        </>
      ) : (
        <>
          <p>
            <strong>
              {count
                ? `${counted(count, "file")} would be reset. Nothing is changed yet.`
                : "No file would be reset."}
            </strong>
          </p>
          {count > 0 && <Outcomes label="Files that would be reset" files={plan.reset} />}
          {plan.skipped.length > 0 && (
            <details>
              <summary>{`${counted(plan.skipped.length, "file")} would be skipped`}</summary>
              <Outcomes label="Files that would be skipped" files={plan.skipped} />
            </details>
          )}
        </>
      )}
    </Confirm>
  );
}

function Outcomes({ label, files }: { label: string; files: readonly FileOutcome[] }): JSX.Element {
  const shown = files.slice(0, 100);
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls
    <section className="touched" tabIndex={0} aria-label={label}>
      <table className="rows free small">
        <thead>
          <tr>
            <th scope="col">File</th>
            <th scope="col">Status</th>
            <th scope="col">What</th>
          </tr>
        </thead>
        <tbody>
          {shown.map((file) => (
            <tr key={`${file.date}/${file.key}`}>
              <td className="break">
                <span className="mono">{file.key}</span> <span className="quiet">{file.date}</span>
              </td>
              <td>{titled(plainStatus(file.status) ?? file.status)}</td>
              <td className="break">{file.detail}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {files.length > shown.length && (
        <p className="body quiet small">{`and ${number(files.length - shown.length)} more`}</p>
      )}
    </section>
  );
}

/** All pages of a reset: a dry run changes nothing, another one changes what it answers. */
async function resetAll(order: {
  dry_run: boolean;
  hours: number;
  statuses: FileState[];
  reason?: string;
}): Promise<ResetAnswer> {
  let all = await post("files/reset", order);
  for (let page = 1; all.next && page < 100; page++) {
    const more = await post("files/reset", { ...order, next: all.next });
    all = {
      ...more,
      reset: [...all.reset, ...more.reset],
      skipped: [...all.skipped, ...more.skipped],
      failed: [...all.failed, ...more.failed],
    };
  }
  return all;
}
