import { createContext, type JSX, type ReactNode, useContext } from "react";
import type { StageInfo } from "./api.js";

const StageContext = createContext<StageInfo | undefined>(undefined);

export const StageProvider = StageContext.Provider;

export function useStage(): StageInfo {
  const stage = useContext(StageContext);
  if (!stage) throw new Error("useStage: no stage was loaded");
  return stage;
}

/** A button that changes something: disabled, with the reason, in a read-only console. */
export function ActionButton(props: {
  act: () => void;
  children: ReactNode;
  danger?: boolean;
  plain?: boolean;
  off?: string | false | undefined;
  label?: string;
}): JSX.Element {
  const stage = useStage();
  const off = stage.read_only ? "The console is read-only." : props.off;
  const names = [props.danger && "danger", props.plain && "plain"].filter(Boolean).join(" ");
  return (
    <button
      type="button"
      className={names || undefined}
      disabled={Boolean(off)}
      title={off || undefined}
      aria-label={props.label}
      onClick={props.act}
    >
      {props.children}
    </button>
  );
}
