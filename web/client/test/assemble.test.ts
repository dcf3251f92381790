import { createHash } from "node:crypto";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { WebSocket as Ws } from "ws";
import {
  type AssembleOptions,
  connect,
  type Jobplane,
  RefusedError,
  UploadControl,
  UploadError,
  type UploadProgress,
} from "../src/index.js";
import { Md5 } from "../src/md5.js";
import { Service } from "./service.js";

const md5 = (data: string | Uint8Array): string => createHash("md5").update(data).digest("hex");
const partSize = 8;

/** S3 and the function of uploads, behind `fetch`; a test says what happens to a request. */
class Bucket {
  readonly requests: string[] = [];
  readonly objects: Map<string, string> = new Map();
  readonly uploads: Map<string, Map<number, string>> = new Map();
  intercept: (request: string, signal: AbortSignal) => Response | Promise<Response> | null = () =>
    null;

  readonly fetch = async (address: string, options: RequestInit = {}): Promise<Response> => {
    const { method = "GET", body, signal } = options;
    const { pathname, searchParams } = new URL(address);
    const request = `${method} ${pathname}`;
    this.requests.push(request);
    const other = this.intercept(request, signal as AbortSignal);
    if (other) return other;
    const text = body instanceof Blob ? await body.text() : String(body ?? "");
    const answer = this.answer(request, searchParams, text);
    return answer instanceof Response ? answer : Response.json(answer);
  };

  count(start: string): number {
    return this.requests.filter((request) => request.startsWith(start)).length;
  }

  private answer(request: string, query: URLSearchParams, text: string): Response | object {
    const [method, path = ""] = request.split(" ");
    const [, , kind, id = "", part] = path.split("/");
    if (path.startsWith("/object/")) {
      this.objects.set(path, text);
      return new Response("");
    }
    const parts = this.uploads.get(id);
    if (kind === "part" && parts) {
      parts.set(Number(part), text);
      return new Response("", { headers: { etag: `"${md5(text)}"` } });
    }
    if (request === "POST /s3/multipart") {
      const uploadId = `u${this.uploads.size + 1}`;
      this.uploads.set(uploadId, new Map());
      return { uploadId, key: `uploads/${uploadId}`, partSize };
    }
    const object = this.objects.get(String(query.get("key")));
    if (!parts && !(object !== undefined && part !== undefined)) {
      return Response.json({ error: "Upload not found" }, { status: 404 });
    }
    if (method === "DELETE") {
      this.uploads.delete(id);
      return {};
    }
    if (part === "complete") {
      const { parts: chosen } = JSON.parse(text) as { parts: { PartNumber: number }[] };
      const content = chosen.map(({ PartNumber }) => parts?.get(PartNumber)).join("");
      this.objects.set(String(query.get("key")), object ?? content);
      const md5hash = `joined-${md5(content)}`;
      return { key: query.get("key"), size: content.length, mime: "text/plain", md5hash };
    }
    if (part) return { url: `https://s3/bucket/part/${id}/${part}`, headers: {} };
    return [...(parts ?? [])].map(([PartNumber, each]) => ({ PartNumber, ETag: `"${md5(each)}"` }));
  }
}

/** localStorage. */
class Memory implements Storage {
  [name: string]: unknown;
  private readonly items = new Map<string, string>();
  get length(): number {
    return this.items.size;
  }
  clear = (): void => this.items.clear();
  key = (index: number): string | null => [...this.items.keys()][index] ?? null;
  getItem = (name: string): string | null => this.items.get(name) ?? null;
  setItem = (name: string, value: string): void => void this.items.set(name, value);
  removeItem = (name: string): void => void this.items.delete(name);
}

let service: Service;
let bucket: Bucket;
let store: Memory;
let client: Jobplane;
let ordered: { name: string; key: string }[] = [];

const fileOf = (content: string, name = "film.mp4"): File =>
  new File([content], name, { type: "text/plain;charset=utf-8", lastModified: 1 });
const content = "one part two partthree";
const until = (check: () => unknown) => vi.waitFor(() => expect(check()).toBeTruthy(), 60_000);

function assemble(files: File[], options: AssembleOptions = {}): Promise<unknown> {
  return client.assemble(files, "tpl", { store, wholeBytes: 8, parallel: 1, ...options });
}

