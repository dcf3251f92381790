import { type JSX, type ReactNode, useMemo, useState } from "react";
import type { Delivery, WebhookState } from "../api.js";
import { get, post } from "../client.js";
import { counted, number, shortId } from "../format.js";
import { useLoad } from "../load.js";
import {
  Ago,
  Badge,
  Bones,
  Card,
  Confirm,
  Empty,
  Failure,
  Freshness,
  type Tone,
  useNow,
} from "../parts.js";
import { href, setFilters } from "../route.js";
import { ActionButton, useStage } from "../stage.js";
import { type Column, LongTable } from "../table.js";
import { titled } from "../words.js";
import { isBad, Touched } from "./job.js";

const tones: Record<NonNullable<WebhookState["status"]>, Tone> = {
  pending: "wait",
  delivered: "good",
  retrying: "bad",
  failed: "bad",
  disabled: "off",
  unsigned_refused: "bad",
  refused: "bad",
};

export function WebhooksPage({ query }: { query: URLSearchParams }): JSX.Element {
  const stage = useStage();
  const now = useNow();
  const failing = query.get("failing") === "yes";
  const filter = {
    failing,
    tenant: query.get("tenant"),
    template: query.get("template"),
    host: query.get("host"),
  };
  const key = query.toString();
  const answer = useLoad(
    `webhooks?${key}`,
    (signal) => get("webhooks", filter, signal),
    stage.poll_seconds * 2,
  );
  const [older, setOlder] = useState<{
    key: string;
    deliveries: Delivery[];
    next: string | null;
  }>();
  const [busy, setBusy] = useState(false);
  const [asked, setAsked] = useState<Delivery>();
  const [done, setDone] = useState<{ tone: "good" | "bad"; message: ReactNode }>();
  const value = answer.value;
  const rest = older?.key === key ? older : undefined;
  const rows = useMemo(() => {
    const seen = new Set(value?.deliveries.map(({ assembly_id }) => assembly_id));
    const more = rest?.deliveries.filter(({ assembly_id }) => !seen.has(assembly_id)) ?? [];
    return [...(value?.deliveries ?? []), ...more];
  }, [value, rest]);
  const next = rest ? rest.next : value?.next;
  const readMore = async () => {
    if (!next) return;
    setBusy(true);
    try {
      const page = await get("webhooks", { ...filter, next });
      setOlder({
        key,
        deliveries: [...(rest?.deliveries ?? []), ...page.deliveries],
        next: page.next,
      });
    } catch (failure) {
      setDone({
        tone: "bad",
        message: failure instanceof Error ? failure.message : String(failure),
      });
    } finally {
      setBusy(false);
    }
  };
  const columns = useMemo(() => columnsOf(now, setAsked), [now]);
  const set = (name: string, text: string) =>
    setFilters(["webhooks"], { ...Object.fromEntries(query), [name]: text });
  const groups = value?.groups ?? [];
  return (
    <>
      <div className="head">
        <h1>Webhooks</h1>
        <Freshness answer={answer} />
      </div>
      {done && (
        <p className="notice" data-tone={done.tone} role="status">
          <span>{done.message}</span>
        </p>
      )}
      {value && Boolean(value.given_up) && (
        <div className="notice" data-tone="bad">
          <strong>{`${counted(value.given_up ?? 0, "webhook")} given up after all attempts`}</strong>
          <p>
            Correct the receiver first. Then send each one again here, or move all messages of the
            dead-letter queue back: Health has the commands.
          </p>
        </div>
      )}
      {value && !value.given_up && <Failing deliveries={value.deliveries} />}
      {groups.length > 0 && (
        <Card
          title="Receivers"
          aside={
            value && value.queued !== null
              ? `${counted(value.queued, "delivery", "deliveries")} in the queue`
              : undefined
          }
          flush
        >
          <table className="rows free">
            <thead>
              <tr>
                <th scope="col">Host</th>
                <th scope="col">Template</th>
                <th scope="col" className="number">
                  Delivered
                </th>
                <th scope="col" className="number">
                  Pending
                </th>
                <th scope="col" className="number">
                  Failing
                </th>
              </tr>
            </thead>
            <tbody>
              {groups.map((group) => (
                <tr key={`${group.template_id}/${group.host}`}>
                  <td className="break mono">
                    {group.host ?? <span className="quiet">Unknown</span>}
                  </td>
                  <td className="break">{group.template_id}</td>
                  <td className="number">{number(group.delivered)}</td>
                  <td className="number">{number(group.pending)}</td>
                  <td className="number">
                    {group.failing ? (
                      <a
                        className="bad"
                        href={href(["webhooks"], { failing: "yes", template: group.template_id })}
                      >
                        {number(group.failing)}
                        <span className="hidden"> failing: show them</span>
                      </a>
                    ) : (
                      0
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Card>
      )}
      <search className="filters" aria-label="Filters">
        <span className="check">
          <input
            id="failing"
            type="checkbox"
            checked={failing}
            onChange={(event) => set("failing", event.target.checked ? "yes" : "")}
          />
          <label htmlFor="failing">Failing only</label>
        </span>
        {(["tenant", "template", "host"] as const).map((name) => (
          <label key={name}>
            {titled(name)}
            <input
              key={query.get(name)}
              defaultValue={query.get(name) ?? ""}
              placeholder="All"
              spellCheck={false}
              onBlur={(event) => set(name, event.target.value.trim())}
              onKeyDown={(event) => {
                if (event.key === "Enter") set(name, event.currentTarget.value.trim());
              }}
            />
          </label>
        ))}
        {query.size > 0 && (
          <button type="button" className="plain" onClick={() => setFilters(["webhooks"], {})}>
            Clear
          </button>
        )}
      </search>
      <section className="card" aria-label="List of deliveries">
        {value ? (
          rows.length ? (
            <LongTable
              label="Deliveries"
              rows={rows}
              columns={columns}
              rowKey={({ assembly_id }) => assembly_id}
            />
          ) : failing ? (
            <Empty title="No webhook fails">Every receiver has accepted its webhooks.</Empty>
          ) : query.size ? (
            <Empty
              title="No delivery matches these filters"
              actions={
                <button type="button" onClick={() => setFilters(["webhooks"], {})}>
                  Remove all filters
                </button>
              }
            />
          ) : (
            <Empty title="No webhooks yet">
              An assembly whose template has a webhook appears here when it ends.
            </Empty>
          )
        ) : answer.error ? (
          <Failure error={answer.error} retry={answer.again} />
        ) : (
          <Bones />
        )}
        {next && (
          <div className="more">
            <span className="quiet small">{`${counted(rows.length, "delivery", "deliveries")} so far`}</span>
            <button type="button" disabled={busy} onClick={() => void readMore()}>
              {busy ? "Reading…" : "Read more"}
            </button>
          </div>
        )}
      </section>
      {asked && (
        <Confirm
          title="Send the webhook again"
          verb="Send it"
          act={async () => {
            const sent = await post("webhooks/resend", { assembly_id: asked.assembly_id });
            const ok = sent.webhook.status === "delivered" || sent.webhook.status === "pending";
            setDone({ tone: ok ? "good" : "bad", message: sent.message });
            setAsked(undefined);
            answer.again();
          }}
          close={() => setAsked(undefined)}
        >
          <Touched
            name={asked.assembly_id}
            owner={`to ${asked.webhook.host ?? `the receiver of template ${asked.template_id}`}`}
          />
          <p>The receiver gets the assembly’s document once more, with the same webhook id.</p>
        </Confirm>
      )}
    </>
  );
}

/** Which receivers fail, and what to do; the rows of the table have no room for it. */
function Failing({ deliveries }: { deliveries: readonly Delivery[] }): JSX.Element | null {
  const failing = deliveries.filter(({ webhook }) => isBad(webhook));
  const receivers = new Map(
    failing.map(({ webhook, template_id }) => [webhook.host ?? template_id, webhook]),
  );
  if (!failing.length) return null;
  return (
    <section className="notice" data-tone="bad" aria-label="Failing receivers">
      {[...receivers].map(([name, webhook]) => (
        <p key={name}>
          <strong>{`${name}: ${webhook.error ?? answerOf(webhook)}.`}</strong> {webhook.explanation}
        </p>
      ))}
    </section>
  );
}

function answerOf({ last_response_code: code }: WebhookState): string {
  return code === null ? "the receiver did not answer" : `the receiver answered ${code}`;
}

function says(webhook: WebhookState): string {
  const code = webhook.last_response_code;
  const answer = code === null ? null : `The receiver answered ${code}`;
  if (webhook.status === "delivered") return answer ?? webhook.explanation;
  return [webhook.error ?? answer, webhook.explanation].filter(Boolean).join(". ");
}

function columnsOf(now: number, ask: (delivery: Delivery) => void): Column<Delivery>[] {
  return [
    {
      key: "status",
      head: "Status",
      width: "130px",
      line: 1,
      cell: ({ webhook }) => (
        <Badge tone={webhook.status ? tones[webhook.status] : "off"}>
          {webhook.status ? titled(webhook.status) : "None"}
        </Badge>
      ),
    },
    {
      key: "assembly",
      head: "Assembly",
      width: "170px",
      line: 1,
      grow: true,
      cell: (delivery) => {
        const { tenant, user, request_id, assembly_id } = delivery;
        return tenant && user && request_id ? (
          <a className="mono" href={href(["job", tenant, user, request_id])} title={assembly_id}>
            {shortId(assembly_id)}
          </a>
        ) : (
          <span className="mono" title={assembly_id}>
            {shortId(assembly_id)}
          </span>
        );
      },
    },
    {
      key: "host",
      head: "Receiver",
      width: "20%",
      cell: ({ webhook, template_id }) => (
        <span title={`Template ${template_id}`}>{webhook.host ?? template_id}</span>
      ),
    },
    {
      key: "says",
      head: "What happened",
      line: 2,
      grow: true,
      cell: ({ webhook }) => (
        <span className="quiet" title={says(webhook)}>
          {says(webhook)}
        </span>
      ),
    },
    {
      key: "attempts",
      head: "Attempts",
      width: "78px",
      number: true,
      cell: ({ webhook }) => webhook.attempts,
    },
    {
      key: "last",
      head: "Last attempt",
      width: "102px",
      number: true,
      line: 1,
      cell: ({ webhook }) => <Ago time={webhook.last_attempt_at} now={now} />,
    },
    {
      key: "act",
      head: "",
      width: "130px",
      number: true,
      line: 2,
      cell: (delivery) => (
        <ActionButton
          plain
          act={() => ask(delivery)}
          off={delivery.webhook.status === "disabled" && "Its webhook is disabled."}
          label={`Send again: ${delivery.assembly_id}`}
        >
          Send again…
        </ActionButton>
      ),
    },
  ];
}
