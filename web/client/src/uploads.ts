import type { UploadControl } from "./control.js";
import { UploadError } from "./errors.js";
import { Md5 } from "./md5.js";
import { type Token, tokenOf } from "./session.js";

/** An upload in parts that has begun. */
interface Begun {
  key: string;
  uploadId: string;
  partSize: number;
}

/** A file in the bucket, as `process_assembly` needs it. */
export interface StoredFile {
  key: string;
  size: number;
  mime: string;
  md5hash: string;
}

/** Where a file of `create_upload` goes. */
export interface Target extends StoredFile {
  method: string;
  url: string;
  headers: Record<string, string>;
}

interface Reply {
  status: number;
  text: string;
  header: (name: string) => string | null;
}

interface Sending {
  method: string;
  url: string;
  headers: Record<string, string>;
  body: Blob | string | null;
  onSent?: (bytes: number) => void;
}

const attempts = 8;
/** S3 may join many parts for minutes; the service then asks for the same call again. */
const joinAttempts = 60;
const backoffBase = 500;
const backoffMost = 30_000;
const passing = new Set([408, 429, 500, 502, 503, 504]);
/** After so many milliseconds the service deletes an upload that is not complete. */
const uploadAge = 7 * 24 * 60 * 60_000;

/** Sends the files of one call, `parallel` files or parts at a time. */
export class Uploads {
  private readonly md5 = new Md5();
  private readonly journal: Journal;
  private readonly sent = new Map<File, Map<number, number>>();
  private readonly queue: (() => void)[] = [];

  constructor(
    private readonly api: string,
    private readonly token: Token,
    private readonly control: UploadControl,
    private readonly onSent: (file: File, bytes: number) => void,
    private free: number,
    store: Storage | null,
  ) {
    this.journal = new Journal(store, api);
  }

  close(): void {
    this.md5.close();
  }

  /** The MD5 of a blob of a file. */
  async md5Of(file: File, blob: Blob = file): Promise<string> {
    try {
      return await this.md5.of(blob);
    } catch (error) {
      const message = `it can't be read, or was changed: choose it again (${error})`;
      throw new UploadError("unreadable", file.name, message);
    }
  }

  /** Sends a file to a link of `create_upload`; `renewed` returns a new one if it has expired. */
  async whole(file: File, target: Target, renewed: () => Promise<Target>): Promise<void> {
    await this.slot(async () => {
      let link = target;
      for (let isRenewed = false; ; isRenewed = true) {
        const reply = await this.repeated(file, (signal) => this.put(file, 0, file, link, signal));
        if (reply.status < 300) return;
        if (reply.status !== 403 || isRenewed) throw refused(file, reply);
        link = await renewed();
      }
    });
  }

  /**
   * Sends a file in parts. An upload of the same file that has begun goes on: only the parts that
   * S3 does not have, or has with another content, are sent.
   */
  async inParts(file: File): Promise<StoredFile> {
    const [begun, known] = await this.begin(file);
    const count = Math.max(1, Math.ceil(file.size / begun.partSize));
    const numbers = Array.from({ length: count }, (_, index) => index + 1);
    const parts = await this.together(numbers, (number) =>
      this.slot(() => this.part(file, begun, number, known.get(number))),
    );
    const path = `${pathOf(begun)}/complete?${keyOf(begun)}`;
    return (await this.ask(file, "POST", path, { parts }, joinAttempts)) as StoredFile;
  }

  /** Forgets the uploads of files: those that go on would be another's. */
  forget(files: Iterable<File>): void {
    for (const file of files) this.journal.put(file, null);
  }

  /** Deletes the parts that S3 has of files. */
  async discard(files: readonly File[]): Promise<void> {
    const begun = files.map((file) => this.journal.get(file)).filter((each) => each !== null);
    this.forget(files);
    await Promise.allSettled(
      begun.map(async (each) => {
        const headers = { authorization: `Bearer ${await tokenOf(this.token)}` };
        const url = `${this.api}${pathOf(each)}?${keyOf(each)}`;
        return send({ method: "DELETE", url, headers, body: null });
      }),
    );
  }

  /** The results of a work for each item. An error ends the others. */
  async together<Item, Result>(
    items: readonly Item[],
    work: (item: Item) => Promise<Result>,
  ): Promise<Result[]> {
    const works = items.map((item) =>
      work(item).catch((error: unknown) => {
        this.control.end(error);
        throw error;
      }),
    );
    await Promise.allSettled(works);
    return Promise.all(works);
  }

