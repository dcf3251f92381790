import { defineConfig } from "vitest/config";

// The tests share one stage and one browser, and wait for conditions: these limits only end a run
// in which a condition never comes true.
export default defineConfig({
  test: {
    globalSetup: "./stage.ts",
    fileParallelism: false,
    testTimeout: 3_600_000,
    hookTimeout: 3_600_000,
  },
});
