/** A small part of Markdown: what the runbook's sections have. */
export type Block =
  | { kind: "text"; text: string }
  | { kind: "code"; text: string }
  | { kind: "list"; items: string[] }
  | { kind: "table"; head: string[]; rows: string[][] };

export type Span =
  | { kind: "text" | "code" | "strong"; text: string }
  | { kind: "link"; text: string; to: string };

const cells = (line: string) =>
  line
    .replace(/^\s*\||\|\s*$/g, "")
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim().replaceAll("\\|", "|"));

export function blocksOf(text: string): Block[] {
  const lines = text.replaceAll(/<!--[\s\S]*?-->\n?/g, "").split("\n");
  const blocks: Block[] = [];
  let at = 0;
  const take = (fits: (line: string) => boolean): string[] => {
    const taken: string[] = [];
    for (let line = lines[at]; line !== undefined && fits(line); line = lines[++at])
      taken.push(line);
    return taken;
  };
  while (at < lines.length) {
    const line = lines[at] ?? "";
    if (line.startsWith("```")) {
      at++;
      blocks.push({ kind: "code", text: take((one) => !one.startsWith("```")).join("\n") });
      at++;
    } else if (line.startsWith("|")) {
      const [head = "", , ...rows] = take((one) => one.startsWith("|"));
      blocks.push({ kind: "table", head: cells(head), rows: rows.map(cells) });
    } else if (line.startsWith("- ")) {
      const items: string[] = [];
      for (const one of take((each) => each.startsWith("- ") || each.startsWith("  ")))
        if (one.startsWith("- ")) items.push(one.slice(2));
        else items.push(`${items.pop() ?? ""} ${one.trim()}`);
      blocks.push({ kind: "list", items });
    } else if (line.trim() === "" || line.startsWith("#")) at++;
    else {
      const taken = take((one) => one.trim() !== "" && !/^(```|\||- |#)/.test(one));
      blocks.push({ kind: "text", text: taken.join(" ") });
    }
  }
  return blocks;
}

export function spansOf(text: string): Span[] {
  const spans: Span[] = [];
  let rest = 0;
  for (const match of text.matchAll(/`([^`]+)`|\*\*([^*]+)\*\*|\[([^\]]+)\]\(([^)]+)\)/g)) {
    if (match.index > rest) spans.push({ kind: "text", text: text.slice(rest, match.index) });
    const [whole, code, strong, label, to] = match;
    if (code !== undefined) spans.push({ kind: "code", text: code });
    else if (strong !== undefined) spans.push({ kind: "strong", text: strong });
    else spans.push({ kind: "link", text: (label ?? "").replaceAll("`", ""), to: to ?? "" });
    rest = match.index + whole.length;
  }
  if (rest < text.length) spans.push({ kind: "text", text: text.slice(rest) });
  return spans;
}
