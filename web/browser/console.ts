import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import type { Browser, Page } from "playwright-core";
import { root } from "./stage.js";
import { chromiumHere } from "./world.js";

const run = promisify(execFile);

/** A program of this repository; what it printed. */
async function printed(...words: string[]): Promise<string> {
  const { stdout } = await run("uv", ["run", "--no-sync", ...words], { cwd: root });
  return stdout;
}

export const jobplane = (...words: string[]) => printed("jobplane", ...words);

/** What tests/e2e/broken_stage.py does with a stage, and says. */
export async function breakStage<Said>(...words: string[]): Promise<Said> {
  return JSON.parse(await printed("python", "-m", "tests.e2e.broken_stage", ...words)) as Said;
}

/** `jobplane console` of a stage, and a browser in it. */
export class Console {
  private constructor(
    private readonly server: ChildProcess,
    private readonly browser: Browser,
    readonly page: Page,
  ) {}

  static async open(stage: string): Promise<Console> {
    const words = ["run", "--no-sync", "jobplane", "console", "--stage", stage];
    const server = spawn("uv", words, {
      cwd: root,
      env: { ...process.env, PYTHONUNBUFFERED: "1" },
      stdio: ["ignore", "pipe", "inherit"],
    });
    const lines = createInterface({ input: server.stdout });
    const url = await new Promise<string>((resolve, reject) => {
      lines.on("line", (line) => resolve(line.split(" ").at(-1) ?? ""));
      server.once("exit", (code) => reject(new Error(`jobplane console ended with ${code}`)));
    });
    const browser = await chromiumHere();
    const viewport = { width: 1280, height: 800 };
    const context = await browser.newContext({ viewport, reducedMotion: "reduce" });
    const page = await context.newPage();
    // It only ends a run in which a condition never comes true, also on a busy machine.
    page.setDefaultTimeout(600_000);
    await page.goto(url);
    return new Console(server, browser, page);
  }

  async close(): Promise<void> {
    await this.browser.close();
    const ended = new Promise((resolve) => this.server.once("exit", resolve));
    this.server.kill("SIGINT");
    await ended;
  }
}
