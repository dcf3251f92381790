import { mkdir } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import type { Locator, Page } from "playwright-core";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { breakStage, Console, jobplane } from "./console.js";
import { listening } from "./world.js";

type Planted = {
  job: { id: string };
  lane: { tenant: string; slots: number; waiting: number };
  receiver: { host: string };
  claim: { workspace: string };
};

// Reads only what is visible, by innerText, roles and labels.
const { name: stage } = inject("stage");
const pictures = join(import.meta.dirname, "pictures");
let planted: Planted;
let there: Console;
let page: Page;
let receiver: Server | undefined;
let port: number;

beforeAll(async () => {
  await mkdir(pictures, { recursive: true });
  // A port at which nothing answers.
  const reserved = createServer();
  port = await listening(reserved);
  await new Promise((resolve) => reserved.close(resolve));
  const files = ["--clear", "--files", "20", "--days", "3", "--faults", "13"];
  await jobplane("seed-files", "--stage", stage, ...files);
  planted = await breakStage<Planted>("break", stage, String(port));
  there = await Console.open(stage);
  page = there.page;
});

afterAll(async () => {
  await there?.close();
  receiver?.close();
  await breakStage("restore", stage);
});

const picture = (name: string) => page.screenshot({ path: join(pictures, `${name}.png`) });
const panel = () => page.getByRole("region", { name: "What needs a look" });
const finding = (what: string | RegExp) => panel().getByRole("listitem").filter({ hasText: what });
const button = (name: string | RegExp, within: Page | Locator = page) =>
  within.getByRole("button", { name });

/** Goes to the first page, where a finding says what is wrong, since when, and what to do. */
async function findAndOpen(what: RegExp, toDo: RegExp): Promise<void> {
  await page.getByRole("link", { name: /^Jobs/ }).first().click();
  const text = await finding(what).innerText();
  expect(text).toMatch(/Since .*\d/);
  expect(text).toMatch(toDo);
  await finding(what).getByRole("link", { name: /^Open/ }).click();
}

/** The finding is no longer on the first page. */
async function expectCorrected(what: RegExp): Promise<void> {
  await page.getByRole("link", { name: /^Jobs/ }).first().click();
  await panel().waitFor();
  await expect
    .poll(
      async () => {
        await button("Look again", panel()).click();
        return finding(what).count();
      },
      { timeout: 60_000, interval: 1_000 },
    )
    .toBe(0);
}

/** A dialog in which a reason is given, and what it asks for is typed. */
async function confirm(verb: RegExp): Promise<void> {
  const dialog = page.getByRole("dialog");
  const asked = /Type (.*) to confirm/;
  const typed = dialog.getByLabel(asked);
  if (await typed.count()) {
    const [, text = ""] = asked.exec(await dialog.getByText(asked).first().innerText()) ?? [];
    await typed.fill(text);
  }
  const reason = dialog.getByLabel("Reason");
  if (await reason.count()) await reason.fill("a test of the console");
  await button(verb, dialog).click();
  await dialog.waitFor({ state: "detached" });
}

// The tests are one story: what they correct was broken at its beginning.

test("the first page names each fault", async () => {
  await expect
    .poll(() => panel().getByRole("listitem").count(), { timeout: 60_000 })
    .toBeGreaterThanOrEqual(5);
  await picture("what-needs-a-look");
});

test("a full lane: the jobs that hang are found and cancelled", async () => {
  const { tenant, slots, waiting } = planted.lane;
  const what = new RegExp(
    `lane of tenant ${tenant} is full: ${slots} of ${slots} slots are taken, and ${waiting} jobs wait`,
  );
  await findAndOpen(what, /Cancel those that hang/);
  const links = page.getByRole("region", { name: "List of jobs" }).getByRole("link");
  await expect.poll(() => links.count(), { timeout: 60_000 }).toBe(slots);
  const names = await links.allInnerTexts();
  await picture("full-lane");
  for (const name of names) {
    await page.getByRole("link", { name, exact: true }).click();
    await button("Cancel…").click();
    await confirm(/^Cancel the job$/);
    await page.getByText("Cancelled", { exact: true }).first().waitFor();
    await page.goBack();
  }
  await expectCorrected(/lane of tenant/);
});

