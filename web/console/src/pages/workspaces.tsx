import { type JSX, type ReactNode, useState } from "react";
import type { Claim, Execution, Interruption } from "../api.js";
import { get, post } from "../client.js";
import { counted, duration, number } from "../format.js";
import { useLoad } from "../load.js";
import { Ago, Badge, Card, Confirm, Empty, Facts, Freshness, Loaded, useNow } from "../parts.js";
import { href } from "../route.js";
import { ActionButton, useStage } from "../stage.js";
import { type Column, LongTable } from "../table.js";
import { titled } from "../words.js";
import { executionTones } from "./execution.js";

type Asked = { verb: "interrupt" | "release"; claim: Claim };

export function WorkspacesPage(): JSX.Element {
  const stage = useStage();
  const now = useNow();
  const answer = useLoad(
    "workspaces",
    (signal) => get("workspaces", {}, signal),
    stage.poll_seconds * 2,
  );
  const [asked, setAsked] = useState<Asked>();
  const [done, setDone] = useState("");
  const claims = answer.value?.claims ?? [];
  const stuck = claims.filter((claim) => claim.is_stuck);
  const others = claims.filter((claim) => !claim.is_stuck);
  return (
    <>
      <div className="head">
        <h1>Workspaces</h1>
        <Freshness answer={answer} />
      </div>
      {done && (
        <p className="notice" data-tone="good" role="status">
          <span>{done}</span>
        </p>
      )}
      {stuck.length > 0 && (
        <section className="notice" data-tone="bad" aria-label="Stuck claims">
          <strong>
            {stuck.length === 1
              ? "One claim is stuck: its workspace can’t run a job"
              : `${number(stuck.length)} claims are stuck: their workspaces can’t run jobs`}
          </strong>
          <ul className="problems">
            {stuck.map((claim) => (
              <li key={nameOf(claim)}>
                <div>
                  <strong className="mono break">{nameOf(claim)}</strong>
                  <p>{claim.explanation}</p>
                  <p className="quiet small">
                    {[
                      claim.age_seconds !== null && `${duration(claim.age_seconds)} old`,
                      claim.fence !== null && `fence ${claim.fence}`,
                      claim.execution_status && `execution ${titled(claim.execution_status)}`,
                    ]
                      .filter(Boolean)
                      .join(" · ")}{" "}
                    {claim.execution && (
                      <a href={href(["execution", claim.execution])}>Open its execution</a>
                    )}
                  </p>
                </div>
                <ActionButton
                  danger
                  act={() => setAsked({ verb: "release", claim })}
                  off={cannot(claim)}
                  label={`Release ${nameOf(claim)}`}
                >
                  Release…
                </ActionButton>
              </li>
            ))}
          </ul>
        </section>
      )}
      <Card title="Claims" aside={answer.value && counted(others.length, "claim")} flush>
        <Loaded answer={answer}>
          {() =>
            others.length ? (
              <LongTable
                label="Claims"
                wraps
                rows={others}
                columns={claimColumns(now, setAsked)}
                rowKey={nameOf}
              />
            ) : (
              <Empty
                title={stuck.length ? "No other workspace has a claim" : "No workspace has a claim"}
              >
                A claim appears while an execution of the job flow runs a job in a workspace.
              </Empty>
            )
          }
        </Loaded>
      </Card>
      <Card title="Executions" aside="The newest runs of the job flow" flush>
        <Loaded answer={answer}>
          {({ executions }) =>
            executions.length ? (
              <LongTable
                label="Executions"
                rows={executions}
                columns={executionColumns(now)}
                rowKey={({ name }) => name}
              />
            ) : (
              <Empty title="No executions">
                Each message for a workspace starts an execution of the job flow.
              </Empty>
            )
          }
        </Loaded>
      </Card>
      <Card title="Interruptions" flush>
        <Loaded answer={answer} rows={3}>
          {({ interruptions }) =>
            interruptions.length ? (
              <LongTable
                label="Interruptions"
                wraps
                rows={interruptions}
                columns={interruptionColumns(now)}
                rowKey={({ project, user, at, message_id, kind }) =>
                  [project, user, at, message_id, kind].join("/")
                }
              />
            ) : (
              <Empty title="No interruptions">
                An interruption is recorded when another thread takes a workspace over, or a worker
                is lost.
              </Empty>
            )
          }
        </Loaded>
      </Card>
      {asked && (
        <ClaimDialog
          asked={asked}
          close={() => setAsked(undefined)}
          finish={(message) => {
            setDone(message);
            setAsked(undefined);
            answer.again();
          }}
        />
      )}
    </>
  );
}

function nameOf({ project, user }: { project: string; user: string }): string {
  return `${project}#${user}`;
}

function cannot(claim: Claim): string | undefined {
  return claim.claim_id === null || claim.fence === null
    ? "The claim has no id or no fence: see its explanation."
    : undefined;
}

const claimTones = { held: "run", free: "off", expired: "bad", malformed: "bad" } as const;

