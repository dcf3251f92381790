import { type JSX, useMemo, useState } from "react";
import type { BulkJob, BulkOperation, BulkOutcome } from "../api.js";
import { get, post } from "../client.js";
import { counted, duration, epoch, number, shortId, whoOf } from "../format.js";
import { useLoad } from "../load.js";
import {
  Ago,
  Badge,
  Bones,
  Card,
  Empty,
  Facts,
  Failure,
  Freshness,
  Loaded,
  type Tone,
  useNow,
} from "../parts.js";
import { href } from "../route.js";
import { ActionButton, useStage } from "../stage.js";
import { type Column, LongTable } from "../table.js";
import { filterWords, titled } from "../words.js";
import { JobTabs } from "./jobs.js";

const states: Record<BulkOperation["state"], [Tone, string]> = {
  planned: ["off", "Planned, not started"],
  running: ["run", "Running"],
  interrupted: ["bad", "Interrupted"],
  done: ["good", "Done"],
  expired: ["off", "Expired, never started"],
};

export const outcomes: Record<BulkOutcome, [Tone, string]> = {
  planned: ["off", "Not yet changed"],
  cancelled: ["good", "Cancelled"],
  asked: ["run", "Its worker was asked to end it"],
  replayed: ["good", "Replayed"],
  unchanged: ["off", "Unchanged, had ended before"],
  failed: ["bad", "Failed"],
};

function names(operation: BulkOperation): string {
  return `${operation.action === "cancel" ? "Cancel" : "Replay"} ${counted(operation.total, "job")}`;
}

export function doneOf(operation: BulkOperation): number {
  return operation.total - (operation.outcomes.planned ?? 0);
}

export function BulkList(): JSX.Element {
  const stage = useStage();
  const now = useNow();
  const answer = useLoad("bulk", (signal) => get("bulk", {}, signal), stage.poll_seconds);
  return (
    <>
      <div className="head">
        <h1>Bulk operations</h1>
        <Freshness answer={answer} />
      </div>
      <JobTabs here="bulk" />
      <section className="card" aria-label="List of bulk operations">
        <Loaded answer={answer}>
          {({ operations }) =>
            operations.length ? (
              <LongTable
                label="Bulk operations"
                rows={operations}
                columns={listColumns(now)}
                rowKey={(operation) => operation.id}
                wraps
              />
            ) : (
              <Empty
                title="No bulk operation yet"
                actions={<a href={href(["jobs"])}>Choose jobs by filter</a>}
              >
                Cancel or replay all jobs of a filter on the page Jobs. Each operation is listed
                here with who started it, why, and what happened to each job.
              </Empty>
            )
          }
        </Loaded>
      </section>
    </>
  );
}

function listColumns(now: number): Column<BulkOperation>[] {
  return [
    {
      key: "state",
      head: "State",
      width: "196px",
      line: 1,
      cell: ({ state }) => <Badge tone={states[state][0]}>{states[state][1]}</Badge>,
    },
    {
      key: "what",
      head: "Operation",
      width: "16%",
      line: 2,
      grow: true,
      cell: (operation) => <a href={href(["bulk", operation.id])}>{names(operation)}</a>,
    },
    {
      key: "filter",
      head: "Filter",
      cell: (operation) => filterWords(operation.filter),
    },
    { key: "reason", head: "Reason", width: "20%", cell: ({ reason }) => reason ?? "–" },
    {
      key: "who",
      head: "Who",
      width: "140px",
      cell: ({ who }) => whoOf(who),
    },
    {
      key: "created",
      head: "Created",
      width: "108px",
      number: true,
      line: 1,
      cell: ({ created_at }) => <Ago time={created_at} now={now} />,
    },
  ];
}

