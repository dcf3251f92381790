import type { JSX } from "react";
import type { Execution, ExecutionDetail, GraphState } from "../api.js";
import { get } from "../client.js";
import { columns, edgesOf, linesOf, type Place, phases, placesOf } from "../flow.js";
import { clock, counted, duration, epoch, stamp } from "../format.js";
import { useLoad } from "../load.js";
import { Ago, Badge, Bones, Card, Facts, Failure, Freshness, type Tone, useNow } from "../parts.js";
import { href } from "../route.js";
import { useStage } from "../stage.js";
import { titled } from "../words.js";
import { Text } from "./job.js";

export const executionTones: Record<Execution["status"], Tone> = {
  RUNNING: "run",
  SUCCEEDED: "good",
  FAILED: "bad",
  TIMED_OUT: "bad",
  ABORTED: "bad",
  PENDING_REDRIVE: "wait",
};

export function ExecutionPage({ name }: { name: string }): JSX.Element {
  const stage = useStage();
  const now = useNow();
  const answer = useLoad(
    `execution/${name}`,
    (signal) => get("execution", { name }, signal),
    stage.poll_seconds * 2,
  );
  const shown = answer.value;
  if (!shown)
    return (
      <>
        <h1 className="mono">{name}</h1>
        <section className="card" aria-label="Execution">
          {answer.error ? (
            <Failure error={answer.error} retry={answer.again} />
          ) : (
            <Bones rows={10} />
          )}
        </section>
      </>
    );
  const { execution } = shown;
  const tone = executionTones[execution.status];
  return (
    <>
      <p className="small crumbs">
        <a href={href(["workspaces"])}>Workspaces</a> / execution
      </p>
      <div className="head">
        <div>
          <h1 className="mono">{execution.name}</h1>
          <Badge tone={tone}>{titled(execution.status)}</Badge>
        </div>
        <Freshness answer={answer} />
      </div>
      <div className="notice" data-tone={tone === "bad" ? "bad" : "run"}>
        <strong>{shown.summary}</strong>
        {shown.error && <p>{[shown.error, shown.cause].filter(Boolean).join(": ")}</p>}
      </div>
      <Card title="Job flow" aside={<Legend />} flush>
        <Graph states={shown.states} />
      </Card>
      <div className="columns">
        <Events detail={shown} />
        <div>
          <Card title="Execution">
            <Facts
              facts={[
                ["Workspace", execution.workspace],
                ["Started", <Ago key="s" time={execution.started_at} now={now} />],
                [
                  "Ended",
                  execution.ended_at && <Ago key="e" time={execution.ended_at} now={now} />,
                ],
                ["Took", duration(execution.duration_seconds)],
              ]}
            />
          </Card>
          <Text title="Input" text={shown.input} none="The execution has no input." />
          {execution.status === "SUCCEEDED" && (
            <Text title="Output" text={shown.output} none="The execution has no output." />
          )}
        </div>
      </div>
    </>
  );
}

function Legend(): JSX.Element {
  return (
    <span className="legend">
      <span data-kind="current">Now here</span>
      <span data-kind="visited">Passed</span>
      <span data-kind="failed">Failed here</span>
    </span>
  );
}

function Events({ detail }: { detail: ExecutionDetail }): JSX.Element {
  return (
    <Card
      title="History"
      aside={`${counted(detail.events.length, "event")}${detail.is_complete ? "" : ", the rest was not read"}`}
    >
      <ol className="timeline">
        {detail.events.map((event, index) => {
          const at = epoch(event.at) ?? 0;
          return (
            // biome-ignore lint/suspicious/noArrayIndexKey: events have no id, and their order stays
            <li key={index} data-tone={event.is_problem ? "bad" : "off"}>
              <span className="when">
                <time dateTime={event.at} title={stamp(at)}>
                  {clock(at)}
                </time>
              </span>
              <div>
                <strong className={event.is_problem ? "bad" : undefined}>{event.title}</strong>
                {event.state && !event.title.includes(event.state) && (
                  <span className="quiet small"> {event.state}</span>
                )}
                {event.detail && <p className="quiet break">{event.detail}</p>}
              </div>
            </li>
          );
        })}
      </ol>
    </Card>
  );
}

const NODE = { width: 134, height: 40, right: 26, below: 26, left: 84, top: 14 };

function corner({ row, column }: Place): [number, number] {
  return [
    NODE.left + column * (NODE.width + NODE.right),
    NODE.top + row * (NODE.height + NODE.below),
  ];
}

