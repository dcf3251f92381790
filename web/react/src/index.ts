export * from "./components.js";
export * from "./hooks.js";