export function BulkPage({ id }: { id: string }): JSX.Element {
  const stage = useStage();
  const now = useNow();
  const answer = useLoad(
    `bulk/${id}`,
    (signal) => get("bulk/operation", { id }, signal),
    stage.poll_seconds,
  );
  const [error, setError] = useState("");
  const act = (request: Promise<unknown>) => {
    setError("");
    request.then(answer.again, (failure: Error) => setError(failure.message));
  };
  const operation = answer.value;
  if (!operation)
    return (
      <>
        <h1>Bulk operation</h1>
        <section className="card" aria-label="Bulk operation">
          {answer.error ? <Failure error={answer.error} retry={answer.again} /> : <Bones />}
        </section>
      </>
    );
  const done = doneOf(operation);
  const [tone, words] = states[operation.state];
  const started = epoch(operation.started_at);
  const until = epoch(operation.ended_at) ?? now;
  return (
    <>
      <div className="head">
        <div>
          <h1>{names(operation)}</h1>
          <Badge tone={tone}>{words}</Badge>
        </div>
        <div>
          <Freshness answer={answer} />
          {operation.state === "running" && operation.runs_here && (
            <ActionButton act={() => act(post("bulk/stop", { id }))}>Pause</ActionButton>
          )}
          {operation.state === "interrupted" && (
            <ActionButton act={() => act(post("bulk/run", { id, reason: operation.reason }))}>
              Resume
            </ActionButton>
          )}
        </div>
      </div>
      <JobTabs here="bulk" />
      {(error || operation.problem) && (
        <p className="notice" data-tone="bad" role="alert">
          <span>{error || operation.problem}</span>
        </p>
      )}
      {operation.state === "interrupted" && !operation.problem && (
        <p className="notice" data-tone="wait">
          <span>
            {`${counted(operation.total - done, "job")} of it are not changed yet, and no console works on them. Resume continues where it ended; no job is changed twice.`}
          </span>
        </p>
      )}
      <div className="columns">
        <div>
          <Card
            title="Progress"
            aside={started === undefined ? "Not started" : `${duration(until - started)} so far`}
          >
            <progress
              className="bar"
              aria-label="Jobs done"
              max={Math.max(1, operation.total)}
              value={done}
            />
            <p className="small">{`${number(done)} of ${counted(operation.total, "job")} done`}</p>
          </Card>
          <Audit id={id} operation={operation} now={now} />
        </div>
        <div>
          <Card title="Outcomes">
            <Facts
              facts={(Object.keys(outcomes) as BulkOutcome[])
                .filter((outcome) => operation.outcomes[outcome])
                .map((outcome) => [
                  number(operation.outcomes[outcome] ?? 0),
                  <Badge key={outcome} tone={outcomes[outcome][0]}>
                    {outcomes[outcome][1]}
                  </Badge>,
                  outcome,
                ])}
            />
          </Card>
          <Card title="Order">
            <Facts
              facts={[
                ["Filter", filterWords(operation.filter)],
                ["Reason", operation.reason],
                ["Who", operation.who],
                ["Planned", <Ago key="at" time={operation.created_at} now={now} />],
                [
                  "Started",
                  operation.started_at && <Ago key="at" time={operation.started_at} now={now} />,
                ],
                [
                  "Ended",
                  operation.ended_at && <Ago key="at" time={operation.ended_at} now={now} />,
                ],
                ["Id", <code key="id">{operation.id}</code>],
              ]}
            />
          </Card>
        </div>
      </div>
    </>
  );
}

function Audit(props: { id: string; operation: BulkOperation; now: number }): JSX.Element {
  const { id, operation, now } = props;
  const [outcome, setOutcome] = useState<BulkOutcome | "">("");
  const [older, setOlder] = useState<{ key: string; jobs: BulkJob[]; next: string | null }>();
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const key = `${outcome}/${doneOf(operation)}`;
  const first = useLoad(`audit/${id}/${key}`, (signal) =>
    get("bulk/jobs", { id, outcome: outcome || null }, signal),
  );
  const rest = older?.key === key ? older : undefined;
  const jobs = useMemo(
    () => [...(first.value?.jobs ?? []), ...(rest?.jobs ?? [])],
    [first.value, rest],
  );
  const next = rest ? rest.next : first.value?.next;
  const more = async () => {
    if (!next) return;
    setBusy(true);
    setError("");
    try {
      const page = await get("bulk/jobs", { id, outcome: outcome || null, next });
      setOlder({ key, jobs: [...(rest?.jobs ?? []), ...page.jobs], next: page.next });
    } catch (failure) {
      setError(String(failure));
    } finally {
      setBusy(false);
    }
  };
  return (
    <section className="card" aria-label="Jobs of the operation">
      <header>
        <h2>Jobs</h2>
        <label className="small quiet">
          {"Outcome "}
          <select
            value={outcome}
            onChange={(event) => setOutcome(event.target.value as BulkOutcome | "")}
          >
            <option value="">All</option>
            {Object.entries(outcomes).map(([name, [, words]]) => (
              <option key={name} value={name}>
                {words}
              </option>
            ))}
          </select>
        </label>
      </header>
      {jobs.length ? (
        <LongTable label="Jobs" rows={jobs} columns={auditColumns(now)} rowKey={rowKey} wraps />
      ) : first.error ? (
        <Failure error={first.error} retry={first.again} />
      ) : first.value ? (
        <Empty title="No job has this outcome" />
      ) : (
        <Bones />
      )}
      {next && (
        <div className="more">
          <span className="quiet small">{`${counted(jobs.length, "job")} so far`}</span>
          {error && <span className="bad small">{error}</span>}
          <button type="button" disabled={busy} onClick={() => void more()}>
            {busy ? "Reading…" : "Read more"}
          </button>
        </div>
      )}
    </section>
  );
}

function rowKey({ job }: BulkJob): string {
  return `${job.tenant}/${job.user}/${job.id}`;
}

function auditColumns(now: number): Column<BulkJob>[] {
  return [
    {
      key: "id",
      head: "Job",
      width: "25%",
      line: 1,
      grow: true,
      cell: ({ job }) => (
        <a className="mono" href={href(["job", job.tenant, job.user, job.id])}>
          {shortId(job.id)}
        </a>
      ),
    },
    { key: "tenant", head: "Tenant", width: "13%", cell: ({ job }) => job.tenant },
    {
      key: "before",
      head: "Before",
      width: "100px",
      cell: ({ status_before }) => titled(status_before),
    },
    {
      key: "outcome",
      head: "Outcome",
      line: 2,
      grow: true,
      cell: ({ outcome, message }) => (
        <Badge tone={outcomes[outcome][0]}>{message ?? outcomes[outcome][1]}</Badge>
      ),
    },
    {
      key: "at",
      head: "When",
      width: "108px",
      number: true,
      line: 1,
      cell: ({ at }) => <Ago time={at} now={now} />,
    },
  ];
}
