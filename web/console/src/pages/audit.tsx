import { type JSX, useState } from "react";
import type { AuditEntry } from "../api.js";
import { get } from "../client.js";
import { counted, whoOf } from "../format.js";
import { useLoad } from "../load.js";
import { Ago, Badge, Empty, Freshness, Loaded, type Tone, useNow } from "../parts.js";
import { href } from "../route.js";
import { type Column, LongTable } from "../table.js";
import { JobTabs } from "./jobs.js";

const actions: Record<string, string> = {
  "jobs/cancel": "Cancel a job",
  "jobs/replay": "Replay a job",
  "jobs/put-back": "Put a job back",
  "bulk/cancel": "Cancel by filter",
  "bulk/replay": "Replay by filter",
  "workspaces/interrupt": "Interrupt a worker",
  "workspaces/release": "Release a claim",
  "files/reset": "Reset stuck files",
  "files/update": "Change a file’s status",
  "webhooks/resend": "Send a webhook again",
};

const outcomes: Record<AuditEntry["outcome"], [Tone, string]> = {
  begun: ["wait", "Begun"],
  done: ["good", "Done"],
  refused: ["off", "Refused"],
  failed: ["bad", "Failed"],
};

/** Who did what with a console, and the result. */
export function AuditPage(): JSX.Element {
  const now = useNow();
  const answer = useLoad("audit", (signal) => get("audit", {}, signal), 15);
  const [older, setOlder] = useState<{ entries: AuditEntry[]; next: string | null }>();
  const [more, setMore] = useState<{ busy: boolean; error?: string }>({ busy: false });
  const readMore = async (before: string) => {
    setMore({ busy: true });
    try {
      const page = await get("audit", { before });
      const known = older?.entries ?? answer.value?.entries ?? [];
      setOlder({ entries: [...known, ...page.entries], next: page.next });
      setMore({ busy: false });
    } catch (failure) {
      setMore({ busy: false, error: failure instanceof Error ? failure.message : String(failure) });
    }
  };
  return (
    <>
      <div className="head">
        <h1>Audit</h1>
        <Freshness answer={answer} />
      </div>
      <JobTabs here="audit" />
      <section className="card" aria-label="What was done">
        <Loaded answer={answer}>
          {(value) => {
            const seen = new Set(value.entries.map(({ id }) => id));
            const rest = older?.entries.filter(({ id }) => !seen.has(id)) ?? [];
            const rows = [...value.entries, ...rest];
            const next = older ? older.next : value.next;
            return rows.length ? (
              <>
                <LongTable
                  label="What was done"
                  rows={rows}
                  columns={columns(now)}
                  rowKey={({ id }) => id}
                  wraps
                />
                <div className="more">
                  <span className="quiet small">
                    {`${counted(rows.length, "entry", "entries")}${next ? " so far" : ", all of them"}`}
                  </span>
                  {more.error && <span className="bad small">{more.error}</span>}
                  {next && (
                    <button type="button" disabled={more.busy} onClick={() => void readMore(next)}>
                      {more.busy ? "Reading…" : "Read more"}
                    </button>
                  )}
                </div>
              </>
            ) : (
              <Empty title="Nothing was done yet">
                Each change that a console makes is listed here for 90 days: who made it, of what,
                why, and the result.
              </Empty>
            );
          }}
        </Loaded>
      </section>
    </>
  );
}

function columns(now: number): Column<AuditEntry>[] {
  return [
    {
      key: "outcome",
      head: "Outcome",
      width: "100px",
      line: 1,
      cell: ({ outcome }) => <Badge tone={outcomes[outcome][0]}>{outcomes[outcome][1]}</Badge>,
    },
    {
      key: "action",
      head: "Action",
      width: "178px",
      line: 1,
      grow: true,
      cell: ({ action, bulk }) => {
        const words = actions[action] ?? action;
        return bulk ? <a href={href(["bulk", bulk])}>{words}</a> : words;
      },
    },
    {
      key: "subject",
      head: "What, and why",
      width: "33%",
      line: 2,
      grow: true,
      cell: ({ subject, reason }) => (
        <>
          {subject}
          {reason && <p className="quiet">{`Reason: ${reason}`}</p>}
        </>
      ),
    },
    {
      key: "message",
      head: "Result",
      line: 3,
      grow: true,
      cell: ({ message }) => message ?? "No result yet: it goes on, or its console has ended.",
    },
    {
      key: "who",
      head: "Who",
      width: "136px",
      line: 3,
      cell: ({ who }) => <span className="quiet">{whoOf(who)}</span>,
    },
    {
      key: "at",
      head: "When",
      width: "104px",
      number: true,
      line: 1,
      cell: ({ at }) => <Ago time={at} now={now} />,
    },
  ];
}