  private async begin(file: File): Promise<[Begun, Map<number, string>]> {
    const known = this.journal.get(file);
    if (known) {
      const path = `${pathOf(known)}?${keyOf(known)}`;
      const parts = (await this.ask(file, "GET", path)) as
        | { PartNumber: number; ETag: string }[]
        | null;
      if (parts) return [known, new Map(parts.map((part) => [part.PartNumber, part.ETag]))];
    }
    const content = { type: mimeOf(file), size: file.size };
    const begun = (await this.ask(file, "POST", "/s3/multipart", content)) as Begun;
    this.journal.put(file, begun);
    return [begun, new Map()];
  }

  private async part(
    file: File,
    begun: Begun,
    number: number,
    known: string | undefined,
  ): Promise<{ PartNumber: number; ETag: string }> {
    await this.control.ready();
    const start = (number - 1) * begun.partSize;
    const blob = file.slice(start, start + begun.partSize);
    const md5 = await this.md5Of(file, blob);
    // The parts of a completed upload have the object's ETag, with a hyphen.
    if (known !== undefined && (known.replaceAll('"', "") === md5 || known.includes("-"))) {
      this.note(file, number, blob.size);
      return { PartNumber: number, ETag: known };
    }
    const path = `${pathOf(begun)}/${number}?${keyOf(begun)}&md5=${md5}`;
    const reply = await this.repeated(file, async (signal) => {
      const link = (await this.ask(file, "GET", path)) as Target | null;
      if (!link) throw gone(file);
      return this.put(file, number, blob, { ...link, method: "PUT" }, signal);
    });
    const tag = reply.header("etag");
    if (reply.status >= 300) throw refused(file, reply);
    if (!tag) {
      const message = "the answer has no ETag: the bucket's CORS settings must expose it";
      throw new UploadError("refused", file.name, message);
    }
    return { PartNumber: number, ETag: tag };
  }

  private async put(
    file: File,
    number: number,
    body: Blob,
    { method, url, headers }: Omit<Target, keyof StoredFile>,
    signal: AbortSignal,
  ): Promise<Reply> {
    const onSent = (bytes: number): void => this.note(file, number, bytes);
    let isStored = false;
    try {
      const reply = await send({ method, url, headers, body, onSent }, signal);
      isStored = reply.status < 300;
      return reply;
    } finally {
      this.note(file, number, isStored ? body.size : 0);
    }
  }

  private note(file: File, number: number, bytes: number): void {
    const parts = this.sent.get(file) ?? new Map<number, number>();
    this.sent.set(file, parts.set(number, bytes));
    this.onSent(
      file,
      [...parts.values()].reduce((sum, each) => sum + each, 0),
    );
  }

  /** The answer of the HTTP API; null if it has no such upload. */
  private async ask(
    file: File,
    method: string,
    path: string,
    content?: object,
    most: number = attempts,
  ): Promise<unknown> {
    const reply = await this.repeated(
      file,
      async (signal) => {
        const headers: Record<string, string> = {
          authorization: `Bearer ${await tokenOf(this.token)}`,
        };
        if (content) headers["content-type"] = "application/json";
        const body = content ? JSON.stringify(content) : null;
        return send({ method, url: this.api + path, headers, body }, signal);
      },
      most,
    );
    if (reply.status < 300) return JSON.parse(reply.text);
    if (reply.status === 404 && method === "GET") return null;
    if (reply.status === 404) throw gone(file);
    throw refused(file, reply);
  }

  /** The answer to a request, which is repeated while it fails for a passing reason. */
  private async repeated(
    file: File,
    request: (signal: AbortSignal) => Promise<Reply>,
    most: number = attempts,
  ): Promise<Reply> {
    for (let attempt = 1; ; attempt += 1) {
      const signal = await this.control.ready();
      let reply: Reply | null = null;
      try {
        reply = await request(signal);
        if (!passing.has(reply.status) && s3Code(reply) !== "RequestTimeout") return reply;
      } catch (error) {
        if (signal.aborted) {
          attempt = 0;
          continue;
        }
        if (!(error instanceof Unreachable)) throw error;
      }
      if (attempt >= most) {
        const cause = reply ? `the service answered ${reply.status}` : "no answer arrived";
        throw new UploadError("failed", file.name, `${cause}, ${attempt} times in a row`);
      }
      const asked = Number(reply?.header("retry-after")) * 1000;
      const ceiling = Math.min(backoffBase * 2 ** attempt, backoffMost);
      await pause(asked || Math.random() * ceiling, signal);
      if (globalThis.navigator?.onLine === false) attempt -= 1;
    }
  }

