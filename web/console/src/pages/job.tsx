import { type JSX, type ReactNode, useState } from "react";
import type {
  Job,
  JobKey,
  JobLogs,
  LogLine,
  TimelineEvent,
  WebhookState,
  WhyItWaits,
} from "../api.js";
import { get, post } from "../client.js";
import { bytes, clock, counted, duration, epoch, number, stamp } from "../format.js";
import { type Answer, useLoad } from "../load.js";
import {
  Ago,
  Badge,
  Bones,
  Card,
  Confirm,
  Empty,
  Facts,
  Failure,
  Freshness,
  type Tone,
  useNow,
} from "../parts.js";
import { href } from "../route.js";
import { ActionButton, useStage } from "../stage.js";
import { foldProgress, mergeTimeline } from "../timeline.js";
import { ended, titled, toneOf } from "../words.js";

export function JobPage({ job: key }: { job: JobKey }): JSX.Element {
  const stage = useStage();
  const now = useNow();
  const name = JSON.stringify(key);
  const [isOver, setOver] = useState(false);
  const answer = useLoad(
    `job${name}`,
    async (signal) => {
      const value = await get("job", key, signal);
      setOver(ended.includes(value.job.status));
      return value;
    },
    isOver ? 10 * stage.poll_seconds : stage.poll_seconds,
  );
  const logs = useLoad(
    `logs${name}`,
    (signal) => get("job/logs", key, signal),
    isOver ? undefined : 5 * stage.poll_seconds,
  );
  const [dialog, setDialog] = useState<"cancel" | "replay" | "resend">();
  const [done, setDone] = useState<ReactNode>();
  const [refused, setRefused] = useState("");
  const shown = answer.value;
  if (!shown)
    return (
      <>
        <h1 className="mono">{key.id}</h1>
        <section className="card" aria-label="Job">
          {answer.error ? (
            <Failure error={answer.error} retry={answer.again} />
          ) : (
            <Bones rows={12} />
          )}
        </section>
      </>
    );
  const { job } = shown;
  const close = () => setDialog(undefined);
  const finish = (message: ReactNode) => {
    setDone(message);
    close();
    answer.again();
    logs.again();
  };
  const owner = `${job.action} of ${job.tenant} / ${job.user}`;
  return (
    <>
      <div className="head">
        <div>
          <h1 className="mono">{job.id}</h1>
          <Badge tone={toneOf(job.status)}>{titled(job.status)}</Badge>
        </div>
        <div>
          <Freshness answer={answer} />
          {shown.assembly?.webhook && (
            <ActionButton
              act={() => setDialog("resend")}
              off={!shown.can.resend_webhook && "Its webhook can't be sent now."}
            >
              Send webhook again…
            </ActionButton>
          )}
          <ActionButton
            act={() => setDialog("replay")}
            off={
              !shown.can.replay &&
              (shown.replayed_as
                ? "It was replayed already: replay the new job."
                : "Only a job that has ended can be replayed.")
            }
          >
            Replay…
          </ActionButton>
          <ActionButton
            danger
            act={() => setDialog("cancel")}
            off={!shown.can.cancel && "The job has ended, or its cancellation was requested."}
          >
            Cancel…
          </ActionButton>
        </div>
      </div>
      {done && (
        <p className="notice" data-tone="good" role="status">
          <span>{done}</span>
        </p>
      )}
      {refused && (
        <p className="notice" data-tone="bad" role="alert">
          <span>{refused}</span>
        </p>
      )}
      {shown.waits && (
        <Waits waits={shown.waits} now={now}>
          {shown.waits.is_problem && shown.waits.lease_is_over && (
            <ActionButton
              act={() => {
                setRefused("");
                post("jobs/put-back", key).then(
                  ({ message }) => finish(message),
                  (failure: Error) => setRefused(failure.message),
                );
              }}
              off={!shown.can.put_back && "Its lease is not over."}
            >
              Put it back now
            </ActionButton>
          )}
        </Waits>
      )}
      {job.status === "FAILED" && job.error && (
        <div className="notice" data-tone="bad">
          <strong>
            It failed after {counted(job.attempts, "attempt")}: {job.error.code}
          </strong>
          <p>{job.error.message}</p>
        </div>
      )}
      {shown.assembly?.webhook && isBad(shown.assembly.webhook) && (
        <div className="notice" data-tone="bad">
          <strong>Its webhook was not delivered</strong>
          <p>{shown.assembly.webhook.explanation}</p>
        </div>
      )}
      <div className="columns">
        <div>
          <Timeline events={shown.timeline} logs={logs} />
          <Logs logs={logs} />
        </div>
        <div>
          <Card title="Job">
            <Facts
              facts={[
                ["Action", job.action],
                [
                  "Tenant",
                  <a key="t" href={href(["jobs"], { tenant: job.tenant })}>
                    {job.tenant}
                  </a>,
                ],
                [
                  "User",
                  <a key="u" href={href(["jobs"], { tenant: job.tenant, user: job.user })}>
                    {job.user}
                  </a>,
                ],
                [
                  "Attempts",
                  `${job.attempts}${job.max_attempts === null ? "" : ` of at most ${job.max_attempts}`}`,
                ],
                ["Created", <Ago key="c" time={job.created_at} now={now} />],
                ["Scheduled", job.run_at && <Ago key="r" time={job.run_at} now={now} />],
                ["Started", job.started_at && <Ago key="s" time={job.started_at} now={now} />],
                ["Ended", job.ended_at && <Ago key="e" time={job.ended_at} now={now} />],
                ["Took", job.duration_seconds === null ? null : duration(job.duration_seconds)],
                ["Lane", shown.lane],
                ["Priority", shown.priority],
                ["Tags", job.tags.join(", ")],
                [
                  "Replay of",
                  job.replay_of && (
                    <a
                      key="o"
                      className="mono"
                      href={href(["job", job.tenant, job.user, job.replay_of])}
                    >
                      {job.replay_of}
                    </a>
                  ),
                ],
                [
                  "Replayed as",
                  shown.replayed_as && (
                    <a
                      key="n"
                      className="mono"
                      href={href(["job", job.tenant, job.user, shown.replayed_as])}
                    >
                      {shown.replayed_as}
                    </a>
                  ),
                ],
                ["Trace", shown.trace_id && <code key="x">{shown.trace_id}</code>],
                ["Row kept until", shown.expires_at && stamp(epoch(shown.expires_at) ?? 0)],
                ...Object.entries(shown.metadata).map(([field, value]) => [field, value] as const),
              ]}
            />
          </Card>
          {shown.steps.length > 0 && <Steps job={shown} />}
          {shown.assembly && <Assembly job={shown} now={now} />}
          <Text
            title="Payload"
            text={shown.payload}
            none="The payload is stored apart, or was empty."
          />
          {job.status === "COMPLETED" && (
            <Text title="Result" text={shown.result} none="The job has no result." />
          )}
        </div>
      </div>
      {dialog === "cancel" && (
        <Confirm
          title="Cancel this job"
          verb="Cancel the job"
          danger
          act={async () => finish((await post("jobs/cancel", key)).message)}
          close={close}
        >
          <Touched name={job.id} owner={owner} />
          <p>
            {job.status === "PROCESSING"
              ? "Its worker is asked to end it. The job ends as cancelled, and can't be continued."
              : "The job ends as cancelled at once, and can't be continued."}
          </p>
        </Confirm>
      )}
      {dialog === "replay" && (
        <Confirm
          title="Replay this job"
          verb="Replay the job"
          act={async () => {
            const replayed = await post("jobs/replay", key);
            const { tenant, user, id } = replayed.job;
            finish(
              <>
                {replayed.message} <a href={href(["job", tenant, user, id])}>Open the new job</a>
              </>,
            );
          }}
          close={close}
        >
          <Touched name={job.id} owner={owner} />
          <p>A new job with the same action and payload is sent. This job stays as it is.</p>
        </Confirm>
      )}
      {dialog === "resend" && shown.assembly && (
        <Confirm
          title="Send the webhook again"
          verb="Send it"
          act={async () =>
            finish(
              (await post("webhooks/resend", { assembly_id: shown.assembly?.assembly_id ?? "" }))
                .message,
            )
          }
          close={close}
        >
          <Touched
            name={shown.assembly.assembly_id}
            owner={`to ${shown.assembly.webhook?.host ?? `the receiver of template ${shown.assembly.template_id}`}`}
          />
          <p>The receiver gets the assembly’s document once more, with the same webhook id.</p>
        </Confirm>
      )}
    </>
  );
}