/** A line from one place to another: straight to a neighbour, otherwise a curve. */
export function pathOf(from: Place, to: Place): string {
  const [x1, y1] = corner(from);
  const [x2, y2] = corner(to);
  const middle = NODE.height / 2;
  if (from.row === to.row) {
    const forward = to.column > from.column;
    if (Math.abs(to.column - from.column) === 1)
      return `M${forward ? x1 + NODE.width : x1} ${y1 + middle}H${forward ? x2 - 4 : x2 + NODE.width + 4}`;
    const [start, end] = [x1 + NODE.width / 2, x2 + NODE.width / 2];
    const low = y1 + NODE.height + NODE.below * 0.7;
    return `M${start} ${y1 + NODE.height}C${start} ${low} ${end} ${low} ${end} ${y2 + NODE.height + 4}`;
  }
  const [start, end] = [x1 + NODE.width / 2, x2 + NODE.width / 2];
  const [a, b] = to.row > from.row ? [y1 + NODE.height, y2 - 4] : [y1, y2 + NODE.height + 4];
  const half = (a + b) / 2;
  return `M${start} ${a}C${start} ${half} ${end} ${half} ${end} ${b}`;
}

export function Graph({ states }: { states: readonly GraphState[] }): JSX.Element {
  const places = placesOf(states);
  const rowCount = 1 + Math.max(0, ...[...places.values()].map(({ row }) => row));
  const width = NODE.left + columns * (NODE.width + NODE.right) - NODE.right + 14;
  const height = NODE.top * 2 + rowCount * (NODE.height + NODE.below) - NODE.below;
  const current = states.filter(({ is_current }) => is_current).map(({ name }) => name);
  const failed = states.filter(({ is_failed }) => is_failed).map(({ name }) => name);
  const visited = states.filter(({ visits }) => visits > 0).map(({ name }) => name);
  const says = [
    `The job flow with ${states.length} states.`,
    current.length ? `Now in ${current.join(", ")}.` : "It has ended.",
    failed.length ? `Failed in ${failed.join(", ")}.` : "",
    `Passed: ${visited.join(", ")}.`,
  ].join(" ");
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls on a phone
    <section className="graph" tabIndex={0} aria-label="Picture of the job flow">
      <svg viewBox={`0 0 ${width} ${height}`} role="img" aria-label={says}>
        <defs>
          {["off", "on"].map((kind) => (
            <marker
              key={kind}
              id={`arrow-${kind}`}
              viewBox="0 0 6 6"
              refX="4"
              refY="3"
              markerWidth="6"
              markerHeight="6"
              orient="auto"
            >
              <path d="M0 0L6 3L0 6z" className={`arrow-${kind}`} />
            </marker>
          ))}
        </defs>
        {phases.map((phase, row) => (
          <text key={phase} className="phase" x="14" y={corner({ row, column: 0 })[1] + 24}>
            {phase}
          </text>
        ))}
        {edgesOf(states)
          .sort((a, b) => Number(a.travelled) - Number(b.travelled))
          .map((edge) => {
            const [from, to] = [places.get(edge.from), places.get(edge.to)];
            if (!from || !to) return null;
            return (
              <path
                key={`${edge.from}>${edge.to}`}
                className="edge"
                data-on={edge.travelled}
                markerEnd={`url(#arrow-${edge.travelled ? "on" : "off"})`}
                d={pathOf(from, to)}
              />
            );
          })}
        {states.map((state) => {
          const place = places.get(state.name);
          if (!place) return null;
          const [x, y] = corner(place);
          const lines = linesOf(state.name);
          const kind = state.is_current
            ? "current"
            : state.is_failed
              ? "failed"
              : state.visits
                ? "visited"
                : "off";
          return (
            <g key={state.name} className="node" data-kind={kind} data-end={state.is_end}>
              <title>
                {[
                  state.name,
                  state.comment,
                  state.visits > 1 ? `entered ${state.visits} times` : "",
                ]
                  .filter(Boolean)
                  .join(": ")}
              </title>
              <rect
                x={x}
                y={y}
                width={NODE.width}
                height={NODE.height}
                rx={state.is_end ? NODE.height / 2 : 6}
              />
              <text x={x + NODE.width / 2} textAnchor="middle">
                {lines.map((line, index) => (
                  <tspan
                    key={line}
                    x={x + NODE.width / 2}
                    y={y + (lines.length === 1 ? 24 : 17 + index * 14)}
                  >
                    {line}
                  </tspan>
                ))}
              </text>
              {state.visits > 1 && (
                <text className="visits" x={x + NODE.width - 4} y={y - 3} textAnchor="end">
                  {`${state.visits}×`}
                </text>
              )}
            </g>
          );
        })}
      </svg>
    </section>
  );
}
