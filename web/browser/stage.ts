import { execFile, spawn } from "node:child_process";
import { mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import type { TestProject } from "vitest/node";

/** A local stage that is up. */
export interface Stage {
  name: string;
  socketUrl: string;
  api: string;
  /** Signs tokens. */
  secret: string;
}

declare module "vitest" {
  export interface ProvidedContext {
    stage: Stage;
  }
}

export const root = resolve(import.meta.dirname, "../..");
const run = promisify(execFile);

/** Starts a stage for this run, or uses the one that JOBPLANE_TEST_STAGE names. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const chosen = process.env.JOBPLANE_TEST_STAGE;
  const name = chosen ?? `web-${process.pid}`;
  const lifeline = await heldFile();
  const env = { ...process.env, JOBPLANE_LIFELINE: lifeline.path };
  const jobplane = (...words: string[]) =>
    run("uv", ["run", "--no-sync", "jobplane", ...words], { cwd: root, env, maxBuffer: 2 ** 26 });
  const { stdout } = await jobplane("up", "--stage", name, "--json");
  const up = JSON.parse(stdout) as { websocket_url: string; http_url: string };
  const state = await readFile(join(root, ".jobplane", name, "state.json"), "utf8");
  const { jwt_secret: secret } = JSON.parse(state) as { jwt_secret: string };
  project.provide("stage", { name, socketUrl: up.websocket_url, api: up.http_url, secret });
  return async () => {
    if (!chosen) await jobplane("down", "--stage", name);
    lifeline.release();
  };
}

/**
 * A file that is locked until this process ends, also when it is killed: the stage's emulator ends
 * with it.
 */
async function heldFile(): Promise<{ path: string; release: () => void }> {
  const path = join(await mkdtemp(join(tmpdir(), "jobplane-web-")), "lifeline");
  const holder = spawn("flock", [path, "sh", "-c", "echo held; cat"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  await new Promise((resolve, reject) => {
    holder.stdout.once("data", resolve);
    holder.once("error", reject);
  });
  return { path, release: () => holder.stdin.end() };
}