test("a lost worker: its job is put back and runs again", async () => {
  const what = /1 job has lost its worker/;
  await findAndOpen(what, /Put it back now/);
  await page.getByRole("heading", { name: planted.job.id }).waitFor();
  await page.getByText(/Its worker has stopped: the lease ran out \d+ \w+ ago/).waitFor();
  await picture("lost-worker");
  await button("Put it back now").click();
  await page.getByText(/was put back into the queue/).waitFor();
  await page.getByText(/A worker runs it: attempt 2/).waitFor();
  await picture("put-back");
  await expectCorrected(what);
});

test("a stuck claim is released", async () => {
  const what = /can't run jobs: its claim is stuck/;
  await findAndOpen(what, /Release/);
  const stuck = page.getByRole("region", { name: "Stuck claims" });
  expect(await stuck.innerText()).toMatch(/time is over and it was not released/);
  await picture("stuck-claim");
  await button(`Release ${planted.claim.workspace}`, stuck).click();
  await confirm(/^Release the claim$/);
  await page.getByText(`The claim of ${planted.claim.workspace} was released`).waitFor();
  await expectCorrected(what);
});

test("a receiver that does not answer: its webhook is sent again", async () => {
  const what = new RegExp(`1 webhook to ${planted.receiver.host} failed: it did not answer`);
  await findAndOpen(what, /Correct the receiver/);
  await page
    .getByText(/The last attempt failed/)
    .first()
    .waitFor();
  await picture("dead-receiver");
  let received = 0;
  receiver = createServer((request, response) => {
    received += 1;
    request.resume().once("end", () => response.end());
  });
  await new Promise<void>((resolve) => receiver?.listen(port, "127.0.0.1", resolve));
  await button(/^Send again/)
    .first()
    .click();
  await confirm(/^Send it$/);
  await page.getByText("The receiver accepted it (200).").waitFor();
  expect(received).toBe(1);
  await expectCorrected(what);
});

test("files that are stuck are reset, and the others changed one by one", async () => {
  await findAndOpen(/files and locks are stuck, lost or contradictory/, /Reset stuck files/);
  const kind = (title: string) => page.getByRole("region", { name: title, exact: true });
  await kind("Manifest missing").waitFor();
  await picture("orphans");
  await button("Reset stuck files…").click();
  await page.getByText(/\d+ files would be reset/).waitFor();
  await picture("reset");
  await confirm(/^Reset \d+ files$/);
  await page.getByText(/\d+ files reset/).waitFor();
  for (const [title, status] of [
    ["Output missing", "Pending"],
    ["Behind its manifest", "Completed"],
  ] as const) {
    expect(await kind(title).innerText()).toMatch(new RegExp(`Set it.*${status}`, "i"));
    await button(/^Show files/, kind(title)).click();
    await kind(title).getByRole("link").first().click();
    await button("Change its status…").click();
    const choices = page.getByRole("dialog").getByLabel("New status");
    const words = await choices.getByRole("option").allInnerTexts();
    await choices.selectOption({ label: words.find((one) => one.startsWith(status)) ?? "" });
    await picture(`change-to-${status.toLowerCase()}`);
    await confirm(/^Change to/);
    await page.getByRole("status").filter({ hasText: /./ }).first().waitFor();
    await page
      .getByRole("link", { name: /^Files/ })
      .first()
      .click();
    await page.getByText("By status").waitFor();
    await kind(title).waitFor({ state: "detached" });
  }
  await kind("Manifest missing").waitFor({ state: "detached" });
});

test("the audit says who did all this", async () => {
  await page.getByRole("link", { name: /^Jobs/ }).first().click();
  await page.getByRole("link", { name: "Audit" }).click();
  const list = page.getByRole("region", { name: "What was done" });
  await list.getByText("all of them").waitFor();
  await picture("audit");
  const text = await list.innerText();
  for (const [action, subject] of [
    ["Cancel a job", planted.lane.tenant],
    ["Put a job back", planted.job.id],
    ["Release a claim", planted.claim.workspace],
    ["Send a webhook again", "webhook of assembly"],
    ["Reset stuck files", "files processing or manifested for at least 2 h"],
    ["Change a file’s status", "forced"],
  ]) {
    expect(text).toContain(`Done\t${action}`);
    expect(text).toContain(subject);
  }
});
