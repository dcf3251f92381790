import type { Page } from "playwright-core";
import {
  at,
  broken,
  completedJob,
  empty,
  failedExecution,
  failedJob,
  failedWebhook,
  full,
  operation,
  problem,
  type Scenario,
} from "./fixtures.js";

/** A page in one of its states: how it is reached, and the text by which it is there. */
export type State = {
  name: string;
  address: string;
  scenario?: () => Scenario;
  act?: (page: Page) => Promise<void>;
  ready: string;
};

function changed(
  changes: (scenario: Scenario) => void,
  from: () => Scenario = full,
): () => Scenario {
  return () => {
    const scenario = from();
    changes(scenario);
    return scenario;
  };
}

const press = (name: string | RegExp) => (page: Page) =>
  page.getByRole("button", { name }).first().click();

const refusal = problem(
  "AWS_ERROR",
  "Query: AccessDeniedException: User: arn:aws:sts::123456789012:assumed-role/readers/ada is not authorized to perform: dynamodb:Query on resource: table/jobplane-staging-requests",
);

const job = "#/job/acme/ada/req-5f3a91c0-00000";

export const states: State[] = [
  { name: "findings", address: "#/jobs", ready: "6 things need a look" },
  {
    name: "jobs",
    address: "#/jobs",
    scenario: changed(({ gets }) => {
      gets.findings = () => ({ findings: [], unchecked: [], now: at(0) });
    }),
    ready: "all of them",
  },
  {
    name: "findings-unchecked",
    address: "#/jobs",
    scenario: changed(({ gets }) => {
      gets.findings = () => ({
        findings: [],
        unchecked: ["webhooks: Scan: AccessDeniedException: not authorized"],
        now: at(0),
      });
    }),
    ready: "Not checked: webhooks",
  },
  { name: "jobs-failed", address: "#/jobs?status=FAILED&period=24h", ready: "all of them" },
  { name: "jobs-empty", address: "#/jobs", scenario: empty, ready: "No jobs yet" },
  {
    name: "jobs-no-match",
    address: "#/jobs?tenant=acme&tag=weekly&status=FAILED",
    scenario: empty,
    ready: "No job matches",
  },
  { name: "jobs-loading", address: "#/jobs", scenario: () => broken("never"), ready: "Remove" },
  {
    name: "jobs-error",
    address: "#/jobs",
    scenario: () => broken(refusal),
    ready: "This could not be loaded",
  },
  {
    name: "jobs-read-only",
    address: "#/jobs",
    scenario: changed(({ gets }) => {
      const { stage } = gets;
      gets.stage = (query) =>
        Object.assign(stage(query), {
          stage: "prod",
          read_only: true,
          read_only_because:
            "stage 'prod' has 'prod' in its name, so the console only reads; start it with --write to change the stage",
        });
    }),
    ready: "Read-only",
  },
  {
    name: "bulk-preview",
    address: "#/jobs?action=import_catalogue&tenant=globex",
    act: press("Cancel by filter…"),
    ready: "Exactly these jobs change",
  },
  {
    name: "bulk-nothing",
    address: "#/jobs",
    scenario: empty,
    act: press("Cancel by filter…"),
    ready: "there is nothing to cancel",
  },
  { name: "bulk-list", address: "#/bulk", ready: "Receiver is back" },
  { name: "audit", address: "#/audit", ready: "16 reset, 1 skipped" },
  { name: "audit-empty", address: "#/audit", scenario: empty, ready: "Nothing was done yet" },
  { name: "bulk-empty", address: "#/bulk", scenario: empty, ready: "No bulk operation yet" },
  {
    name: "bulk-running",
    address: "#/bulk/bulk-20261129-021201-4f7c",
    ready: "6,288 of 10,000 jobs done",
  },
  {
    name: "bulk-interrupted",
    address: "#/bulk/bulk-20261129-021201-4f7c",
    scenario: changed(({ gets }) => {
      gets["bulk/operation"] = () => operation({ state: "interrupted", runs_here: false });
    }),
    ready: "no console works on them",
  },
  { name: "job-lost-worker", address: job, ready: "request acknowledged" },
  {
    name: "job-failed",
    address: "#/job/globex/ada/req-5f3ac98e-00002",
    scenario: changed(({ gets }) => {
      gets.job = () => failedJob;
      gets["job/logs"] = () => ({ lines: [], events: [], is_complete: true, note: null });
    }),
    ready: "No log line has",
  },
  {
    name: "job-completed",
    address: "#/job/acme/ada/req-5f3b0d7c-00004",
    scenario: changed(({ gets }) => {
      gets.job = () => completedJob;
    }),
    ready: "request acknowledged",
  },
  {
    name: "job-webhook-failed",
    address: "#/job/acme/ada/req-5f3b0d7c-00004",
    scenario: changed(({ gets }) => {
      gets.job = () => ({
        ...completedJob,
        assembly: completedJob.assembly && { ...completedJob.assembly, webhook: failedWebhook },
      });
    }),
    ready: "Its webhook was not delivered",
  },
  {
    name: "job-missing",
    address: job,
    scenario: changed(({ gets }) => {
      gets.job = () =>
        problem(
          "NOT_FOUND",
          "no job req-5f3a91c0-00000 of acme / ada: its row is kept for seven days",
        );
    }),
    ready: "its row is kept",
  },
  {
    name: "job-cancel",
    address: job,
    act: press("Cancel…"),
    ready: "Its worker is asked to end it",
  },
  { name: "workspaces", address: "#/workspaces", ready: "One claim is stuck" },
  {
    name: "workspaces-empty",
    address: "#/workspaces",
    scenario: empty,
    ready: "No workspace has a claim",
  },
  {
    name: "claim-release",
    address: "#/workspaces",
    act: press(/^Release borealis|^Release…|^Release /),
    ready: "Release this claim",
  },
  {
    name: "execution",
    address: "#/execution/borealis-grace-msg-20261129-0000",
    ready: "A worker has the job",
  },
  {
    name: "execution-failed",
    address: "#/execution/atlas-ada-msg-20261129-0007",
    scenario: changed(({ gets }) => {
      gets.execution = () => failedExecution;
    }),
    ready: "It gave up: another job",
  },
  { name: "files", address: "#/files", act: press(/files: Stuck in/), ready: "events-0011" },
  { name: "files-empty", address: "#/files", scenario: empty, ready: "Nothing is stuck" },
  {
    name: "files-reset",
    address: "#/files",
    act: press("Reset stuck files…"),
    ready: "16 files would be reset",
  },
  { name: "files-list", address: "#/files?show=list&status=failed", ready: "40 files so far" },
  { name: "files-date", address: "#/files?show=date&date=2026-11-28", ready: "3 issues among" },
  {
    name: "file",
    address: "#/files/2026-11-28/events-0003-7d1f.ndjson",
    ready: "Processing started",
  },
  {
    name: "file-change",
    address: "#/files/2026-11-28/events-0003-7d1f.ndjson",
    act: press("Change its status…"),
    ready: "New status",
  },
  { name: "webhooks", address: "#/webhooks", ready: "12 webhooks given up" },
  { name: "webhooks-empty", address: "#/webhooks", scenario: empty, ready: "No webhooks yet" },
  {
    name: "webhooks-none-failing",
    address: "#/webhooks?failing=yes",
    scenario: empty,
    ready: "No webhook fails",
  },
  { name: "health", address: "#/health", ready: "Look at the messages" },
  { name: "health-quiet", address: "#/health", scenario: empty, ready: "No alarm rings" },
  {
    name: "health-no-alarms",
    address: "#/health",
    scenario: changed(({ gets }) => {
      const { health } = gets;
      gets.health = (query) => Object.assign(health(query), { alarms: [], alarms_off: true });
    }),
    ready: "This stage has no alarms",
  },
  { name: "unknown-page", address: "#/nothing", ready: "Page not found" },
  {
    name: "no-session",
    address: "#/jobs",
    scenario: changed(({ gets }) => {
      gets.stage = () =>
        problem(
          "UNAUTHORIZED",
          "no session; open the URL that `jobplane console` prints; it is good once, so start it again",
        );
    }),
    ready: "no session",
  },
];
