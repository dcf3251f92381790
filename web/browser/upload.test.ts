import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, inject, test, vi } from "vitest";
import { World } from "./world.js";

/** UPLOAD_MB=300 for a larger file. */
const megabytes = Number(process.env.UPLOAD_MB ?? 40);
const count = Math.ceil((megabytes * 10 ** 6) / (8 * 2 ** 20));

let world: World;

beforeAll(async () => {
  world = await World.start(inject("stage"));
});

afterEach(() => world.closePages());

afterAll(() => world.stop());

/** The numbers of the parts that S3 has accepted from a page. */
function partsOf(page: Page): number[] {
  const parts: number[] = [];
  page.on("response", (answer) => {
    const number = partOf(answer.url());
    if (answer.request().method() === "PUT" && answer.ok() && number) parts.push(number);
  });
  return parts;
}

function partOf(url: string): number {
  return Number(new URL(url).searchParams.get("partNumber"));
}

async function outcomeOf(page: Page): Promise<string> {
  await page.locator("output:not(:empty)").waitFor();
  return (await page.locator("output").textContent()) ?? "";
}

test(`a reload in an upload of ${megabytes} MB loses only the part that was under way`, async () => {
  const { path, sha256 } = await world.file("film.mp4", megabytes * 10 ** 6);
  const small = await world.file("small.txt", 1_000);
  const page = await world.page("upload", { template: "tpl_fingerprint" });
  const parts = partsOf(page);
  const stuck = Math.ceil(count / 2);
  const stop = (url: URL): boolean => partOf(url.href) === stuck;
  await page.route(stop, () => {}); // Never sent on, and never answered.
  await page.locator("input").setInputFiles([path, small.path]);
  await vi.waitFor(() => expect(parts).toHaveLength(count - 1), { timeout: 3_000_000 });
  await page.unroute(stop);
  parts.length = 0;
  await page.reload();
  await page.locator("input").setInputFiles([path, small.path]);
  const document = JSON.parse(await outcomeOf(page));
  expect(parts).toEqual([stuck]);
  const hashes = document.results.hashed.map((each: { meta: object }) => each.meta);
  expect(hashes).toMatchObject([{ sha256 }, { sha256: small.sha256 }]);
  const bar = page.getByLabel("film.mp4");
  expect(await bar.getAttribute("value")).toBe(await bar.getAttribute("max"));
});