export function Touched({ name, owner }: { name: string; owner: string }): JSX.Element {
  return (
    <p className="touched names">
      <code className="break">{name}</code>
      <span className="quiet break">{owner}</span>
    </p>
  );
}

export function isBad(webhook: WebhookState): boolean {
  return ["failed", "retrying", "unsigned_refused", "refused"].includes(webhook.status ?? "");
}

function Waits(props: { waits: WhyItWaits; now: number; children: ReactNode }): JSX.Element {
  const { waits, now } = props;
  const at = epoch(waits.next_at);
  return (
    <section
      className="notice"
      data-tone={waits.is_problem ? "bad" : "run"}
      aria-label="Why it waits"
    >
      <strong className="break">{waits.summary}</strong>
      <p>
        {waits.next_step}
        {at !== undefined && at > now && (
          <span className="quiet">{` ${duration(at - now)} left.`}</span>
        )}
      </p>
      <p className="quiet small">
        {[
          waits.last_writer && `Last worker ${waits.last_writer}`,
          waits.lease_until &&
            `lease ${waits.lease_is_over ? "ended" : "until"} ${clock(epoch(waits.lease_until) ?? 0).slice(0, 8)}`,
          waits.attempts_left !== null && `${counted(waits.attempts_left, "attempt")} left`,
          waits.lane &&
            `lane ${waits.lane}${waits.lane_slots === null ? "" : `: ${waits.lane_running ?? 0} of ${waits.lane_slots} slots taken`}`,
          waits.ahead !== null && waits.ahead > 0 && `${counted(waits.ahead, "job")} before it`,
        ]
          .filter(Boolean)
          .join(" · ")}
      </p>
      {props.children && <div className="actions">{props.children}</div>}
    </section>
  );
}

