import type { Jobplane, Payload } from "@jobplane/client";
import {
  ProgressOf,
  StatusCard,
  stateOf,
  useAssembly,
  useJob,
  useJobplane,
  useUpload,
} from "@jobplane/react";
import { type JSX, useEffect, useRef, useState } from "react";

/** A job that a button starts, and the states that it went through. */
export function Job(props: { id: string; payload: Payload<"delay"> | null }): JSX.Element {
  const client = useJobplane();
  const [id, setId] = useState(props.payload ? null : props.id);
  const { state, ended, ...job } = useJob(id);
  const [seen, setSeen] = useState<string[]>([]);
  useEffect(() => {
    setSeen((before) => (before.at(-1) === state ? before : [...before, state]));
  }, [state]);
  const start = async (payload: Payload<"delay">): Promise<void> => {
    await client.jobs.start("delay", payload, { id: props.id });
    setId(props.id);
  };
  return (
    <>
      {props.payload && (
        <button type="button" onClick={() => void start(props.payload ?? {})}>
          Start
        </button>
      )}
      <button type="button" onClick={() => void client.jobs.cancel(props.id)}>
        Cancel
      </button>
      <ProgressOf job={{ state, ended, ...job }} label="Film" />
      <output data-ended={ended}>{seen.join(" ")}</output>
    </>
  );
}

/** The card of an assembly, and the states that it showed. */
function Assembly({ id }: { id: string }): JSX.Element {
  const { status, loading, error } = useAssembly(id, { every: 50 });
  const seen = useRef<string[]>([]);
  const state = status ? stateOf(status) : "waiting";
  if (seen.current.at(-1) !== state) seen.current.push(state);
  if (error) return <p role="alert">{error}</p>;
  return (
    <>
      {loading || !status ? <p>Waiting</p> : <StatusCard assembly={status} />}
      <p data-testid="seen">{seen.current.join(" ")}</p>
    </>
  );
}

/** Files are chosen, and become an assembly. */
export function Upload(props: { template: string }): JSX.Element {
  const client = useJobplane();
  const { files, job, document, error, start } = useUpload(props.template);
  return (
    <>
      <label>
        Files
        <input type="file" multiple onChange={({ target }) => start(target.files as FileList)} />
      </label>
      {files.map(({ name, sent, size, stored }) => (
        <progress key={name} aria-label={name} max={size} value={sent} data-stored={stored} />
      ))}
      {job && (
        <button type="button" onClick={() => void client.jobs.cancel(job.id)}>
          Cancel
        </button>
      )}
      {job?.assemblyId && <Assembly id={job.assemblyId} />}
      <output>{document ? JSON.stringify(document) : error?.message}</output>
    </>
  );
}

/** Jobs that are followed over reloads: how often each has ended. */
export function Ends(): JSX.Element {
  const client = useJobplane();
  useEffect(() => {
    Object.assign(window, { start: (id: string, seconds: number) => start(client, id, seconds) });
    for (const [id, { seconds, ends }] of Object.entries(stored())) {
      if (!ends) start(client, id, seconds);
    }
  }, [client]);
  return <p>Jobs</p>;
}

type Jobs = Record<string, { seconds: number; ends: number }>;

function stored(): Jobs {
  return JSON.parse(localStorage.getItem("jobs") ?? "{}") as Jobs;
}

const followed = new Set<string>();

/** One id makes one job: after a reload, the same call follows the job that runs. */
function start(client: Jobplane, id: string, seconds: number): void {
  const note = (more: number): void => {
    const jobs = stored();
    jobs[id] = { seconds, ends: (jobs[id]?.ends ?? 0) + more };
    localStorage.setItem("jobs", JSON.stringify(jobs));
  };
  if (followed.has(id)) return;
  followed.add(id);
  note(0);
  void client.jobs.run("delay", { seconds, steps: 5 }, { id }).then(
    () => note(1),
    (error) => note(error instanceof Error && error.name === "ConnectionLostError" ? 1000 : 1),
  );
}
