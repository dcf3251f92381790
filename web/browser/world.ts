import { execFileSync } from "node:child_process";
import { createHash, createHmac, randomBytes } from "node:crypto";
import { existsSync, mkdtempSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { build } from "vite";
import type { Stage } from "./stage.js";

/** A Chromium that is installed. */
export function chromiumHere(): Promise<Browser> {
  return chromium.launch({
    executablePath: installed(),
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
  });
}

/** The name of a Chromium that is installed. */
function installed(): string {
  const names = [process.env.CHROMIUM, "chromium", "google-chrome", "chromium-browser"];
  for (const name of names) {
    if (!name) continue;
    try {
      const path = existsSync(name) ? name : execFileSync("which", [name], { encoding: "utf8" });
      return path.trim();
    } catch {
      // The next one.
    }
  }
  throw new Error("no browser found: apt-get install chromium, or set CHROMIUM to its path");
}

/** The way from the browser to the stage: it can be cut, and be down. */
export class Network {
  isDown = false;
  areSocketsBlocked = false;
  private readonly sockets = new Set<Socket>();
  private readonly server = createTcpServer((near) => {
    if (this.isDown) {
      near.destroy();
      return;
    }
    near.once("data", (head) => {
      if (this.areSocketsBlocked && /upgrade: websocket/i.test(head.toString("latin1"))) {
        near.destroy();
      }
    });
    const far = connect(this.port, "127.0.0.1");
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      this.sockets.add(one);
      one.on("error", () => {});
      one.on("close", () => {
        this.sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });

  constructor(private readonly port: number) {}

  async start(): Promise<string> {
    return `127.0.0.1:${await listening(this.server)}`;
  }

  /** Ends all connections. */
  cut(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  close(): void {
    this.cut();
    this.server.close();
  }
}

export async function listening(
  server: Server | ReturnType<typeof createTcpServer>,
): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

/** A token as the service accepts it. */
function minted(secret: string, user: string, seconds: number): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const iat = Math.floor(Date.now() / 1000);
  const claims = { user_id: user, tenant_id: "acme", permissions: [], iat, exp: iat + seconds };
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
}

const types: Record<string, string> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".css": "text/css",
};

async function builtPage(): Promise<string> {
  const outDir = await mkdtemp(join(tmpdir(), "jobplane-page-"));
  const root = join(import.meta.dirname, "page");
  await build({ root, logLevel: "warn", build: { outDir, emptyOutDir: true } });
  return outDir;
}

/** A browser, the built page, a server of tokens, and the way to the stage. */
export class World {
  /** How often a token was asked for. */
  tokens = 0;
  private contexts: BrowserContext[] = [];

  private constructor(
    readonly network: Network,
    private readonly browser: Browser,
    private readonly server: Server,
    private readonly settings: { ws: string; api: string },
    private readonly stage: Stage,
  ) {}

  /** `built` is a folder with another build of the page. */
  static async start(stage: Stage, built?: string): Promise<World> {
    const outDir = built ?? (await builtPage());
    const network = new Network(Number(new URL(stage.api).port));
    const host = await network.start();
    let world: World | undefined;
    const server = createServer(async ({ url = "/" }, response) => {
      const { pathname, searchParams } = new URL(url, "http://x");
      if (pathname === "/token" && world) {
        world.tokens += 1;
        const user = String(searchParams.get("user"));
        response.end(minted(stage.secret, user, Number(searchParams.get("ttl"))));
        return;
      }
      const name = pathname === "/" ? "index.html" : pathname.slice(1);
      response.setHeader("content-type", types[extname(name)] ?? "application/octet-stream");
      response.end(await readFile(join(outDir, name)).catch(() => ""));
    });
    const port = await listening(server);
    const browser = await chromiumHere();
    const settings = {
      ws: stage.socketUrl.replace(new URL(stage.socketUrl).host, host),
      api: stage.api.replace(new URL(stage.api).host, host),
    };
    world = new World(network, browser, server, settings, stage);
    world.origin = `http://127.0.0.1:${port}`;
    return world;
  }

  private origin = "";
  private readonly folder = mkdtempSync(join(tmpdir(), "jobplane-files-"));

  /** A file with a content, or with so many random bytes; its path and SHA-256. */
  async file(name: string, content: string | number): Promise<{ path: string; sha256: string }> {
    const path = join(this.folder, name);
    const bytes = typeof content === "string" ? Buffer.from(content) : randomBytes(content);
    await writeFile(path, bytes);
    return { path, sha256: createHash("sha256").update(bytes).digest("hex") };
  }

  /** A browser of its own, as of another user. */
  async context(): Promise<BrowserContext> {
    const context = await this.browser.newContext();
    context.setDefaultTimeout(0);
    this.contexts.push(context);
    return context;
  }

  /** A page that shows a view. Errors of its scripts fail the test. */
  async page(
    view: string,
    parameters: Record<string, string> = {},
    context?: BrowserContext,
  ): Promise<Page> {
    const page = await (context ?? (await this.context())).newPage();
    page.on("pageerror", (error) => {
      throw error;
    });
    const query = { view, user: "anna", ttl: "3600", ...this.settings, ...parameters };
    await page.goto(`${this.origin}/?${new URLSearchParams(query)}`);
    return page;
  }

  /** The status of a job of anna, asked of the stage itself; null if there is none. */
  async statusOf(id: string): Promise<string | null> {
    const authorization = `Bearer ${minted(this.stage.secret, "anna", 60)}`;
    const answer = await fetch(`${this.stage.api}/jobs/${id}`, { headers: { authorization } });
    return answer.ok ? ((await answer.json()) as { status: string }).status : null;
  }

  async closePages(): Promise<void> {
    this.network.isDown = this.network.areSocketsBlocked = false;
    for (const context of this.contexts.splice(0)) await context.close();
  }

  async stop(): Promise<void> {
    await this.browser.close();
    this.network.close();
    this.server.close();
    await rm(this.folder, { recursive: true });
  }
}

/** Counts what a page sends: requests, and messages on sockets. */
export class Traffic {
  count = 0;

  constructor(page: Page) {
    page.on("request", () => {
      this.count += 1;
    });
    page.on("websocket", (socket) => {
      socket.on("framesent", () => {
        this.count += 1;
      });
    });
  }
}
