import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { World } from "./world.js";

const web = resolve(import.meta.dirname, "..");
const run = promisify(execFile);
let folder: string;
/** The packages as npm would publish them. */
let packages: string[];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "jobplane-packed-"));
  packages = await Promise.all(
    ["client", "react"].map(async (name) => {
      const words = ["pack", "--json", "--pack-destination", folder];
      const { stdout } = await run("npm", words, { cwd: join(web, name) });
      const [{ filename }] = JSON.parse(stdout) as [{ filename: string }];
      return join(folder, filename);
    }),
  );
});

afterAll(() => rm(folder, { recursive: true }));

/** The versions that this workspace has of packages. */
async function versioned(names: string[]): Promise<string[]> {
  return Promise.all(
    names.map(async (name) => {
      const text = await readFile(join(web, "node_modules", name, "package.json"), "utf8");
      return `${name}@${(JSON.parse(text) as { version: string }).version}`;
    }),
  );
}

/** Installs the packages, and others, into an application. */
async function install(app: string, others: string[]): Promise<void> {
  const words = ["install", "--no-audit", "--no-fund", "--prefer-offline", "--silent"];
  await run("npm", [...words, ...packages, ...others], { cwd: app });
}

test("the packed packages install, typecheck, build and run in an empty Vite app", async () => {
  const app = join(folder, "app");
  await cp(join(import.meta.dirname, "page"), app, { recursive: true });
  const compilerOptions = {
    ...{ target: "ES2022", module: "ESNext", moduleResolution: "Bundler", jsx: "react-jsx" },
    ...{ strict: true, skipLibCheck: false, noEmit: true, types: ["vite/client"] },
    lib: ["ES2022", "DOM", "DOM.Iterable"],
  };
  await writeFile(join(app, "package.json"), JSON.stringify({ private: true, type: "module" }));
  await writeFile(join(app, "tsconfig.json"), JSON.stringify({ compilerOptions }));
  const others = ["react", "react-dom", "@types/react", "@types/react-dom", "vite", "typescript"];
  await install(app, await versioned(others));
  await run("npx", ["tsc"], { cwd: app });
  await run("npx", ["vite", "build", "--logLevel", "warn"], { cwd: app });
  const world = await World.start(inject("stage"), join(app, "dist"));
  const payload = JSON.stringify({ seconds: 0.2, steps: 2 });
  const page = await world.page("job", { id: randomUUID(), payload });
  await page.getByRole("button", { name: "Start" }).click();
  await page.locator('.jobplane-job[data-state="completed"]').waitFor();
  expect(await page.locator("progress").getAttribute("value")).toBe("100");
  await world.stop();
});

test("the Next.js example typechecks and builds with the packed packages", async () => {
  const app = join(folder, "next");
  await cp(join(web, "examples/next"), app, { recursive: true });
  await install(app, []);
  const env = { ...process.env, NEXT_TELEMETRY_DISABLED: "1", NODE_ENV: "production" as const };
  const { stdout } = await run("npx", ["next", "build"], { cwd: app, env });
  expect(stdout).toContain("/api/jobplane/status/[assemblyId]");
});