beforeEach(async () => {
  service = await Service.start();
  bucket = new Bucket();
  store = new Memory();
  vi.spyOn(Math, "random").mockReturnValue(0);
  vi.stubGlobal("fetch", bucket.fetch);
  service.intercept = ({ id, action, payload }, socket) => {
    const { files, uploads } = payload as Record<string, { name: string; md5hash: string }[]>;
    const answer = (type: string, content: object): void =>
      socket.send(JSON.stringify({ type, request_id: id, success: true, ...content }));
    if (action === "create_upload") {
      const targets = files?.map((file) => ({
        ...file,
        key: `/object/${file.md5hash}`,
        method: "PUT",
        url: `https://s3/object/${file.md5hash}`,
        headers: {},
      }));
      answer("response", { data: { completed: false, uploads: targets } });
    } else if (action === "process_assembly") {
      ordered = uploads as never;
      answer("complete", { seq: 1, result: { assembly_id: "a", ok: "ASSEMBLY_COMPLETED" } });
    } else return false;
    return true;
  };
  client = connect(service.url, "t", {
    WebSocket: Ws as unknown as typeof globalThis.WebSocket,
    api: "https://api/",
  });
});

afterEach(async () => {
  client.close();
  await service.close();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

test.each([0, 1, 55, 56, 63, 64, 65, 2 ** 20 - 1, 2 ** 20, 2.5 * 2 ** 20])(
  "the MD5 of %i bytes is that of the standard",
  async (size) => {
    const bytes = Uint8Array.from({ length: size }, (_, n) => (n * 31 + (n >> 8)) & 255);
    expect(await new Md5().of(new Blob([bytes]))).toBe(md5(bytes));
  },
);

test("small files go whole, equal ones once, large ones in parts, and all become an assembly", async () => {
  const files = [fileOf("a", "1"), fileOf(content, "2"), fileOf("a", "3")];
  const seen: UploadProgress[] = [];
  const document = await assemble(files, { onUpload: (each) => seen.push(each), parallel: 4 });
  expect(document).toMatchObject({ assembly_id: "a" });
  const whole = `/object/${md5("a")}`;
  expect(ordered.map(({ name, key }) => [name, key])).toEqual([
    ["1", whole],
    ["2", "uploads/u1"],
    ["3", whole],
  ]);
  expect(ordered[0]).toMatchObject({ mime: "text/plain", size: 1 });
  expect([...bucket.objects.values()].sort()).toEqual(["a", content]);
  expect(bucket.count("PUT")).toBe(4);
  for (const index of [0, 1, 2]) {
    const last = seen.filter((each) => each.index === index).at(-1);
    expect(last).toMatchObject({ sent: last?.size, stored: true });
  }
  expect(store.length).toBe(0);
});

/** A call that ends, as a page does, while part `number` is sent. */
async function reloadAt(number: number): Promise<void> {
  const page = new AbortController();
  bucket.intercept = (request) => {
    if (request !== `PUT /bucket/part/u1/${number}`) return null;
    page.abort(new Error("reload"));
    return Promise.reject(new TypeError("aborted"));
  };
  await expect(assemble([fileOf(content)], { signal: page.signal })).rejects.toThrow("reload");
  bucket.intercept = () => null;
  bucket.requests.length = 0;
}

test.each([1, 2, 3])(
  "after a reload at part %i, only it and those after it are sent",
  async (at) => {
    await reloadAt(at);
    await assemble([fileOf(content)]);
    expect(bucket.count("POST /s3/multipart/u1/complete")).toBe(1);
    expect(bucket.requests.filter((request) => request.startsWith("PUT"))).toEqual(
      [1, 2, 3].slice(at - 1).map((number) => `PUT /bucket/part/u1/${number}`),
    );
    expect(bucket.objects.get("uploads/u1")).toBe(content);
  },
);

test("a part whose content was changed is sent again", async () => {
  await reloadAt(3);
  const changed = content.replace("one", "ONE");
  await assemble([fileOf(changed)]);
  expect(bucket.objects.get("uploads/u1")).toBe(changed);
  expect(bucket.count("PUT")).toBe(2);
});

test("an upload that has expired begins anew", async () => {
  await reloadAt(3);
  bucket.uploads.delete("u1");
  bucket.uploads.set("other", new Map());
  await assemble([fileOf(content)]);
  expect(bucket.objects.get("uploads/u2")).toBe(content);
});

test("notes of uploads that the service has deleted are removed", async () => {
  store.setItem("jobplane:upload:old", JSON.stringify({ at: 0 }));
  store.setItem("another's", "kept");
  await assemble([fileOf(content)]);
  expect([store.length, store.key(0)]).toEqual([1, "another's"]);
});

test("a pause ends what is under way, and nothing is sent until it is over", async () => {
  const control = new UploadControl();
  let stuck = 0;
  bucket.intercept = (request, signal) => {
    if (request !== "PUT /bucket/part/u1/2" || stuck) return null;
    stuck += 1;
    return new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error())));
  };
  const running = assemble([fileOf(content)], { control });
  await until(() => stuck);
  control.pause();
  const before = bucket.requests.length;
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect([bucket.requests.length, control.paused]).toEqual([before, true]);
  control.resume();
  await running;
  expect(bucket.objects.get("uploads/u1")).toBe(content);
});

