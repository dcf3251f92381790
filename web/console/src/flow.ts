import type { GraphState } from "./api.js";

export type Place = { row: number; column: number };
export type Edge = { from: string; to: string; travelled: boolean };

/** The rows of the picture, and what they are about. */
export const phases = ["Check", "Interrupt", "Claim", "Work", "Release", "End"] as const;

// Where the states of resources/job-flow.asl.yml stand, by rows from the left; "" is a free place.
const rows: readonly (readonly string[])[] = [
  [
    "Begin",
    "IsInputAllowed",
    "StoreInstruction",
    "CheckActiveJob",
    "NeedsInterrupt",
    "InputRefused",
    "",
  ],
  [
    "WaitForInterval",
    "WaitForHolder",
    "RecordInterruption",
    "IsInterruptSent",
    "SendInterrupt",
    "Joined",
    "WorkspaceBusy",
  ],
  [
    "ClaimJob",
    "IsClaimed",
    "OpenHolderQueue",
    "MakeHolderQueue",
    "WaitForHolderQueue",
    "JoinHolder",
    "",
  ],
  [
    "BeginJob",
    "HasBegun",
    "ProcessAttachments",
    "OpenInputQueue",
    "MakeInputQueue",
    "WaitForInputQueue",
    "SendToContainer",
  ],
  [
    "ReleaseUnused",
    "ReleaseAfterFailure",
    "ReleaseAfterPreemption",
    "RecordPreemption",
    "HandleTimeout",
    "ReleaseClaim",
    "IsResultAllowed",
  ],
  ["Cancelled", "JobFailed", "Interrupted", "", "TimedOut", "Completed", ""],
];
export const columns = 7;

/** Every state's place; states that the picture does not know stand below the others. */
export function placesOf(states: readonly GraphState[]): Map<string, Place> {
  const known = new Map<string, Place>();
  rows.forEach((names, row) => {
    names.forEach((name, column) => {
      known.set(name, { row, column });
    });
  });
  const places = new Map<string, Place>();
  let others = 0;
  for (const { name } of states) {
    const place = known.get(name) ?? {
      row: rows.length + Math.floor(others / columns),
      column: others++ % columns,
    };
    places.set(name, place);
  }
  return places;
}

// Nearly every state can lead there: drawn only where an execution went.
const failures = new Set(["JobFailed", "ReleaseAfterFailure", "InputRefused", "WorkspaceBusy"]);

export function edgesOf(states: readonly GraphState[]): Edge[] {
  const visited = new Set(states.filter(({ visits }) => visits > 0).map(({ name }) => name));
  return states.flatMap(({ name, next }) =>
    [...new Set(next)]
      .map((to) => ({ from: name, to, travelled: visited.has(name) && visited.has(to) }))
      .filter(
        ({ to, travelled }) => travelled || !failures.has(to) || name === "ReleaseAfterFailure",
      ),
  );
}

/** A name on two lines at most, cut between its words. */
export function linesOf(name: string): string[] {
  if (name.length <= 16) return [name];
  const words = name.split(/(?=[A-Z])/);
  let best = [name];
  let least = Number.POSITIVE_INFINITY;
  for (let at = 1; at < words.length; at++) {
    const lines = [words.slice(0, at).join(""), words.slice(at).join("")];
    const longest = Math.max(...lines.map((line) => line.length));
    if (longest < least) [best, least] = [lines, longest];
  }
  return best;
}
