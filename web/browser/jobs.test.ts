import { randomUUID } from "node:crypto";
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, inject, test, vi } from "vitest";
import { Traffic, World } from "./world.js";

let world: World;

beforeAll(async () => {
  world = await World.start(inject("stage"));
});

afterEach(() => world.closePages());

afterAll(() => world.stop());

const ended = (page: Page) => page.locator('output[data-ended="true"]').waitFor();
const statesOf = (page: Page) => page.locator("output").textContent();

/** Nothing is sent while many polls would have been due. */
async function expectSilence(page: Page, traffic: Traffic): Promise<void> {
  const before = traffic.count;
  await page.waitForTimeout(1_000);
  expect(traffic.count).toBe(before);
}

test.each([
  [{ seconds: 1, steps: 4 }, "waiting running completed", "Completed"],
  [{ seconds: 1, steps: 4, fail_at: 3 }, "waiting running failed", "Failed"],
])("two tabs show a job from its start to its end: %o", async (payload, states, badge) => {
  const id = randomUUID();
  const context = await world.context();
  const first = await world.page("job", { id, payload: JSON.stringify(payload) }, context);
  const traffic = new Traffic(first);
  await first.getByRole("button", { name: "Start" }).click();
  await first.locator('[data-state="running"]').waitFor();
  const second = await world.page("job", { id }, context);
  for (const page of [first, second]) {
    await ended(page);
    await page.locator(".jobplane-badge", { hasText: badge }).waitFor();
  }
  expect(await statesOf(first)).toBe(states);
  await expectSilence(first, traffic);
});

test("a job that a user cancels is shown as cancelled", async () => {
  const id = randomUUID();
  const payload = JSON.stringify({ seconds: 60, steps: 60 });
  const page = await world.page("job", { id, payload });
  await page.getByRole("button", { name: "Start" }).click();
  await page.locator('[data-state="running"]').waitFor();
  await page.getByRole("button", { name: "Cancel" }).click();
  await ended(page);
  expect(await statesOf(page)).toBe("waiting running cancelled");
});

/** Chooses a file, whose assembly's card is then shown. */
async function choose(page: Page, content: string | number): Promise<void> {
  const { path } = await world.file("data.bin", content);
  await page.locator("input").setInputFiles(path);
}

const card = (page: Page, state: string) =>
  page.locator(`.jobplane-card[data-state="${state}"]`).waitFor();
const seen = (page: Page) => page.getByTestId("seen").textContent();

test("the card of an assembly goes from waiting over its steps to its results", async () => {
  const page = await world.page("upload", { template: "tpl_archive" });
  const traffic = new Traffic(page);
  await choose(page, 24 * 2 ** 20);
  await card(page, "completed");
  expect(await seen(page)).toBe("waiting running completed");
  expect(await page.locator(".jobplane-card a").count()).toBe(3);
  await page.locator("output:not(:empty)").waitFor({ state: "attached" });
  await expectSilence(page, traffic);
});

test("the card of an assembly that fails says why", async () => {
  const page = await world.page("upload", { template: "tpl_records" });
  await choose(page, "no JSON");
  await card(page, "failed");
  expect(await page.getByRole("alert").textContent()).toMatch(/^Failed: .*line 1/);
});

test("the card of an assembly that a user cancels says so", async () => {
  const page = await world.page("upload", { template: "tpl_archive" });
  await choose(page, 48 * 2 ** 20);
  await card(page, "running");
  await page.getByRole("button", { name: "Cancel" }).click();
  await card(page, "cancelled");
  expect(await seen(page)).toBe("waiting running cancelled");
});

test("a job goes on when the token is renewed", async () => {
  const page = await world.page("job", {
    id: randomUUID(),
    ttl: "5",
    payload: JSON.stringify({ seconds: 8, steps: 8 }),
  });
  const before = world.tokens;
  await page.getByRole("button", { name: "Start" }).click();
  await ended(page);
  expect(await statesOf(page)).toBe("waiting running completed");
  expect(world.tokens - before).toBeGreaterThanOrEqual(1);
});

test("a job that ends while the browser is offline is shown when it is back", async () => {
  const id = randomUUID();
  const payload = JSON.stringify({ seconds: 4, steps: 4 });
  const context = await world.context();
  const page = await world.page("job", { id, payload }, context);
  const reaches = (status: RegExp) =>
    vi.waitFor(async () => expect(await world.statusOf(id)).toMatch(status), {
      timeout: 3_000_000,
      interval: 100,
    });
  await page.getByRole("button", { name: "Start" }).click();
  await reaches(/./);
  world.network.isDown = true;
  await context.setOffline(true);
  world.network.cut();
  await reaches(/COMPLETED/);
  expect(await page.locator("output").getAttribute("data-ended")).toBe("false");
  world.network.isDown = false;
  await context.setOffline(false);
  await ended(page);
  expect(await statesOf(page)).toMatch(/^waiting (running )?completed$/);
});

test("where sockets are blocked, a job is shown up to its end, and then nothing is sent", async () => {
  world.network.areSocketsBlocked = true;
  const payload = JSON.stringify({ seconds: 2, steps: 4 });
  const page = await world.page("job", { id: randomUUID(), payload });
  const traffic = new Traffic(page);
  const asked = page.waitForRequest(/\/jobs\/[^/]+\?wait=/);
  await page.getByRole("button", { name: "Start" }).click();
  await ended(page);
  await asked;
  expect(await statesOf(page)).toMatch(/^waiting (running )?completed$/);
  await expectSilence(page, traffic);
});

/** DROPS=1000 for more of them. */
const drops = Number(process.env.DROPS ?? 50);

test(`each job ends once over ${drops} random drops and reloads, and then nothing is sent`, async () => {
  const page = await world.page("ends");
  const traffic = new Traffic(page);
  type Ends = Record<string, { ends: number }>;
  const stored = async (): Promise<Ends> =>
    JSON.parse((await page.evaluate(() => localStorage.getItem("jobs"))) ?? "{}");
  const running = async (): Promise<number> =>
    Object.values(await stored()).filter(({ ends }) => !ends).length;
  for (let drop = 0; drop < drops; drop += 1) {
    for (let free = 5 - (await running()); free > 0; free -= 1) {
      const call = `start(${JSON.stringify(randomUUID())}, ${1 + Math.random() * 2})`;
      await page.evaluate(call);
    }
    await page.waitForTimeout(Math.random() * 300);
    if (Math.random() < 0.5) world.network.cut();
    else await page.reload();
  }
  await vi.waitFor(async () => expect(await running()).toBe(0), {
    timeout: 3_000_000,
    interval: 200,
  });
  const ends = Object.values(await stored()).map((job) => job.ends);
  console.info(`${ends.length} jobs`);
  expect(ends).toEqual(ends.map(() => 1));
  await expectSilence(page, traffic);
});
