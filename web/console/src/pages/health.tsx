import { type JSX, useState } from "react";
import type { Alarm, FunctionHealth, Health } from "../api.js";
import { get } from "../client.js";
import { counted, duration, number } from "../format.js";
import { useLoad } from "../load.js";
import { blocksOf, type Span, spansOf } from "../markdown.js";
import { Ago, Badge, Card, Empty, Freshness, Loaded, useNow } from "../parts.js";

export function HealthPage(): JSX.Element {
  const now = useNow();
  const answer = useLoad("health", (signal) => get("health", {}, signal), 20);
  return (
    <>
      <div className="head">
        <h1>Health</h1>
        <Freshness answer={answer} />
      </div>
      <Loaded answer={answer} rows={12}>
        {(health) => (
          <>
            <Alarms health={health} now={now} />
            <div className="halves">
              <Queues health={health} />
              <Functions health={health} />
            </div>
          </>
        )}
      </Loaded>
    </>
  );
}

function Alarms({ health, now }: { health: Health; now: number }): JSX.Element {
  const ringing = health.alarms.filter(({ state }) => state === "ALARM");
  const others = health.alarms.filter(({ state }) => state !== "ALARM");
  if (health.alarms_off)
    return (
      <section className="card" aria-label="Alarms">
        <Empty title="This stage has no alarms">
          <code>alarms</code> under <code>custom.stages</code> in serverless.yml switches them on,
          with the next deployment.
        </Empty>
      </section>
    );
  return (
    <>
      {ringing.map((alarm) => (
        <Ringing key={alarm.name} alarm={alarm} now={now} isOpen={ringing.length === 1} />
      ))}
      <section className="card" aria-label="Other alarms">
        {ringing.length === 0 && (
          <Empty title="No alarm rings">
            {`${counted(others.length, "alarm")} ${others.length === 1 ? "is" : "are"} quiet.`}
          </Empty>
        )}
        {others.length > 0 && (
          <details className="body">
            <summary>
              {ringing.length
                ? `${counted(others.length, "other alarm")}, quiet`
                : "Show all alarms"}
            </summary>
            <ul className="plainlist small">
              {others.map((alarm) => (
                <li key={alarm.name}>
                  <Badge tone={alarm.state === "OK" ? "good" : "off"}>
                    {alarm.state === "OK" ? "Quiet" : "No data"}
                  </Badge>
                  <span className="mono break">{alarm.name}</span>
                  <span className="quiet break">{alarm.says}</span>
                </li>
              ))}
            </ul>
          </details>
        )}
      </section>
    </>
  );
}

function Ringing(props: { alarm: Alarm; now: number; isOpen: boolean }): JSX.Element {
  const { alarm, now } = props;
  return (
    <section className="card alarm" aria-label={alarm.says}>
      <div className="body">
        <div className="head">
          <h2 className="bad">{alarm.says}</h2>
          <span className="quiet small">
            {alarm.since && (
              <>
                {"Rings since "}
                <Ago time={alarm.since} now={now} />
              </>
            )}
          </span>
        </div>
        <p className="quiet small break">
          <code>{alarm.name}</code>
          {alarm.state_reason ? ` · ${alarm.state_reason}` : ""}
        </p>
        {alarm.section && (
          <details open={props.isOpen}>
            <summary>{`What to do: ${alarm.section_title ?? "the runbook"}`}</summary>
            <Runbook text={alarm.section} />
            {alarm.link && <p className="quiet small">{`From ${alarm.link}`}</p>}
          </details>
        )}
      </div>
    </section>
  );
}

function Spans({ text }: { text: string }): JSX.Element {
  return (
    <>
      {spansOf(text).map((span, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: the text does not change
        <OneSpan key={index} span={span} />
      ))}
    </>
  );
}

function OneSpan({ span }: { span: Span }): JSX.Element {
  if (span.kind === "code") return <code>{span.text}</code>;
  if (span.kind === "strong") return <strong>{span.text}</strong>;
  // Links of the runbook lead within the repository's docs, which the console does not serve.
  if (span.kind === "link" && /^https?:/.test(span.to))
    return (
      <a href={span.to} target="_blank" rel="noreferrer">
        {span.text}
      </a>
    );
  return <>{span.text}</>;
}

