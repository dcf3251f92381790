import { type DragEvent, type JSX, useId, useState } from "react";
import { ProgressOf, Size, StatusCard } from "./components.js";
import { type UploadOptions, type UploadState, useUpload } from "./upload.js";

const words: Record<UploadState, string> = {
  idle: "",
  sending: "Sending",
  paused: "Paused",
  processing: "Processing",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
};

export interface UploaderProps extends UploadOptions {
  template: string;
  label?: string;
  multiple?: boolean;
  /** As of an input: `image/*,.pdf`. */
  accept?: string;
}

/** Files are chosen or dropped, sent with their progress, and become an assembly. */
export function Uploader({
  template,
  label = "Files",
  multiple = true,
  accept,
  ...options
}: UploaderProps): JSX.Element {
  const { state, files, progress, document, error, ...upload } = useUpload(template, options);
  const [isOver, setOver] = useState(false);
  const id = useId();
  const isBusy = state === "sending" || state === "paused" || state === "processing";
  const drop = (event: DragEvent): void => {
    event.preventDefault();
    setOver(false);
    const chosen = [...event.dataTransfer.files].slice(0, multiple ? undefined : 1);
    if (chosen.length && !isBusy) upload.start(chosen);
  };
  return (
    <section className="jobplane-card" data-state={state} aria-label={label}>
      {/* biome-ignore lint/a11y/noStaticElementInteractions: the input does the same by keyboard */}
      <div
        className="jobplane-drop"
        data-over={isOver}
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={drop}
      >
        <label htmlFor={id}>{label}</label>
        <input
          id={id}
          type="file"
          multiple={multiple}
          accept={accept}
          disabled={isBusy}
          onChange={({ target }) => {
            if (target.files?.length) upload.start(target.files);
            target.value = "";
          }}
        />
      </div>
      <p className="jobplane-text" role={error ? "alert" : "status"}>
        {error && state === "failed" ? error.message : words[state]}
      </p>
      {files.length > 0 && !document && (
        <ul className="jobplane-files">
          {files.map(({ index, name, size, sent, stored }) => (
            <li key={index}>
              <span className="jobplane-line">
                <span id={`${id}-${index}`}>{name}</span>
                <Size bytes={size} />
              </span>
              <progress
                aria-labelledby={`${id}-${index}`}
                max={Math.max(size, 1)}
                value={stored ? Math.max(size, 1) : sent}
              />
            </li>
          ))}
        </ul>
      )}
      {state === "processing" && progress && (
        <ProgressOf job={{ ...running, progress }} label="Processing" />
      )}
      {isBusy && (
        <p className="jobplane-buttons">
          {state === "sending" && (
            <button type="button" onClick={upload.pause}>
              Pause
            </button>
          )}
          {state === "paused" && (
            <button type="button" onClick={upload.resume}>
              Resume
            </button>
          )}
          <button type="button" onClick={upload.cancel}>
            Cancel
          </button>
        </p>
      )}
      {document && <StatusCard assembly={document} />}
    </section>
  );
}

const running = { state: "running", result: null, error: null, ended: false } as const;