function claimColumns(now: number, ask: (asked: Asked) => void): Column<Claim>[] {
  return [
    {
      key: "state",
      head: "State",
      width: "88px",
      line: 1,
      cell: ({ state }) => <Badge tone={claimTones[state]}>{titled(state)}</Badge>,
    },
    {
      key: "workspace",
      head: "Workspace",
      width: "16%",
      line: 1,
      grow: true,
      cell: (claim) => (
        <span className="mono" title={nameOf(claim)}>
          {nameOf(claim)}
        </span>
      ),
    },
    {
      key: "holder",
      head: "Holder",
      line: 2,
      grow: true,
      cell: (claim) => (
        <span title={claim.explanation}>
          {claim.execution ? (
            <a href={href(["execution", claim.execution])}>{claim.execution}</a>
          ) : (
            (claim.holder ?? "–")
          )}
        </span>
      ),
    },
    { key: "thread", head: "Thread", width: "98px", cell: ({ thread }) => thread ?? "–" },
    {
      key: "fence",
      head: "Fence",
      width: "114px",
      number: true,
      cell: ({ fence }) => fence ?? "–",
    },
    {
      key: "age",
      head: "Age",
      width: "84px",
      number: true,
      line: 1,
      cell: ({ age_seconds }) => (age_seconds === null ? "–" : duration(age_seconds)),
    },
    {
      key: "expires",
      head: "Ends",
      width: "84px",
      number: true,
      cell: ({ expires_at }) => <Ago time={expires_at} now={now} />,
    },
    {
      key: "act",
      head: "",
      width: "206px",
      number: true,
      line: 2,
      cell: (claim) =>
        claim.state === "held" ? (
          <>
            <ActionButton plain act={() => ask({ verb: "interrupt", claim })} off={cannot(claim)}>
              Interrupt…
            </ActionButton>
            <ActionButton
              plain
              danger
              act={() => ask({ verb: "release", claim })}
              off={cannot(claim)}
            >
              Release…
            </ActionButton>
          </>
        ) : null,
    },
  ];
}

function executionColumns(now: number): Column<Execution>[] {
  return [
    {
      key: "status",
      head: "Status",
      width: "124px",
      line: 1,
      cell: ({ status }) => <Badge tone={executionTones[status]}>{titled(status)}</Badge>,
    },
    {
      key: "name",
      head: "Execution",
      line: 2,
      grow: true,
      cell: ({ name }) => (
        <a className="mono" href={href(["execution", name])} title={name}>
          {name}
        </a>
      ),
    },
    {
      key: "workspace",
      head: "Workspace",
      width: "24%",
      cell: ({ workspace }) => workspace ?? "–",
    },
    {
      key: "took",
      head: "Took",
      width: "112px",
      number: true,
      cell: ({ duration_seconds }) => duration(duration_seconds),
    },
    {
      key: "started",
      head: "Started",
      width: "112px",
      number: true,
      line: 1,
      cell: ({ started_at }) => <Ago time={started_at} now={now} />,
    },
  ];
}

function interruptionColumns(now: number): Column<Interruption>[] {
  return [
    { key: "kind", head: "Kind", width: "150px", line: 1, cell: ({ kind }) => titled(kind) },
    {
      key: "workspace",
      head: "Workspace",
      width: "22%",
      line: 1,
      grow: true,
      cell: (one) => <span className="mono">{nameOf(one)}</span>,
    },
    {
      key: "why",
      head: "Reason",
      line: 2,
      grow: true,
      cell: ({ reason, detail }) => {
        const text = [reason, detail].filter(Boolean).join(": ");
        return <span title={text}>{text || "–"}</span>;
      },
    },
    { key: "message", head: "Message", width: "20%", cell: ({ message_id }) => message_id ?? "–" },
    {
      key: "at",
      head: "When",
      width: "112px",
      number: true,
      line: 1,
      cell: ({ at }) => <Ago time={at} now={now} />,
    },
  ];
}

function ClaimDialog(props: {
  asked: Asked;
  close: () => void;
  finish: (message: string) => void;
}): JSX.Element {
  const { claim, verb } = props.asked;
  const facts: [string, ReactNode][] = [
    ["Workspace", <code key="w">{nameOf(claim)}</code>],
    ["Holder", claim.holder],
    ["Thread", claim.thread],
    ["Message", claim.message_id],
    ["Fence", claim.fence],
    ["Age", claim.age_seconds === null ? null : duration(claim.age_seconds)],
    ["Execution", claim.execution_status && titled(claim.execution_status)],
  ];
  const isAlive = claim.execution_status === "RUNNING";
  return (
    <Confirm
      title={verb === "release" ? "Release this claim" : "Interrupt this job"}
      verb={verb === "release" ? "Release the claim" : "Interrupt the job"}
      danger={verb === "release"}
      reason="required"
      typed={verb === "release" && isAlive ? nameOf(claim) : undefined}
      act={async (reason) => {
        const { project, user, claim_id, fence } = claim;
        if (claim_id === null || fence === null) return;
        const order = { project, user, claim_id, fence, reason };
        props.finish((await post(`workspaces/${verb}`, order)).message);
      }}
      close={props.close}
    >
      <div className="touched body">
        <Facts facts={facts} />
      </div>
      <p>
        {verb === "interrupt"
          ? "The worker of the job is asked to stop. It decides when; the claim is released when it has stopped."
          : isAlive
            ? "Its execution still runs. Without the claim another job can begin in the workspace while this one still works: interrupt it first, unless you know that its worker is gone."
            : "The workspace is free afterwards, and the next message runs. A worker that wakes up later is refused by its fence."}
      </p>
    </Confirm>
  );
}