const eventTones: Partial<Record<TimelineEvent["kind"], Tone>> = {
  started: "run",
  attempt: "run",
  progress: "run",
  step: "good",
  waiting: "wait",
  put_back: "wait",
  callback: "wait",
  cancel_requested: "wait",
};

function toneOfEvent(event: TimelineEvent): Tone {
  if (event.is_problem) return "bad";
  if (event.kind === "webhook" && event.title.includes("delivered")) return "good";
  if (event.kind === "ended") return event.title.toLowerCase().includes("cancel") ? "off" : "good";
  return eventTones[event.kind] ?? "off";
}

function Timeline(props: { events: readonly TimelineEvent[]; logs: Answer<JobLogs> }): JSX.Element {
  const [all, setAll] = useState(false);
  const merged = mergeTimeline(props.events, props.logs.value?.events ?? []);
  const folded = foldProgress(merged);
  const shown = all ? merged.map((event) => ({ ...event, folded: 0 })) : folded;
  return (
    <Card
      title="Timeline"
      aside={
        props.logs.value || props.logs.error ? counted(merged.length, "event") : "Reading the logs…"
      }
    >
      <ol className="timeline">
        {shown.map((event, index) => {
          const at = epoch(event.at) ?? 0;
          const before = epoch(shown[index - 1]?.at);
          const gap = before === undefined ? 0 : at - before;
          return (
            // biome-ignore lint/suspicious/noArrayIndexKey: events have no id, and their order stays
            <li key={index} data-tone={toneOfEvent(event)}>
              <span className="when">
                <time dateTime={event.at} title={stamp(at)}>
                  {clock(at)}
                </time>
                <span className="quiet small">{gap >= 0.001 ? `+${duration(gap)}` : ""}</span>
              </span>
              <div>
                <strong className={event.is_problem ? "bad" : undefined}>{event.title}</strong>
                {event.by && <span className="quiet small">{` by ${event.by}`}</span>}
                {event.folded > 0 && (
                  <button type="button" className="link small" onClick={() => setAll(true)}>
                    {`and ${event.folded} before it`}
                  </button>
                )}
                {event.detail && <p className="quiet break">{event.detail}</p>}
              </div>
            </li>
          );
        })}
      </ol>
      {shown.length === 0 && <p className="quiet">Nothing was recorded.</p>}
    </Card>
  );
}

const LINES = 200;

