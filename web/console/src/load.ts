import { useCallback, useEffect, useRef, useState } from "react";

/** An error that the server has answered, or that it could not be asked. */
export class ConsoleError extends Error {
  override name = "ConsoleError";
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

export type Answer<Value> = {
  value: Value | undefined;
  error: Error | undefined;
  readAt: number | undefined;
  again: () => void;
};

/**
 * Reads something, and again every so many seconds while the page is visible.
 *
 * An error keeps what was read before. A change of `key` forgets it.
 */
export function useLoad<Value>(
  key: string,
  read: (signal: AbortSignal) => Promise<Value>,
  every?: number,
): Answer<Value> {
  const [state, setState] = useState<Omit<Answer<Value>, "again"> & { key: string }>({
    key,
    value: undefined,
    error: undefined,
    readAt: undefined,
  });
  const [turn, setTurn] = useState(0);
  const reader = useRef(read);
  reader.current = read;
  // biome-ignore lint/correctness/useExhaustiveDependencies: a turn reads again
  useEffect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const run = async () => {
      if (document.visibilityState === "visible") {
        try {
          const value = await reader.current(stop.signal);
          if (stop.signal.aborted) return;
          setState({ key, value, error: undefined, readAt: Date.now() / 1000 });
        } catch (failure) {
          if (stop.signal.aborted) return;
          const error = failure instanceof Error ? failure : new Error(String(failure));
          setState((last) =>
            last.key === key
              ? { ...last, error }
              : { key, value: undefined, error, readAt: undefined },
          );
        }
      }
      if (every !== undefined) timer = setTimeout(run, every * 1000);
    };
    void run();
    const seen = () => {
      if (document.visibilityState !== "visible" || every === undefined) return;
      clearTimeout(timer);
      void run();
    };
    document.addEventListener("visibilitychange", seen);
    return () => {
      stop.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [key, every, turn]);
  const again = useCallback(() => setTurn((last) => last + 1), []);
  if (state.key !== key) return { value: undefined, error: undefined, readAt: undefined, again };
  return { ...state, again };
}