export function Runbook({ text }: { text: string }): JSX.Element {
  return (
    <div className="runbook">
      {blocksOf(text).map((block, index) => {
        const key = `${block.kind}${index}`;
        if (block.kind === "code") return <Code key={key} text={block.text} />;
        if (block.kind === "list")
          return (
            <ul key={key}>
              {block.items.map((item) => (
                <li key={item}>
                  <Spans text={item} />
                </li>
              ))}
            </ul>
          );
        if (block.kind === "table")
          return (
            <table key={key} className="rows free small">
              <thead>
                <tr>
                  {block.head.map((cell) => (
                    <th key={cell} scope="col">
                      <Spans text={cell} />
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {block.rows.map((row) => (
                  <tr key={row.join("|")}>
                    {row.map((cell, column) => (
                      <td key={block.head[column]} className="break">
                        <Spans text={cell} />
                      </td>
                    ))}
                  </tr>
                ))}
              </tbody>
            </table>
          );
        return (
          <p key={key}>
            <Spans text={block.text} />
          </p>
        );
      })}
    </div>
  );
}

function Code({ text }: { text: string }): JSX.Element {
  const [copied, setCopied] = useState(false);
  return (
    <div className="code">
      <pre>{text}</pre>
      <button
        type="button"
        className="plain small"
        onClick={() => {
          navigator.clipboard.writeText(text).then(
            () => setCopied(true),
            () => setCopied(false),
          );
        }}
      >
        {copied ? "Copied" : "Copy"}
      </button>
    </div>
  );
}

function Queues({ health }: { health: Health }): JSX.Element {
  const order = [...health.queues].sort(
    (a, b) =>
      Number(b.is_dead_letter && b.visible > 0) - Number(a.is_dead_letter && a.visible > 0) ||
      Number(a.is_dead_letter) - Number(b.is_dead_letter),
  );
  return (
    <Card title="Queues" flush>
      <table className="rows free">
        <thead>
          <tr>
            <th scope="col">Queue</th>
            <th scope="col" className="number">
              Waiting
            </th>
            <th scope="col" className="number">
              In work
            </th>
            <th scope="col" className="number wide">
              Delayed
            </th>
            <th scope="col" className="number">
              Oldest
            </th>
          </tr>
        </thead>
        <tbody>
          {order.map((queue) => (
            <tr key={queue.name}>
              <td className="break">
                {queue.name}
                {queue.is_dead_letter && <span className="quiet small"> dead letters</span>}
              </td>
              <td className="number">
                {queue.is_dead_letter && queue.visible > 0 ? (
                  <strong className="bad">{number(queue.visible)}</strong>
                ) : (
                  number(queue.visible)
                )}
              </td>
              <td className="number">{number(queue.in_flight)}</td>
              <td className="number wide">{number(queue.delayed)}</td>
              <td className="number">
                {queue.oldest_seconds === null ? (
                  <span className="quiet">–</span>
                ) : (
                  duration(queue.oldest_seconds)
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {order.length === 0 && <Empty title="No queues" />}
    </Card>
  );
}

function shown(value: number | null): string {
  return value === null ? "–" : number(value);
}

function milliseconds(value: number | null): string {
  return value === null ? "–" : duration(value / 1000);
}

function Functions({ health }: { health: Health }): JSX.Element {
  const weight = (one: FunctionHealth) => (one.errors ?? 0) * 1e9 + (one.invocations ?? 0);
  const order = [...health.functions].sort(
    (a, b) => weight(b) - weight(a) || a.name.localeCompare(b.name),
  );
  const isSilent = order.every(({ invocations }) => invocations === null);
  return (
    <Card title="Functions" aside={`Last ${counted(health.window_minutes, "minute")}`} flush>
      <table className="rows free">
        <thead>
          <tr>
            <th scope="col">Function</th>
            <th scope="col" className="number">
              Calls
            </th>
            <th scope="col" className="number">
              Errors
            </th>
            <th scope="col" className="number wide">
              Throttles
            </th>
            <th scope="col" className="number">
              p50
            </th>
            <th scope="col" className="number">
              p95
            </th>
          </tr>
        </thead>
        <tbody>
          {order.map((one) => (
            <tr key={one.name}>
              <td className="break">{one.name}</td>
              <td className="number">{shown(one.invocations)}</td>
              <td className="number">
                {one.errors ? (
                  <strong className="bad">{number(one.errors)}</strong>
                ) : (
                  shown(one.errors)
                )}
              </td>
              <td className="number wide">{shown(one.throttles)}</td>
              <td className="number">{milliseconds(one.p50_ms)}</td>
              <td className="number">{milliseconds(one.p95_ms)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {isSilent && (
        <p className="body quiet small">
          CloudWatch has no values of the last {health.window_minutes} minutes.
        </p>
      )}
    </Card>
  );
}
