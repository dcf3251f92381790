import type {
  AssembleOptions,
  AssemblyDocument,
  Job,
  JobplaneError,
  ProgressMessage,
  UploadProgress,
} from "@jobplane/client";
import { JobCancelledError, UploadControl, UploadError } from "@jobplane/client";
import { useCallback, useEffect, useRef, useState } from "react";
import { useJobplane } from "./hooks.js";

export type UploadState =
  | "idle"
  | "sending"
  | "paused"
  | "processing"
  | "completed"
  | "failed"
  | "cancelled";

export interface UploadView {
  state: UploadState;
  files: readonly UploadProgress[];
  /** The job of the assembly, when the files are stored. */
  job: Job | null;
  progress: ProgressMessage | null;
  document: AssemblyDocument | null;
  error: JobplaneError | null;
}

export interface Upload extends UploadView {
  /** Sends files; a call that runs is stopped. */
  start: (files: Iterable<File>) => void;
  pause: () => void;
  resume: () => void;
  cancel: () => void;
}

export type UploadOptions = Pick<AssembleOptions, "fields" | "parallel" | "wholeBytes" | "store">;

const idle: UploadView = {
  state: "idle",
  files: [],
  job: null,
  progress: null,
  document: null,
  error: null,
};

interface Run {
  control: UploadControl;
  page: AbortController;
}

/**
 * Sends files to S3 and runs a template over them. When the component goes, the upload stops; it
 * goes on when the same files are given again.
 */
export function useUpload(template: string, options: UploadOptions = {}): Upload {
  const client = useJobplane();
  const [view, setView] = useState(idle);
  const run = useRef<Run | null>(null);
  const latest = useRef(options);
  useEffect(() => {
    latest.current = options;
  });
  useEffect(() => () => run.current?.page.abort(), []);

  const start = useCallback(
    (given: Iterable<File>) => {
      run.current?.page.abort();
      const files = [...given];
      const own: Run = { control: new UploadControl(), page: new AbortController() };
      run.current = own;
      const show = (change: (before: UploadView) => Partial<UploadView>): void => {
        if (run.current === own) setView((before) => ({ ...before, ...change(before) }));
      };
      const none = files.map(({ name, size }, index) => {
        return { index, name, size, sent: 0, stored: false };
      });
      setView({ ...idle, state: "sending", files: none });
      client
        .assemble(files, template, {
          ...latest.current,
          control: own.control,
          signal: own.page.signal,
          onUpload: (file) =>
            show(({ files }) => ({
              files: files.map((each, n) => (n === file.index ? file : each)),
            })),
          onStart: (job) => show(() => ({ state: "processing", job })),
          onProgress: (progress) => show(() => ({ progress })),
        })
        .then(
          (document) => show(() => ({ state: "completed", document })),
          (error) => {
            if (own.page.signal.aborted) return;
            const isCancelled =
              error instanceof JobCancelledError ||
              (error instanceof UploadError && error.reason === "cancelled");
            show(() => ({ state: isCancelled ? "cancelled" : "failed", error }));
          },
        );
    },
    [client, template],
  );
  const pause = useCallback(() => {
    run.current?.control.pause();
    setView((before) => (before.state === "sending" ? { ...before, state: "paused" } : before));
  }, []);
  const resume = useCallback(() => {
    run.current?.control.resume();
    setView((before) => (before.state === "paused" ? { ...before, state: "sending" } : before));
  }, []);
  const cancel = useCallback(() => run.current?.control.cancel(), []);
  return { ...view, start, pause, resume, cancel };
}
