import { afterAll, beforeAll, expect, test } from "vitest";
import { Console, jobplane } from "./console.js";

/** A file for the picture: DEMO=/tmp/demo.png. It takes two minutes, and runs only when asked. */
const picture = process.env.DEMO;
const stage = `demo-${process.pid}`;
let there: Console;

beforeAll(async () => {
  if (!picture) return;
  await jobplane("demo", "--keep", "--stage", stage, "--size", "1");
  there = await Console.open(stage);
});

afterAll(async () => {
  if (!picture) return;
  await there?.close();
  await jobplane("down", "--stage", stage);
});

test.runIf(picture)("the first page tells what the demo ran, and what is wrong", async () => {
  const { page } = there;
  const jobs = page.getByRole("region", { name: "List of jobs" });
  await jobs.getByText(/\d jobs, all of them/).waitFor();
  const wrong = page.getByRole("region", { name: /needs? a look/ });
  await wrong.waitFor();
  await page.screenshot({ path: String(picture), fullPage: true });
  const rows = await jobs.getByRole("row").allInnerTexts();
  for (const action of ["process_assembly", "delay", "instruct"])
    expect(rows.some((row) => row.includes("Completed") && row.includes(action))).toBe(true);
  for (const end of ["Cancelled", "Failed"])
    expect(rows.some((row) => row.includes(end))).toBe(true);
  expect(await wrong.innerText()).toMatch(/files and locks are stuck, lost or contradictory/);
  await page.getByRole("link", { name: "cancelled-by-demo" }).click();
  await page.getByText("Cancelled", { exact: true }).first().waitFor();
});
