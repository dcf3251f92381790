import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { JobPage } from "../src/api.js";
import { queryOf } from "../src/client.js";
import { edgesOf, linesOf, placesOf } from "../src/flow.js";
import { bytes, counted, duration, relative, shortId } from "../src/format.js";
import { mergePage } from "../src/jobs.js";
import { blocksOf, spansOf } from "../src/markdown.js";
import { isStep, plainStatus, sparkPoints } from "../src/pages/files.js";
import { bulkFilter, filterOf } from "../src/pages/jobs.js";
import { href, parse } from "../src/route.js";
import { visible } from "../src/table.js";
import { foldProgress, mergeTimeline } from "../src/timeline.js";
import { filterWords, summary, titled } from "../src/words.js";
import { at, graph, jobRow, jobRows, NOW, stuckJob } from "./fixtures.js";

describe("format", () => {
  it.each([
    [0.25, "250 ms"],
    [4.24, "4.2 s"],
    [59, "59 s"],
    [60, "1 min"],
    [185, "3 min 5 s"],
    [3600, "1 h"],
    [100_000, "1 d 3 h"],
    [-3, "0 ms"],
  ])("writes %s seconds as %s", (seconds, text) => {
    expect(duration(seconds)).toBe(text);
  });

  it("says how long ago or how soon a time is", () => {
    expect(relative(NOW - 90, NOW)).toBe("1 min ago");
    expect(relative(NOW + 90, NOW)).toBe("in 1 min");
    expect(relative(NOW - 200_000, NOW)).toBe("2 d ago");
    expect(relative(NOW, NOW)).toBe("now");
  });

  it("counts with the right form of the noun", () => {
    expect(counted(1, "job")).toBe("1 job");
    expect(counted(10_000, "job")).toBe("10,000 jobs");
    expect(counted(2, "delivery", "deliveries")).toBe("2 deliveries");
    expect(bytes(50_541_120)).toBe("48.2 MB");
    expect(shortId("01a226ff-a5e0-77b7-8572-dcee748c0eb1")).toBe("01a226ff…ee748c0eb1");
    expect(shortId("req-1")).toBe("req-1");
  });
});

describe("addresses", () => {
  it("hold any id and any filter", () => {
    const path = ["job", "a/b", "ü#?", "r 1"];
    const route = parse(href(path, { status: "FAILED,PENDING", tag: "", tenant: "a&b" }));
    expect(route.path).toEqual(path);
    expect(Object.fromEntries(route.query)).toEqual({ status: "FAILED,PENDING", tenant: "a&b" });
  });

  it("give a filter without what is unknown or not allowed", () => {
    const query = new URLSearchParams("status=FAILED,NONSENSE&user=ada&period=1h&action=delay");
    const filter = filterOf(query, NOW);
    expect(filter).toMatchObject({ status: ["FAILED"], user: null, action: ["delay"] });
    expect(Date.parse(filter.since ?? "")).toBe(Math.floor((NOW - 3600) / 60) * 60_000);
    expect(filterOf(query, NOW + 5).since).toBe(filter.since);
  });

  it("become queries in which a list is one parameter", () => {
    expect(queryOf({ status: ["A", "B"], tenant: null, limit: 5, failing: false })).toBe(
      "?status=A%2CB&limit=5&failing=false",
    );
    expect(queryOf({})).toBe("");
  });
});

describe("bulk filters", () => {
  const filter = filterOf(new URLSearchParams("tenant=acme"), NOW);

  it("cancel only what has not ended, replay only what has", () => {
    expect(bulkFilter("cancel", filter).status).toEqual([
      "SCHEDULED",
      "PENDING",
      "PROCESSING",
      "RETRYING",
    ]);
    expect(bulkFilter("replay", filter).status).toEqual(["FAILED"]);
    const chosen = { ...filter, status: ["PENDING", "COMPLETED"] as const };
    expect(bulkFilter("cancel", { ...filter, status: [...chosen.status] }).status).toEqual([
      "PENDING",
    ]);
    expect(bulkFilter("replay", { ...filter, status: [...chosen.status] }).status).toEqual([
      "COMPLETED",
    ]);
  });

  it("are sentences", () => {
    expect(filterWords({ status: ["PENDING", "FAILED"], tenant: "acme" })).toBe(
      "status Pending or Failed, tenant acme",
    );
    expect(filterWords({})).toBe("no condition: all jobs");
  });
});

describe("pages of jobs", () => {
  const page = (from: number, to: number, next: string | null = "more"): JobPage => ({
    jobs: jobRows(to).slice(from),
    next,
    is_cut: false,
    access: "all-tenants",
    rows_read: to - from,
    now: at(0),
  });

  it("follow each other, and each job is there once", () => {
    const rows = mergePage(page(0, 200), jobRows(700));
    expect(rows.map(({ id }) => id)).toEqual(jobRows(700).map(({ id }) => id));
  });

  it("lose a job of the first page that no longer matches", () => {
    const first = page(0, 200);
    first.jobs = first.jobs.filter((_, index) => index !== 7);
    const rows = mergePage(first, jobRows(300));
    expect(rows.length).toBe(299);
    expect(rows.some(({ id }) => id === jobRow(7).id)).toBe(false);
  });

  it("are replaced by a first page that is all there is", () => {
    expect(mergePage(page(0, 3, null), jobRows(300)).length).toBe(3);
  });
});

