export type { AssembleOptions, UploadProgress } from "./assemble.js";
export * from "./client.js";
export type * from "./contracts.js";
export { UploadControl } from "./control.js";
export * from "./errors.js";
export type { JobList, ListOptions } from "./http.js";
export type { Action, End, Payload, Result } from "./protocol.js";
export type { ConnectionState, Listener, Session, SessionOptions, Token } from "./session.js";
