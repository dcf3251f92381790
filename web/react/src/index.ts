export {
  JobProgress,
  ProgressOf,
  progressMessage,
  StatusCard,
  stateOf,
} from "./components.js";
export * from "./hooks.js";
export * from "./jobs.js";
export * from "./upload.js";
export { Uploader, type UploaderProps } from "./uploader.js";
