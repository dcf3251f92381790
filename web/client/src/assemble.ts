import type { Job, Jobs, WaitOptions } from "./client.js";
import type { AssemblyDocument } from "./contracts.js";
import { UploadControl } from "./control.js";
import { ConnectionLostError, RefusedError, UploadError } from "./errors.js";
import { newId } from "./protocol.js";
import type { Token } from "./session.js";
import { mimeOf, type StoredFile, type Target, Uploads } from "./uploads.js";

/** How much of a file is stored. */
export interface UploadProgress {
  /** The file's place in the list that was given. */
  index: number;
  name: string;
  size: number;
  sent: number;
  stored: boolean;
}

export interface AssembleOptions extends WaitOptions {
  /** Values that go with the assembly. */
  fields?: Record<string, unknown>;
  onUpload?: (progress: UploadProgress) => void;
  /** Called when the files are stored and the job is accepted. */
  onStart?: (job: Job) => void;
  /** Pauses and cancels the uploads. `signal` stops them instead: a later call goes on. */
  control?: UploadControl;
  /** So many files or parts are sent at a time. */
  parallel?: number;
  /** Larger files go in parts. */
  wholeBytes?: number;
  /** Where uploads in parts are noted, for a reload; by default localStorage. */
  store?: Storage | null;
}

const defaultWholeBytes = 8 * 2 ** 20;

/** See Jobplane.assemble. */
export async function assembled(
  jobs: Jobs,
  api: string,
  token: Token,
  given: Iterable<File>,
  template: string,
  options: AssembleOptions,
): Promise<AssemblyDocument> {
  const files = [...given];
  if (!files.length) throw new TypeError("assemble needs at least one file");
  const { control = new UploadControl(), signal, onUpload, parallel = 4 } = options;
  const stop = (): void => control.end(signal?.reason);
  if (signal?.aborted) stop();
  signal?.addEventListener("abort", stop);
  const note = (file: File, sent: number, stored = false): void => {
    const index = files.indexOf(file);
    onUpload?.({ index, name: file.name, size: file.size, sent, stored });
  };
  const store = options.store === undefined ? localStore() : options.store;
  const uploads = new Uploads(api, token, control, note, parallel, store);
  try {
    const order = { template_id: template, fields: options.fields ?? {} };
    const stored = await sentFiles(jobs, uploads, files, order, options.wholeBytes, (file) =>
      note(file, file.size, true),
    );
    await control.ready();
    const document = await processed(jobs, files, stored, order, control, options);
    uploads.forget(files);
    return document;
  } catch (error) {
    if (control.cancelled || !store) await uploads.discard(files);
    throw error;
  } finally {
    signal?.removeEventListener("abort", stop);
    uploads.close();
  }
}

interface Order {
  template_id: string;
  fields: Record<string, unknown>;
}

/** Sends what S3 does not have; where each file is stored. */
async function sentFiles(
  jobs: Jobs,
  uploads: Uploads,
  files: readonly File[],
  order: Order,
  wholeBytes: number = defaultWholeBytes,
  done: (file: File) => void,
): Promise<StoredFile[]> {
  const stored = new Map<File, StoredFile>();
  const small = files.filter((file) => file.size <= wholeBytes);
  const large = files.filter((file) => file.size > wholeBytes);
  const works = large.map((file) => async (): Promise<void> => {
    stored.set(file, await uploads.inParts(file));
    done(file);
  });
  if (small.length) {
    works.push(async () => {
      const targets = await sentWhole(jobs, uploads, small, order, !large.length, done);
      for (const [index, file] of small.entries()) stored.set(file, targets[index] as Target);
    });
  }
  await uploads.together(works, (work) => work());
  return files.map((file) => stored.get(file) as StoredFile);
}

interface Created {
  completed: boolean;
  uploads?: Target[];
  /** Where the list is, if it is too large for a message. */
  url: string;
}

/** Sends small files. Nothing is sent for an assembly of these files `alone` that has its result. */
async function sentWhole(
  jobs: Jobs,
  uploads: Uploads,
  files: readonly File[],
  order: Order,
  alone: boolean,
  done: (file: File) => void,
): Promise<Target[]> {
  const announced = await uploads.together(files, async (file) => ({
    name: file.name,
    size: file.size,
    mime: mimeOf(file),
    md5hash: await uploads.md5Of(file),
  }));
  const ask = async (): Promise<{ completed: boolean; targets: Target[] }> => {
    const payload = { ...order, files: announced };
    const answer = await named(files, jobs.run("create_upload", payload as never));
    const { completed, uploads: listed, url } = answer as unknown as Created;
    if (listed) return { completed, targets: listed };
    return { completed, targets: ((await linked(url)) as { uploads: Target[] }).uploads };
  };
  const { completed, targets } = await ask();
  // Equal files have one key.
  const places = new Map(targets.map((target, index) => [target.key, index]));
  if (!(alone && completed)) {
    await uploads.together([...places.values()], (index) =>
      uploads.whole(
        files[index] as File,
        targets[index] as Target,
        async () => (await ask()).targets[index] as Target,
      ),
    );
  }
  for (const file of files) done(file);
  return targets;
}

async function processed(
  jobs: Jobs,
  files: readonly File[],
  stored: readonly StoredFile[],
  order: Order,
  control: UploadControl,
  { onStart, ...waiting }: AssembleOptions,
): Promise<AssemblyDocument> {
  const uploads = files.map(({ name }, index) => {
    const { key, size, mime, md5hash } = stored[index] as StoredFile;
    return { name, key, size, mime, md5hash };
  });
  const id = newId();
  const starting = jobs.start("process_assembly", { ...order, uploads } as never, { id });
  control.onCancel = () => void jobs.cancel(id).catch(() => {});
  onStart?.(await named(files, starting));
  const result = (await jobs.wait(id, waiting)) as AssemblyDocument | { url: string };
  return "assembly_id" in result ? result : ((await linked(result.url)) as AssemblyDocument);
}

/** The JSON behind a link to S3. */
async function linked(url: string): Promise<unknown> {
  const answer = await fetch(url).catch(() => null);
  if (answer?.ok) return answer.json();
  throw new ConnectionLostError("the service's answer can't be read from S3: call again");
}

/** A refusal that names a file by its number names it by its name. */
async function named<Result>(files: readonly File[], asked: Promise<Result>): Promise<Result> {
  try {
    return await asked;
  } catch (error) {
    const faults = error instanceof RefusedError ? error.details : null;
    for (const fault of Array.isArray(faults) ? faults : []) {
      const found = /^payload\.(?:files|uploads)\.(\d+)\b/.exec(String(fault.field));
      const file = found && files[Number(found[1])];
      if (file) throw new UploadError("refused", file.name, String(fault.message));
    }
    throw error;
  }
}

function localStore(): Storage | null {
  try {
    return globalThis.localStorage ?? null;
  } catch {
    return null;
  }
}
