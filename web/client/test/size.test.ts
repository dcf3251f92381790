import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build, type Rollup } from "vite";
import { expect, test } from "vitest";

test("a page loads at most 7 KB, minified and gzipped, and 6 KB more when it needs them", async () => {
  const input = join(import.meta.dirname, "../src/index.ts");
  const { output } = (await build({
    logLevel: "warn",
    build: {
      write: false,
      target: "es2022",
      modulePreload: false,
      rollupOptions: { input, preserveEntrySignatures: "strict" },
    },
  })) as Rollup.RollupOutput;
  const chunks = output.filter((each) => each.type === "chunk");
  const isLater = ({ isDynamicEntry }: Rollup.OutputChunk): boolean => isDynamicEntry;
  const bytes = (all: Rollup.OutputChunk[]): number =>
    all.reduce((sum, { code }) => sum + gzipSync(code, { level: 9 }).length, 0);
  const first = bytes(chunks.filter((chunk) => !isLater(chunk)));
  const later = chunks.filter(isLater).map((chunk) => bytes([chunk]));
  console.info(`${first} bytes at first, ${later} when they are needed`);
  expect(first).toBeLessThan(7 * 1024);
  expect(Math.max(...later)).toBeLessThan(6 * 1024);
});
