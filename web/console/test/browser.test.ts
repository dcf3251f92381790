import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import axe from "axe-core";
import { type Browser, type CDPSession, chromium, type Page } from "playwright-core";
import { build } from "vite";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { chromiumPath, launchOptions } from "./browser.js";
import { attacked, full, jobRows, NOW, problem } from "./fixtures.js";
import { FixtureServer } from "./server.js";
import { states } from "./states.js";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const root = here("..");
const dist = here("../dist");
const pictures = here("pictures");
const chosen = here("../../../docs/pictures/console");

const sizes = { phone: [390, 844], desktop: [1280, 800], wide: [1680, 1050] } as const;
const themes = ["light", "dark"] as const;
// docs/console.md and the README show these.
const shown = new Set([
  "findings-desktop-light",
  "audit-desktop-light",
  "jobs-desktop-light",
  "jobs-phone-light",
  "bulk-preview-desktop-light",
  "job-lost-worker-desktop-light",
  "job-failed-desktop-dark",
  "workspaces-desktop-light",
  "execution-desktop-light",
  "files-desktop-light",
  "webhooks-desktop-light",
  "health-desktop-light",
  "health-phone-dark",
]);

const executablePath = chromiumPath();

describe.skipIf(!executablePath)("in Chromium", () => {
  let browser: Browser;
  let page: Page;
  let devtools: CDPSession;
  let server: FixtureServer;
  let url: string;
  const errors: string[] = [];

  beforeAll(async () => {
    // Vitest's own value would make a build for development.
    process.env.NODE_ENV = "production";
    await build({ root, logLevel: "warn" });
    server = new FixtureServer(full(), dist);
    url = await server.start();
    browser = await chromium.launch({
      ...launchOptions,
      ...(executablePath ? { executablePath } : {}),
    });
    for (const folder of [pictures, chosen]) mkdirSync(folder, { recursive: true });
  });

  afterAll(async () => {
    await browser?.close();
    await server?.stop();
  });

  beforeEach(async () => {
    await page?.context().close();
    errors.length = 0;
    server.posted = [];
    server.asked = [];
    const context = await browser.newContext({
      viewport: { width: 1280, height: 800 },
      timezoneId: "UTC",
      locale: "en-GB",
      reducedMotion: "reduce",
    });
    page = await context.newPage();
    page.setDefaultTimeout(20_000);
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error" && !message.text().startsWith("Failed to load resource"))
        errors.push(message.text());
    });
    devtools = await context.newCDPSession(page);
    await page.clock.setFixedTime(NOW * 1000);
  });

  async function open(address: string, scenario = full()): Promise<void> {
    server.scenario = scenario;
    await page.goto(`${url}/${address}`);
  }

  /** WebP is small, and JPEG is made in a tenth of the time. */
  async function picture(format: "webp" | "jpeg"): Promise<Buffer> {
    const { data } = await devtools.send("Page.captureScreenshot", { format, quality: 66 });
    return Buffer.from(data, "base64");
  }

  /** The elements that make the page wider than the window, two seconds after a change of size. */
  async function tooWide(): Promise<string[]> {
    const until = Date.now() + 2_000;
    let found = await tooWideNow();
    // The layout follows the size in one of the next frames.
    while (found.length && Date.now() < until) found = await tooWideNow();
    return found;
  }

  async function tooWideNow(): Promise<string[]> {
    return page.evaluate(() => {
      const { clientWidth, scrollWidth } = document.documentElement;
      if (scrollWidth <= clientWidth) return [];
      return [...document.querySelectorAll("main, main *")]
        .filter((one) => one.getBoundingClientRect().right > clientWidth)
        .map((one) => `${scrollWidth - clientWidth} pixels too wide: ${one.outerHTML.slice(0, 80)}`)
        .slice(-5);
    });
  }

  async function violations(): Promise<string[]> {
    const found = await page.evaluate(async () => {
      const { axe } = window as unknown as { axe: typeof import("axe-core") };
      const { violations } = await axe.run(document, { resultTypes: ["violations"] });
      return violations.flatMap(({ id, nodes }) =>
        nodes.map((node) => `${id}: ${node.target.join(" ")}: ${node.failureSummary ?? ""}`),
      );
    });
    return found;
  }

  it.each(states)("shows $name at every size, in light and dark", async (state) => {
    await open(state.address, state.scenario?.());
    await state.act?.(page);
    if (state.name === "jobs-loading")
      await page.getByRole("status", { name: "Loading" }).first().waitFor();
    else await page.getByText(state.ready).first().waitFor();
    await page.addScriptTag({ content: axe.source });
    const problems: string[] = [];
    for (const theme of themes)
      for (const [size, [width, height]] of Object.entries(sizes)) {
        await page.emulateMedia({ colorScheme: theme });
        await page.setViewportSize({ width, height });
        const name = `${state.name}-${size}-${theme}`;
        if (process.env.PICTURES) {
          writeFileSync(`${pictures}/${name}.jpg`, await picture("jpeg"));
          if (shown.has(name)) writeFileSync(`${chosen}/${name}.webp`, await picture("webp"));
        }
        problems.push(...(await tooWide()).map((one) => `${name}: ${one}`));
        // Both themes and both layouts: colours don't depend on the size.
        const isChecked = theme === "light" ? size === "desktop" : size === "phone";
        if (isChecked) problems.push(...(await violations()).map((one) => `${name}: ${one}`));
      }
    expect(problems).toEqual([]);
    expect(errors).toEqual([]);
  });

  it("stays responsive with 10,000 jobs", async () => {
    const jobs = jobRows(10_000);
    const scenario = full();
    scenario.gets.jobs = (query) => {
      const from = Number(query.get("next") ?? 0);
      const until = from + Number(query.get("limit"));
      return {
        jobs: jobs.slice(from, until),
        next: until < jobs.length ? String(until) : null,
        is_cut: false,
        access: "all-tenants",
        rows_read: until - from,
        now: new Date(NOW * 1000).toISOString(),
      };
    };
    await browser.startTracing(page, {
      categories: ["toplevel", "disabled-by-default-devtools.timeline"],
    });
    await open("#/jobs", scenario);
    await page.getByText("200 jobs so far").waitFor();
    // All pages are read as the end comes into sight.
    while (!(await page.getByText("10,000 jobs, all of them").isVisible()))
      await page.evaluate(
        () =>
          new Promise((resolve) => {
            scrollTo(0, document.documentElement.scrollHeight);
            setTimeout(resolve, 30);
          }),
      );
    for (let place = 0; place <= 20; place++)
      await page.evaluate(
        (share) =>
          new Promise((resolve) => {
            scrollTo(0, document.documentElement.scrollHeight * share);
            requestAnimationFrame(() => requestAnimationFrame(resolve));
          }),
        place / 20,
      );
    const drawn = await page.locator("tr[data-row]").count();
    const trace = JSON.parse(String(await browser.stopTracing())) as {
      traceEvents: { name: string; tdur?: number }[];
    };
    // In time of the processor, so that a loaded machine makes no task longer.
    const tasks = trace.traceEvents
      .filter(({ name }) => name.endsWith("RunTask"))
      .map(({ tdur = 0 }) => tdur / 1000);
    const longest = Math.max(...tasks);
    expect(tasks.length).toBeGreaterThan(100);
    expect(drawn).toBeLessThan(80);
    console.info(`longest task with 10,000 jobs: ${longest} ms`);
    expect(longest).toBeLessThanOrEqual(200);
  });

  it("is used with the keyboard alone", async () => {
    await open("#/jobs");
    await page.getByText("all of them").waitFor();
    const focused = () =>
      page.evaluate(() => document.activeElement?.closest("[data-row]")?.getAttribute("data-row"));
    await page.locator("[data-row='0'] a").focus();
    for (let step = 0; step < 60; step++) await page.keyboard.press("ArrowDown");
    await expect.poll(focused).toBe("60");
    await page.keyboard.press("End");
    await expect.poll(focused).toBe("119");
    await page.keyboard.press("Home");
    await expect.poll(focused).toBe("0");
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: "Cancel…" }).waitFor();
    await page.getByRole("button", { name: "Cancel…" }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await expect.poll(() => page.getByRole("dialog").count()).toBe(0);
    expect(server.posted).toEqual([]);
  });

  it("changes nothing before the number of jobs is typed and a reason given", async () => {
    await open("#/jobs?action=import_catalogue");
    await page.getByRole("button", { name: "Cancel by filter…" }).click();
    const dialog = page.getByRole("dialog");
    const act = dialog.getByRole("button", { name: "Cancel 10,000 jobs" });
    await expect.poll(() => act.isDisabled()).toBe(true);
    await dialog.getByLabel("Type 10000 to confirm").fill("1000");
    await dialog.getByLabel("Reason").fill("broken catalogue");
    expect(await act.isDisabled()).toBe(true);
    await dialog.getByLabel("Type 10000 to confirm").fill("10000");
    expect(server.posted.map(({ path }) => path)).toEqual(["bulk/preview"]);
    await act.click();
    await page.getByText("6,288 of 10,000 jobs done").waitFor();
    expect(server.posted).toEqual([
      {
        path: "bulk/preview",
        body: {
          action: "cancel",
          filter: expect.objectContaining({
            action: ["import_catalogue"],
            status: ["SCHEDULED", "PENDING", "PROCESSING", "RETRYING"],
          }),
        },
      },
      { path: "bulk/run", body: { id: "bulk-20261129-021201-4f7c", reason: "broken catalogue" } },
    ]);
  });

  it("resets files after a dry run that was shown", async () => {
    await open("#/files");
    await page.getByRole("button", { name: "Reset stuck files…" }).click();
    await page.getByText("16 files would be reset").waitFor();
    expect(server.posted.map(({ body }) => body)).toEqual([
      { dry_run: true, hours: 2, statuses: ["processing", "manifested"] },
    ]);
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Reason").fill("the run was killed");
    await dialog.getByLabel("Type 16 to confirm").fill("16");
    await dialog.getByRole("button", { name: "Reset 16 files" }).click();
    await page.getByText("16 files reset, 1 skipped.").waitFor();
    expect(server.posted.at(-1)?.body).toMatchObject({
      dry_run: false,
      reason: "the run was killed",
    });
  });

  it("can't change anything when it is read-only", async () => {
    const readOnly = states.find(({ name }) => name === "jobs-read-only");
    for (const address of [
      "#/jobs",
      "#/job/acme/ada/r",
      "#/workspaces",
      "#/files",
      "#/files/2026-11-28/f",
      "#/webhooks",
    ]) {
      await open(address, readOnly?.scenario?.());
      await page.getByText("Read-only").waitFor();
      const buttons = page.getByRole("button", {
        name: /…$|^(Release|Interrupt|Send again)/,
      });
      await expect.poll(() => buttons.count()).toBeGreaterThan(0);
      for (const button of await buttons.all()) expect(await button.isDisabled()).toBe(true);
    }
  });

  it("keeps a filter in the address, and the address keeps the filter", async () => {
    await open("#/jobs");
    await page.getByRole("button", { name: "Failed", exact: true }).click();
    await page.getByLabel("Tenant", { exact: true }).fill("acme");
    await expect
      .poll(() => page.evaluate(() => location.hash))
      .toBe("#/jobs?status=FAILED&tenant=acme");
    await page.reload();
    expect(
      await page.getByRole("button", { name: "Failed", exact: true }).getAttribute("aria-pressed"),
    ).toBe("true");
    expect(await page.getByLabel("Tenant", { exact: true }).inputValue()).toBe("acme");
    await expect
      .poll(() => server.asked.some((one) => one.includes("status=FAILED&tenant=acme")))
      .toBe(true);
  });

  it("keeps what it has shown when the server stops, and says since when", async () => {
    await open("#/jobs");
    await page.getByText("all of them").waitFor();
    server.scenario = { ...full(), gets: { ...full().gets, jobs: () => "gone" } };
    await page.getByText(/^Not refreshed for/).waitFor();
    expect(await page.locator("[data-row]").count()).toBeGreaterThan(10);
  });

  it.each([
    "#/jobs",
    "#/job/acme/ada/r",
    "#/job/%/%2F/%",
    "#/bulk",
    "#/bulk/b",
    "#/audit",
    "#/workspaces",
    "#/execution/e",
    "#/files",
    "#/files?show=list",
    "#/files?show=date&date=2026-11-28",
    "#/files/2026-11-28/f",
    "#/webhooks",
    "#/health",
  ])("shows hostile texts as texts at %s", async (address) => {
    await open(address, attacked());
    await expect.poll(() => page.getByRole("status", { name: "Loading" }).count()).toBe(0);
    await expect.poll(() => page.getByRole("main").textContent()).toMatch(/onerror=|exe\.txt|xxx/);
    const found = await page.evaluate(() => ({
      attacked: "attacked" in window,
      elements: document.querySelectorAll("img, main script").length,
      drawn: !document.body.textContent.includes("could not show what was read"),
    }));
    expect(found).toEqual({ attacked: false, elements: 0, drawn: true });
    for (const [width, height] of Object.values(sizes)) {
      await page.setViewportSize({ width, height });
      expect(await tooWide()).toEqual([]);
    }
    expect(errors).toEqual([]);
  });

  it("shows a text that runs from the right without moving its neighbours", async () => {
    const scenario = full();
    const name = { tenant: "\u0645\u0647\u0645\u0629", user: "\u0639\u0645\u064a\u0644" };
    const [job] = jobRows(1);
    if (!job) throw new Error("no job");
    const listed = { jobs: [{ ...job, ...name }], next: null, is_cut: false, now: job.created_at };
    scenario.gets.jobs = () => ({ ...listed, access: "all-tenants", rows_read: 1 });
    await open("#/jobs", scenario);
    const left = (text: string) =>
      page
        .locator("td")
        .getByText(text)
        .last()
        .evaluate((element, part) => {
          const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
          const range = document.createRange();
          while (walker.nextNode())
            if (walker.currentNode.textContent?.includes(part))
              range.selectNode(walker.currentNode);
          return range.getBoundingClientRect().left;
        }, text);
    expect(await left(name.tenant)).toBeLessThan(await left(name.user));
  });

  it("shows a page that can't be drawn as an error, and the others", async () => {
    const scenario = full();
    scenario.gets.audit = () => ({ entries: 7, next: null }) as never;
    await open("#/audit", scenario);
    await page.getByText("The page could not show what was read").waitFor();
    await page.getByRole("link", { name: /^Files/ }).click();
    await page.getByText("By status").waitFor();
  });

  it("says once that its session is over", async () => {
    await open("#/jobs");
    await page.getByText("all of them").waitFor();
    const over = problem("UNAUTHORIZED", "no session; open the URL that `jobplane console` prints");
    server.scenario = { ...full(), gets: { ...full().gets, jobs: () => over } };
    await page.getByText("no session").waitFor();
    expect(await page.getByRole("alert").count()).toBe(1);
    expect(await page.locator("[data-row]").count()).toBe(0);
  });

  it("shows the whole texts of the audit", async () => {
    await open("#/audit");
    for (const [width, height] of Object.values(sizes)) {
      await page.setViewportSize({ width, height });
      const cells = page.locator("[data-row], [data-row] :is(td, .line > span)");
      await expect.poll(() => cells.count()).toBeGreaterThan(20);
      const cut = () =>
        cells.evaluateAll((all) =>
          all
            .filter(
              (one) => one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight,
            )
            .map((one) => one.textContent),
        );
      await expect.poll(cut).toEqual([]);
    }
  });

  it("is small", () => {
    const files = readdirSync(`${dist}/assets`);
    const size = (end: string) =>
      files
        .filter((name) => name.endsWith(end))
        .reduce((sum, name) => sum + gzipSync(readFileSync(`${dist}/assets/${name}`)).length, 0);
    console.info(`gzipped: ${size(".js")} bytes of script, ${size(".css")} of styles`);
    expect(size(".js")).toBeLessThan(110_000);
    expect(size(".css")).toBeLessThan(8_000);
  });
});
