// Writes the examples of a package's README into test/readme, where their types are checked.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";

rmSync("test/readme", { recursive: true, force: true });
mkdirSync("test/readme");
const text = readFileSync("README.md", "utf8");
for (const [index, [, kind, code]] of [...text.matchAll(/^```(tsx?)\n(.*?)^```/gms)].entries()) {
  writeFileSync(`test/readme/${index + 1}.${kind}`, `${code}export {};\n`);
}