  private async slot<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.free > 0) this.free -= 1;
    else await new Promise<void>((resolve) => this.queue.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.queue.shift();
      if (next) next();
      else this.free += 1;
    }
  }
}

/** The uploads in parts that have begun, over reloads. */
class Journal {
  private readonly begun = new Map<File, Begun>();

  constructor(
    private readonly store: Storage | null,
    private readonly api: string,
  ) {}

  get(file: File): Begun | null {
    try {
      const known = this.begun.get(file);
      if (known) return known;
      return JSON.parse(this.store?.getItem(this.place(file)) ?? "null") as Begun | null;
    } catch {
      return null;
    }
  }

  put(file: File, begun: Begun | null): void {
    if (begun) this.begun.set(file, begun);
    else this.begun.delete(file);
    try {
      if (!this.store) return;
      if (begun) {
        this.removeOld(this.store);
        this.store.setItem(this.place(file), JSON.stringify({ ...begun, at: Date.now() }));
      } else this.store.removeItem(this.place(file));
    } catch {
      // Without room, or where a page may store nothing, a reload sends the file anew.
    }
  }

  private removeOld(store: Storage): void {
    const places = Array.from({ length: store.length }, (_, index) => store.key(index) ?? "");
    for (const place of places.filter((each) => each.startsWith(prefix))) {
      const { at } = JSON.parse(store.getItem(place) ?? "{}") as { at?: number };
      if (Date.now() - (at ?? 0) > uploadAge) store.removeItem(place);
    }
  }

  /** A file with another size or time of change is another one. */
  private place({ name, webkitRelativePath, size, lastModified }: File): string {
    return prefix + JSON.stringify([this.api, webkitRelativePath || name, size, lastModified]);
  }
}

const prefix = "jobplane:upload:";

/** No answer arrived. */
class Unreachable extends Error {}

/** With XMLHttpRequest where there is one: fetch does not say how much was sent. */
function send(sending: Sending, signal?: AbortSignal): Promise<Reply> {
  if (sending.onSent && typeof XMLHttpRequest !== "undefined") return byXhr(sending, signal);
  return byFetch(sending, signal);
}

async function byFetch({ onSent: _, url, ...init }: Sending, signal?: AbortSignal): Promise<Reply> {
  try {
    const answer = await fetch(url, { ...init, ...(signal && { signal }) });
    const { status, headers } = answer;
    return { status, text: await answer.text(), header: (name) => headers.get(name) };
  } catch (error) {
    throw new Unreachable(String(error));
  }
}

function byXhr(
  { method, url, headers, body, onSent }: Sending,
  signal?: AbortSignal,
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = (): void => request.abort();
    const failed = (): void => reject(new Unreachable(`${method} got no answer`));
    request.onload = () => {
      const { status, responseText: text } = request;
      resolve({ status, text, header: (name) => request.getResponseHeader(name) });
    };
    request.onloadend = () => signal?.removeEventListener("abort", abort);
    request.onerror = request.onabort = request.ontimeout = failed;
    request.upload.onprogress = ({ loaded }) => onSent?.(loaded);
    request.open(method, url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    signal?.addEventListener("abort", abort);
    if (signal?.aborted) failed();
    else request.send(body);
  });
}

/** Waits, at most until an abort, or until the browser is online again. */
async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      globalThis.removeEventListener?.("online", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", done);
    globalThis.addEventListener?.("online", done);
  });
}

/** What the file is; parameters such as a character set are not kept. */
export function mimeOf(file: File): string {
  return file.type.split(";")[0] || "application/octet-stream";
}

function pathOf({ uploadId }: Begun): string {
  return `/s3/multipart/${encodeURIComponent(uploadId)}`;
}

function keyOf({ key }: Begun): string {
  return `key=${encodeURIComponent(key)}`;
}

function s3Code({ status, text }: Reply): string | undefined {
  return status < 300 ? undefined : /<Code>(\w+)<\/Code>/.exec(text)?.[1];
}

function gone(file: File): UploadError {
  const message = "the upload has expired or was deleted: send the file anew";
  return new UploadError("failed", file.name, message);
}

function refused(file: File, reply: Reply): UploadError {
  const code = s3Code(reply);
  if (code === "BadDigest" || code === "IncompleteBody") {
    return new UploadError("unreadable", file.name, "it was changed: choose it again");
  }
  let message = `S3 answered ${reply.status} ${code ?? ""}`.trim();
  if (!code) {
    try {
      message = String((JSON.parse(reply.text) as { error: unknown }).error);
    } catch {
      message = `the service answered ${reply.status}`;
    }
  }
  return new UploadError("refused", file.name, message);
}
