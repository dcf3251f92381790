import { execFileSync } from "node:child_process";

/** Where Chromium is, or undefined: then the browser tests are skipped, unless CI runs them. */
export function chromiumPath(): string | undefined {
  const given = process.env.CHROMIUM;
  for (const name of given ? [given] : ["chromium", "chromium-browser", "google-chrome"]) {
    try {
      return execFileSync("sh", ["-c", `command -v "$0"`, name], { encoding: "utf8" }).trim();
    } catch {
      // Not installed under this name.
    }
  }
  if (process.env.CI)
    throw new Error(
      "Chromium is missing: install it (apt-get install chromium), or set CHROMIUM to its path",
    );
  console.warn(
    "Chromium is missing, so the browser tests are skipped: install it (apt-get install chromium), or set CHROMIUM to its path",
  );
  return undefined;
}

export const launchOptions = {
  args: [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-background-networking",
    "--hide-scrollbars",
  ],
};