describe("a job in one line", () => {
  it("says why it failed, why it waits, how far it is, or that its worker has stopped", () => {
    expect(summary(jobRow(2, { status: "FAILED" }), NOW)).toMatch(/^ffmpeg ended/);
    expect(summary(jobRow(1, { status: "PENDING" }), NOW)).toBe("Waits for a slot of its lane");
    expect(summary(jobRow(5, { status: "RETRYING" }), NOW)).toContain("in 14 s");
    expect(summary(jobRow(0, { status: "PROCESSING" }), NOW)).toContain(
      "resized 128 of 310 images",
    );
    expect(summary(jobRow(0, { status: "PROCESSING", cancel_requested: true }), NOW)).toContain(
      "Cancellation",
    );
    const lost = new Date((NOW - 75) * 1000).toISOString();
    expect(summary(jobRow(0, { status: "PROCESSING", worker_lost_at: lost }), NOW)).toBe(
      "Its worker has stopped: its lease ran out 1 min 15 s ago",
    );
    expect(titled("not_in_manifest")).toBe("Not in manifest");
  });
});

describe("a timeline", () => {
  it("has each event once, in order of time", () => {
    const events = stuckJob.timeline;
    const late = { ...events[0], at: at(150), title: "Post failed" } as (typeof events)[0];
    const merged = mergeTimeline(events, [late, ...events]);
    expect(merged.length).toBe(events.length + 1);
    expect(merged.at(-1)?.title).toBe("Post failed");
    expect([...merged].sort((a, b) => a.at.localeCompare(b.at))).toEqual(merged);
  });

  it("folds progress into its last line", () => {
    const folded = foldProgress(stuckJob.timeline);
    expect(folded.map(({ title }) => title)).toEqual([
      "Received",
      "Dispatched",
      "Attempt 1 started",
      "40 %",
    ]);
    expect(folded.at(-1)?.folded).toBe(3);
  });
});

describe("the flow's picture", () => {
  const definition = readFileSync(
    new URL("../../../resources/job-flow.asl.yml", import.meta.url),
    "utf8",
  );
  const inFlow = [...definition.matchAll(/^ {2}(\w+):$/gm)].map(([, name]) => name);

  it("has a place of its own for every state of the flow", () => {
    const states = inFlow.map((name) => ({ ...graph({})[0], name: name ?? "" })) as ReturnType<
      typeof graph
    >;
    const places = placesOf(states);
    const taken = [...places.values()].map(({ row, column }) => `${row}/${column}`);
    expect(new Set(taken).size).toBe(inFlow.length);
    expect(Math.max(...[...places.values()].map(({ row }) => row))).toBe(5);
  });

  it("places a state that it does not know below the others", () => {
    const unknown = { ...graph({})[0], name: "Later" } as ReturnType<typeof graph>[0];
    expect(placesOf([...graph({}), unknown]).get("Later")).toEqual({ row: 6, column: 0 });
  });

  it("draws ways to a failure only where the execution went", () => {
    const calm = edgesOf(graph({ Begin: 1, IsInputAllowed: 1 }));
    expect(calm.some(({ to }) => to === "InputRefused")).toBe(false);
    const refused = edgesOf(graph({ Begin: 1, IsInputAllowed: 1, InputRefused: 1 }));
    expect(refused.find(({ to }) => to === "InputRefused")?.travelled).toBe(true);
  });

  it("cuts long names between their words", () => {
    expect(linesOf("ReleaseAfterPreemption")).toEqual(["ReleaseAfter", "Preemption"]);
    expect(linesOf("Begin")).toEqual(["Begin"]);
  });
});

describe("files", () => {
  it("have a status without its shard, and known steps", () => {
    expect(plainStatus("processing#3")).toBe("processing");
    expect(plainStatus("stuck#3")).toBeUndefined();
    expect(isStep("processing", "completed")).toBe(true);
    expect(isStep("completed", "pending")).toBe(false);
  });

  it("have a line of their counts", () => {
    expect(sparkPoints([0, 10])).toBe("0.0,22.0 200.0,2.0");
    expect(sparkPoints([5, 5])).toBe("0.0,12.0 200.0,12.0");
  });
});

describe("the runbook", () => {
  it("is read with its blocks", () => {
    const text =
      "One\ntwo `x`.\n\n```sh\na | b\n```\n\n| a | b |\n|---|---|\n| `c` | d\\|e |\n\n- one\n  more\n- two";
    expect(blocksOf(text)).toEqual([
      { kind: "text", text: "One two `x`." },
      { kind: "code", text: "a | b" },
      { kind: "table", head: ["a", "b"], rows: [["`c`", "d|e"]] },
      { kind: "list", items: ["one more", "two"] },
    ]);
  });

  it("is read with its spans", () => {
    expect(spansOf("see [the `docs`](x.md) **now** `a`")).toEqual([
      { kind: "text", text: "see " },
      { kind: "link", text: "the docs", to: "x.md" },
      { kind: "text", text: " " },
      { kind: "strong", text: "now" },
      { kind: "text", text: " " },
      { kind: "code", text: "a" },
    ]);
  });

  it("of this repository is read completely", () => {
    const runbook = readFileSync(new URL("../../../docs/observing.md", import.meta.url), "utf8");
    const words = (text: string) =>
      text.replaceAll(/<!--[\s\S]*?-->/g, "").match(/[a-z]{4,}/g)?.length ?? 0;
    const sections = runbook.split(/^### .*$/m).slice(1);
    for (const section of sections)
      expect(words(JSON.stringify(blocksOf(section)))).toBeGreaterThan(words(section) * 0.95);
  });
});

describe("a long table", () => {
  it("draws the rows in sight and a few more", () => {
    expect(visible(0, 680, 34, 10_000)).toEqual([0, 32]);
    expect(visible(34_000, 680, 34, 10_000)).toEqual([988, 1032]);
    expect(visible(0, 680, 34, 3)).toEqual([0, 3]);
    expect(visible(99_999, 680, 34, 3)).toEqual([3, 3]);
  });
});
