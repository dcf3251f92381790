import type { AssemblyDocument } from "@jobplane/client";
import type { JSX } from "react";
import { useId } from "react";
import { type JobState, type JobView, useJob } from "./hooks.js";

const words: Record<JobState, string> = {
  waiting: "Waiting",
  running: "Running",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
};

/** A job's progress bar, with its state and message. */
export function JobProgress(props: { id: string; userId?: string; label?: string }): JSX.Element {
  const { id, label = "Job", ...options } = props;
  return <ProgressOf label={label} job={useJob(id, options)} />;
}

/** The same for a job that `useJob` has returned. */
export function ProgressOf({ job, label }: { job: JobView; label: string }): JSX.Element {
  const labelId = useId();
  const percentage = job.state === "completed" ? 100 : (job.progress?.percentage ?? 0);
  const text = job.error?.message ?? job.progress?.message ?? "";
  return (
    <div className="jobplane-job" data-state={job.state}>
      <div className="jobplane-line">
        <span id={labelId}>{label}</span>
        <Badge state={job.state} />
      </div>
      <progress aria-labelledby={labelId} max={100} value={percentage} />
      <p className="jobplane-text" role={job.error ? "alert" : "status"}>
        {text}
      </p>
    </div>
  );
}

function Badge({ state }: { state: JobState }): JSX.Element {
  return <span className="jobplane-badge">{words[state]}</span>;
}

/** What an assembly does, for people: the steps that are done of all, or how it ended. */
export function progressMessage(assembly: AssemblyDocument): string {
  const state = stateOf(assembly);
  if (state === "completed") {
    const seconds = assembly.execution_duration;
    return seconds === undefined ? "Completed" : `Completed in ${seconds.toFixed(1)} s`;
  }
  if (state === "cancelled") return "Cancelled";
  if (state === "failed") return `Failed: ${assembly.message}`;
  const { steps_completed: done, steps_total: total, current_step: step } = assembly;
  if (!total) return "Waiting";
  return `Step ${Math.min((done ?? 0) + 1, total)} of ${total}${step ? `: ${step}` : ""}`;
}

export function stateOf({ ok, error, steps_completed, current_step }: AssemblyDocument): JobState {
  if (ok === "ASSEMBLY_CANCELED" || error === "ASSEMBLY_CANCELED") return "cancelled";
  if (error !== undefined) return "failed";
  if (ok === "ASSEMBLY_COMPLETED") return "completed";
  return steps_completed || current_step ? "running" : "waiting";
}

/** An assembly: state, duration, uploads, results by step with links, error. */
export function StatusCard({ assembly }: { assembly: AssemblyDocument }): JSX.Element {
  const state = stateOf(assembly);
  const title = useId();
  const { uploads = [], results = {} } = assembly;
  const made = Object.values(results).flat();
  return (
    <section className="jobplane-card" data-state={state} aria-labelledby={title}>
      <div className="jobplane-line">
        <h3 id={title}>Assembly {assembly.assembly_id.slice(-8)}</h3>
        <Badge state={state} />
      </div>
      <p className="jobplane-text" role={state === "failed" ? "alert" : "status"}>
        {progressMessage(assembly)}
      </p>
      {(state === "running" || state === "waiting") && (
        <progress aria-labelledby={title} max={100} value={assembly.progress_pct ?? 0} />
      )}
      {uploads.length > 0 && (
        <details>
          <summary>{counted(uploads.length, "upload")}</summary>
          <ul>
            {uploads.map((upload) => (
              <li key={upload.id}>
                {upload.name} <Size bytes={upload.size} />
              </li>
            ))}
          </ul>
        </details>
      )}
      {made.length > 0 && (
        <details open>
          <summary>{counted(made.length, "result")}</summary>
          {Object.entries(results).map(([step, files]) => (
            <div key={step}>
              <h4>{step}</h4>
              <ul>
                {files.map((file) => (
                  <li key={file.id}>
                    <a href={file.ssl_url} target="_blank" rel="noopener noreferrer">
                      {file.name}
                    </a>{" "}
                    <Size bytes={file.size} />
                  </li>
                ))}
              </ul>
            </div>
          ))}
        </details>
      )}
    </section>
  );
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

const units = ["B", "KB", "MB", "GB", "TB"];

export function Size({ bytes }: { bytes: number | undefined }): JSX.Element | null {
  if (bytes === undefined) return null;
  const power = bytes < 1 ? 0 : Math.min(Math.floor(Math.log(bytes) / Math.log(1024)), 4);
  const text = `${(bytes / 1024 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
  return <span className="jobplane-size">{text}</span>;
}
