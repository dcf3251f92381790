import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { breakStage, Console } from "./console.js";

/** It takes minutes, and runs only when JOBS says with how many: JOBS=10000. */
const number = Number(process.env.JOBS ?? 0);
const words = number.toLocaleString("en");
const { name: stage } = inject("stage");
const tenant = `bulk-${randomUUID().slice(0, 8)}`;
let there: Console;

beforeAll(async () => {
  if (!number) return;
  await breakStage("jobs", stage, String(number), tenant);
  there = await Console.open(stage);
});

afterAll(() => there?.close());

/** Tasks of the page above 50 ms, in milliseconds, from now on. */
async function longTasks(): Promise<() => Promise<number[]>> {
  await there.page.evaluate(() => {
    const found: number[] = [];
    Object.assign(window, { found });
    const note = (list: PerformanceObserverEntryList) =>
      found.push(...list.getEntries().map(({ duration }) => duration));
    new PerformanceObserver(note).observe({ type: "longtask", buffered: true });
  });
  return () => there.page.evaluate(() => (window as unknown as { found: number[] }).found);
}

test.runIf(number)(
  `${words} jobs are cancelled by a filter, each once, while functions are killed`,
  async () => {
    const { page } = there;
    const tasks = await longTasks();
    const began = Date.now();
    await page.getByLabel("Tenant", { exact: true }).fill(tenant);
    await page
      .getByRole("region", { name: "List of jobs" })
      .getByText(/\d jobs/)
      .waitFor();
    await page.getByRole("button", { name: "Cancel by filter…" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("heading", { name: `Cancel ${words} jobs` }).waitFor();
    await dialog.getByLabel("Reason").fill("a test of the console");
    await dialog.getByLabel(/to confirm/).fill(String(number));
    await dialog.getByRole("button", { name: `Cancel ${words} jobs` }).click();
    const done = page.getByText(`${words} of ${words} jobs done`);
    const isOver = page.getByText("Done", { exact: true });
    await page.getByText(/jobs done$/).waitFor();
    let kills = 0;
    const kill = async (name: string) => {
      await breakStage("kill", stage, name);
      kills += 1;
    };
    await kill("processor");
    while (!(await isOver.isVisible())) {
      if (kills < 5) await kill("router");
      const resume = page.getByRole("button", { name: "Resume" });
      if (await resume.isVisible()) await resume.click();
      await page.waitForTimeout(2_000);
    }
    await done.waitFor();
    const seconds = (Date.now() - began) / 1_000;
    const longest = Math.max(0, ...(await tasks()));
    console.info(
      `${words} jobs cancelled in ${seconds} s over ${kills} kills; longest task: ${longest} ms`,
    );
    const outcomes = await page.getByRole("region", { name: "Outcomes" }).innerText();
    expect(outcomes.replace(/\s+/g, " ")).toContain(`${words} Cancelled`);
    expect(outcomes).not.toMatch(/Failed|Unchanged|Not yet/);
    const counted = await breakStage<{ audit: object; rows: object; repeated: number }>(
      "agree",
      stage,
      tenant,
    );
    expect(counted).toEqual({
      audit: { cancelled: number },
      rows: { CANCELLED: number },
      repeated: 0,
    });
    // In time of the clock, on a machine that also runs the stage: the bound is generous. The same
    // with 10,000 rows in time of the processor is in web/console/test/browser.test.ts.
    expect(longest).toBeLessThanOrEqual(1_000);
  },
);
