import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";
import type { Reply, Scenario } from "./fixtures.js";

const types: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
};
const codes: Record<string, number> = {
  UNAUTHORIZED: 401,
  NOT_FOUND: 404,
  CONFLICT: 409,
  AWS_ERROR: 502,
};

/** Serves the built page, and the answers of a scenario; `posted` is what was asked to change. */
export class FixtureServer {
  posted: { path: string; body: unknown }[] = [];
  asked: string[] = [];
  #server: Server;

  constructor(
    public scenario: Scenario,
    folder: string,
  ) {
    this.#server = createServer(async (request, response) => {
      const url = new URL(request.url ?? "/", "http://console");
      const send = (status: number, body: string | Buffer, type: string) =>
        response.writeHead(status, { "content-type": type, "cache-control": "no-store" }).end(body);
      if (!url.pathname.startsWith("/api/")) {
        const file = normalize(url.pathname === "/" ? "/index.html" : url.pathname);
        await readFile(join(folder, file)).then(
          (body) => send(200, body, types[extname(file)] ?? "application/octet-stream"),
          () => send(404, "no such file", "text/plain"),
        );
        return;
      }
      const path = url.pathname.slice("/api/".length);
      let reply: Reply<unknown>;
      if (request.method === "POST") {
        let text = "";
        for await (const chunk of request) text += chunk;
        const body: unknown = JSON.parse(text);
        this.posted.push({ path, body });
        const posts = this.scenario.posts as Record<string, (asks: unknown) => Reply<unknown>>;
        reply = posts[path]?.(body) ?? "gone";
      } else {
        this.asked.push(path + url.search);
        const gets = this.scenario.gets as Record<
          string,
          (query: URLSearchParams) => Reply<unknown>
        >;
        reply = gets[path]?.(url.searchParams) ?? "gone";
      }
      if (reply === "never") return;
      if (reply === "gone") {
        response.destroy();
        return;
      }
      const error = (reply as { error?: { code?: string } | null }).error;
      const status =
        error?.code && Object.keys(reply as object).length === 1 ? (codes[error.code] ?? 500) : 200;
      send(status, JSON.stringify(reply), "application/json");
    });
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