function Logs({ logs }: { logs: Answer<JobLogs> }): JSX.Element {
  const [problems, setProblems] = useState(false);
  const [from, setFrom] = useState("");
  const [all, setAll] = useState(false);
  const lines = logs.value?.lines ?? [];
  const functions = [...new Set(lines.map((line) => line.function))].sort();
  const chosen = lines.filter(
    (line) => (!problems || line.is_problem) && (!from || line.function === from),
  );
  const shown = all ? chosen : chosen.slice(0, LINES);
  return (
    <Card
      title="Logs"
      aside={logs.value ? `${counted(lines.length, "line")} with its id` : undefined}
      flush
    >
      {!logs.value ? (
        logs.error ? (
          <Failure error={logs.error} retry={logs.again} />
        ) : (
          <Bones rows={6} />
        )
      ) : lines.length === 0 ? (
        <Empty title="No log line has this job’s id">
          {logs.value.note ??
            "Lines arrive some seconds after they were written, and are kept for a limited time."}
        </Empty>
      ) : (
        <>
          <div className="filters body">
            <label>
              Function
              <select value={from} onChange={(event) => setFrom(event.target.value)}>
                <option value="">All functions</option>
                {functions.map((name) => (
                  <option key={name}>{name}</option>
                ))}
              </select>
            </label>
            <span className="check">
              <input
                id="problems"
                type="checkbox"
                checked={problems}
                onChange={(event) => setProblems(event.target.checked)}
              />
              <label htmlFor="problems">Warnings and errors only</label>
            </span>
          </div>
          {shown.length ? (
            <ul className="logs">
              {shown.map((line, index) => (
                // biome-ignore lint/suspicious/noArrayIndexKey: lines have no id, and their order stays
                <Line key={index} line={line} />
              ))}
            </ul>
          ) : (
            <p className="body quiet">No line is a warning or an error.</p>
          )}
          {chosen.length > shown.length && (
            <div className="more">
              <button type="button" className="link" onClick={() => setAll(true)}>
                {`Show all ${number(chosen.length)} lines`}
              </button>
            </div>
          )}
          {(!logs.value.is_complete || logs.value.note) && (
            <p className="body quiet small">
              {logs.value.note ?? "There are more lines than were read."}
            </p>
          )}
        </>
      )}
    </Card>
  );
}

function Line({ line }: { line: LogLine }): JSX.Element {
  const at = epoch(line.at) ?? 0;
  const fields = Object.entries(line.fields);
  const head = (
    <>
      <time dateTime={line.at} title={stamp(at)}>
        {clock(at)}
      </time>
      <span className="quiet cut">{line.function}</span>
      <span className={line.is_problem ? "bad break" : "break"}>
        {line.is_problem ? `${titled(line.level)}: ` : ""}
        {line.message}
      </span>
    </>
  );
  if (!fields.length) return <li className="line">{head}</li>;
  return (
    <li>
      <details>
        <summary className="line">{head}</summary>
        <pre>{JSON.stringify(line.fields, null, 2)}</pre>
      </details>
    </li>
  );
}

const stepTones: Record<Job["steps"][number]["state"], [Tone, string]> = {
  stored: ["good", "Stored"],
  done: ["good", "Done"],
  running: ["run", "Running"],
  waiting: ["off", "Waiting"],
};

function Steps({ job }: { job: Job }): JSX.Element {
  const done = job.steps.filter(({ state }) => state === "done" || state === "stored").length;
  return (
    <Card title="Steps" aside={`${done} of ${job.steps.length} done`} flush>
      <table className="rows free">
        <tbody>
          {job.steps.map((step) => (
            <tr key={step.name}>
              <td className="break">
                {step.name}
                {step.result && <pre className="small clamp">{step.result}</pre>}
              </td>
              <td className="right">
                {step.files !== null && (
                  <span className="quiet small">{`${counted(step.files, "file")} `}</span>
                )}
                <Badge tone={stepTones[step.state][0]}>{stepTones[step.state][1]}</Badge>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Card>
  );
}

function Assembly({ job, now }: { job: Job; now: number }): JSX.Element | null {
  const { assembly } = job;
  if (!assembly) return null;
  const { webhook } = assembly;
  return (
    <Card title="Assembly">
      <Facts
        facts={[
          ["Id", <code key="id">{assembly.assembly_id}</code>],
          ["Template", assembly.template_id],
          ["State", titled(assembly.state.replace(/^ASSEMBLY_/, ""))],
          ["Says", assembly.message],
          [
            "Files",
            `${number(assembly.files_received)} received, ${number(assembly.files_made)} made, ${bytes(assembly.bytes_usage)}`,
          ],
          ["Warnings", assembly.warnings.join("; ")],
          ["Webhook", webhook && (webhook.status ? titled(webhook.status) : "None")],
          ["Receiver", webhook?.host],
          ["Attempts", webhook?.attempts ? number(webhook.attempts) : null],
          [
            "Last attempt",
            webhook?.last_attempt_at && <Ago key="at" time={webhook.last_attempt_at} now={now} />,
          ],
          ["Answered", webhook?.last_response_code],
          ["Error", webhook?.error],
        ]}
      />
    </Card>
  );
}

export function pretty(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

export function Text(props: { title: string; text: string | null; none: string }): JSX.Element {
  return (
    <Card title={props.title} flush={props.text !== null}>
      {props.text === null ? (
        <p className="quiet">{props.none}</p>
      ) : (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls
        <pre className="block" tabIndex={0}>
          {pretty(props.text)}
        </pre>
      )}
    </Card>
  );
}