test("a cancellation deletes the parts", async () => {
  const control = new UploadControl();
  bucket.intercept = (request) => {
    if (request === "PUT /bucket/part/u1/2") control.cancel();
    return null;
  };
  const running = assemble([fileOf(content)], { control });
  await expect(running).rejects.toMatchObject({ reason: "cancelled" });
  expect([bucket.uploads.size, store.length]).toEqual([0, 0]);
});

test("a cancellation cancels the job if it has begun", async () => {
  const control = new UploadControl();
  const usual = service.intercept;
  service.intercept = (message, socket) =>
    message.action !== "process_assembly" && usual(message, socket);
  const running = expect(assemble([fileOf("a")], { control })).rejects.toThrow("CANCELLED");
  await until(() => service.jobs.size);
  control.cancel();
  await until(() => service.count("cancel"));
  service.fail([...service.jobs.keys()][0] as string, "CANCELLED", "CANCELLED");
  await running;
});

test("what fails for a passing reason is repeated", async () => {
  const failed = new Set<string>();
  bucket.intercept = (request) => {
    if (failed.has(request)) return null;
    failed.add(request);
    return failed.size % 2
      ? Promise.reject(new TypeError("network"))
      : new Response("{}", { status: 503 });
  };
  await assemble([fileOf(content), fileOf("a", "small")]);
  expect(bucket.objects.get("uploads/u1")).toBe(content);
  expect(bucket.objects.get(`/object/${md5("a")}`)).toBe("a");
});

test("a link that has expired is asked for again", async () => {
  let refusals = 0;
  bucket.intercept = (request) => {
    if (!request.startsWith("PUT /object") || refusals) return null;
    refusals += 1;
    return new Response("<Code>AccessDenied</Code>", { status: 403 });
  };
  await assemble([fileOf("a")]);
  expect(service.count("create_upload")).toBe(2);
});

test.each([
  ["PUT /bucket", new Response("<Code>BadDigest</Code>", { status: 400 }), "unreadable", "changed"],
  [
    "PUT /bucket",
    new Response("<Code>Odd</Code>", { status: 400 }),
    "refused",
    "S3 answered 400 Odd",
  ],
  [
    "POST /s3/multipart",
    Response.json({ error: "size: must be" }, { status: 400 }),
    "refused",
    "size: must be",
  ],
  ["POST /s3/multipart", new Response("", { status: 502 }), "failed", "502, 8 times"],
])("an error names the file and its reason: %s %o", async (start, answer, reason, text) => {
  bucket.intercept = (request) => (request.startsWith(start) ? answer.clone() : null);
  const failing = assemble([fileOf(content)]);
  await expect(failing).rejects.toThrow(new RegExp(`^film.mp4: .*${text}`));
  await expect(failing).rejects.toMatchObject({ reason, file: "film.mp4" });
});

test("a file that can't be read is named", async () => {
  const file = fileOf("a");
  vi.spyOn(file, "slice").mockImplementation(() => {
    throw new DOMException("gone", "NotReadableError");
  });
  await expect(assemble([file])).rejects.toMatchObject({ reason: "unreadable", file: "film.mp4" });
});

test("a refusal that names a file by its number names it by its name", async () => {
  service.intercept = ({ id }, socket) => {
    const details = [{ field: "payload.files.1.name", message: "is too long" }];
    const error = { code: "VALIDATION_ERROR", message: "invalid", details, retryable: false };
    socket.send(JSON.stringify({ type: "error", request_id: id, error }));
    return true;
  };
  const refused = assemble([fileOf("a", "1"), fileOf("b", "2")]);
  await expect(refused).rejects.toThrow("2: is too long");
  await expect(refused).rejects.toBeInstanceOf(UploadError);
  await expect(refused).rejects.not.toBeInstanceOf(RefusedError);
});

test("without the API's address, the error says what to do", async () => {
  const bare = connect(service.url, "t", { WebSocket: Ws as unknown as typeof WebSocket });
  await expect(bare.assemble([fileOf("a")], "tpl")).rejects.toThrow("needs the option api");
  bare.close();
});
