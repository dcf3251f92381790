// TypeScript types of a JSON Schema's definitions: the schema on stdin, the types on stdout.

import { readFileSync } from "node:fs";
import { compile } from "json-schema-to-typescript";

const schema = JSON.parse(readFileSync(0, "utf8"));
const types = await compile(schema, schema.title, {
  additionalProperties: false,
  bannerComment: `// Made by \`jobplane schema\` from ${process.argv[2]}; not to be edited.`,
  ignoreMinAndMaxItems: true,
  style: { printWidth: 100 },
  unreachableDefinitions: true,
});

// The generator says of each type where it found it.
const origin = /This interface was referenced by `[^`]*`'s JSON-Schema\n \* via the `\w+` ".*"\./g;
const blank = /\/\*\*\n \* ORIGIN\n \*\/\n|\n \*\n \* ORIGIN/g;
process.stdout.write(types.replace(origin, "ORIGIN").replace(blank, ""));
