import { type AssemblyDocument, connect, type ServerMessage } from "@jobplane/client";
import {
  act,
  cleanup,
  configure,
  render,
  renderHook,
  screen,
  waitFor,
} from "@testing-library/react";
import axe from "axe-core";
import { type ReactNode, StrictMode, Suspense, use } from "react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import {
  JobProgress,
  JobplaneProvider,
  progressMessage,
  StatusCard,
  useAssembly,
  useJob,
} from "../src/index.js";

/** The other end of a WebSocket, in the page. */
class Peer extends EventTarget {
  static sent: Record<string, unknown>[] = [];
  static current: Peer;
  onopen?: () => void;
  onmessage?: (event: { data: string }) => void;

  constructor() {
    super();
    Peer.current = this;
    queueMicrotask(() => this.onopen?.());
  }

  send(frame: string): void {
    Peer.sent.push(JSON.parse(frame));
  }

  close(): void {}
}

const timestamp = "2026-11-29T08:00:00.000Z";
const post = (message: object): void =>
  act(() => {
    Peer.current.onmessage?.({ data: JSON.stringify({ request_id: "a", timestamp, ...message }) });
  });

let client: ReturnType<typeof connect>;
const wrapper = ({ children }: { children: ReactNode }) => (
  <StrictMode>
    <JobplaneProvider client={client}>{children}</JobplaneProvider>
  </StrictMode>
);

configure({ asyncUtilTimeout: 60_000 });

beforeEach(() => {
  Peer.sent = [];
  client = connect("ws://x", "t", { WebSocket: Peer as unknown as typeof WebSocket });
});

afterEach(() => {
  cleanup();
  client.close();
  vi.unstubAllGlobals();
});

const error = (code: string) => ({ code, message: `ended with ${code}`, retryable: false });

test.each<[Partial<ServerMessage> & { type: string }, string]>([
  [{ type: "complete", seq: 2, success: true, result: { n: 1 } }, "completed"],
  [{ type: "error", seq: 2, error: error("PROCESSING_FAILED") } as never, "failed"],
  [{ type: "error", seq: 2, error: error("CANCELLED") } as never, "cancelled"],
])("a job goes from waiting to its end: %o", async (end, state) => {
  const { result } = renderHook(() => useJob("a"), { wrapper });
  expect(result.current.state).toBe("waiting");
  await waitFor(() => expect(Peer.sent.some(({ action }) => action === "subscribe")).toBe(true));
  post({ type: "progress", seq: 1, percentage: 40, message: "Step 2 of 5" });
  expect(result.current).toMatchObject({ state: "running", progress: { percentage: 40 } });
  post(end);
  expect(result.current).toMatchObject({ state, ended: true });
  const before = Peer.sent.length;
  post({ type: "progress", seq: 3, percentage: 50, message: "late" });
  expect(result.current.state).toBe(state);
  expect(Peer.sent).toHaveLength(before);
});

test("the events of a job are passed on in order and once", async () => {
  const heard: unknown[] = [];
  renderHook(() => useJob("a", { onEvent: (event) => heard.push(event) }), { wrapper });
  await waitFor(() => expect(Peer.sent.some(({ action }) => action === "subscribe")).toBe(true));
  post({ type: "event", first: 1, events: ["one", "two"], gap: false });
  post({ type: "event", first: 2, events: ["two", "three"], gap: false });
  expect(heard).toEqual(["one", "two", "three"]);
});

test("another id begins anew, and the old one is not heard any more", async () => {
  const { result, rerender } = renderHook(({ id }) => useJob(id), {
    wrapper,
    initialProps: { id: "a" as string | null },
  });
  await waitFor(() => expect(Peer.sent).not.toHaveLength(0));
  post({ type: "progress", seq: 1, percentage: 40, message: "x" });
  rerender({ id: "b" });
  expect(result.current.state).toBe("waiting");
  post({ type: "progress", seq: 2, percentage: 90, message: "x" });
  expect(result.current.progress).toBeNull();
  rerender({ id: null });
  expect(result.current.state).toBe("waiting");
});

function Film({ data }: { data: Promise<string> }) {
  const { state } = useJob("a");
  return <p>{`${state}: ${use(data)}`}</p>;
}

test("a job whose component suspends at first is shown to its end, and then nothing is sent", async () => {
  let arrive = (): void => {};
  const data = new Promise<string>((resolve) => {
    arrive = () => resolve("film.mp4");
  });
  await act(async () => {
    render(
      <Suspense fallback={<p>Loading</p>}>
        <Film data={data} />
      </Suspense>,
      { wrapper },
    );
  });
  screen.getByText("Loading");
  await act(async () => arrive());
  await screen.findByText("waiting: film.mp4");
  await waitFor(() => expect(Peer.sent.some(({ action }) => action === "subscribe")).toBe(true));
  post({ type: "progress", seq: 1, percentage: 10, message: "" });
  post({ type: "complete", seq: 2, success: true, result: {} });
  await screen.findByText("completed: film.mp4");
  const before = Peer.sent.length;
  post({ type: "progress", seq: 3, percentage: 50, message: "late" });
  screen.getByText("completed: film.mp4");
  expect(Peer.sent).toHaveLength(before);
});

test("without a provider, the error says what to do", () => {
  vi.spyOn(console, "error").mockImplementation(() => {});
  expect(() => renderHook(() => useJob("a"))).toThrow("<JobplaneProvider>");
});

const running: AssemblyDocument = {
  assembly_id: "0123456789abcdef",
  ok: "ASSEMBLY_EXECUTING",
  message: "Running",
  template_id: "tpl",
  created_at: timestamp,
  updated_at: timestamp,
  steps_total: 3,
  steps_completed: 1,
  current_step: "hashed",
  progress_pct: 33,
  uploads: [],
  results: {},
  bytes_expected: 0,
  bytes_received: 0,
  bytes_usage: 0,
  branch: "main",
  user: { userId: "anna" },
};
const { ok: _, ...bare } = running;
const completed: AssemblyDocument = {
  ...running,
  ok: "ASSEMBLY_COMPLETED",
  execution_duration: 5.2,
  uploads: [{ id: "u1", name: "a.csv", size: 2048, mime: "text/csv" } as never],
  results: {
    hashed: [{ id: "r1", name: "a.json", size: 12, ssl_url: "https://x/a.json" } as never],
  },
};
const failed: AssemblyDocument = { ...bare, error: "MD5_MISMATCH", message: "another content" };
const cancelled: AssemblyDocument = { ...bare, error: "ASSEMBLY_CANCELED" };

test.each([
  [completed, "Completed in 5.2 s"],
  [failed, "Failed: another content"],
  [cancelled, "Cancelled"],
  [running, "Step 2 of 3: hashed"],
  [{ ...running, steps_total: 0 }, "Waiting"],
])("a card says how an assembly is, and axe finds nothing: %#", async (assembly, text) => {
  const { container } = render(<StatusCard assembly={assembly} />);
  expect(progressMessage(assembly)).toBe(text);
  expect(container.textContent).toContain(text);
  const { violations } = await axe.run(container);
  expect(violations).toEqual([]);
});

test("a card lists uploads and links results", () => {
  render(<StatusCard assembly={completed} />);
  expect(screen.getByText("1 upload")).toBeTruthy();
  expect(screen.getByText("2.0 KB")).toBeTruthy();
  expect(screen.getByRole("link", { name: "a.json" }).getAttribute("href")).toBe(
    "https://x/a.json",
  );
});

test("a progress bar follows its job, and axe finds nothing", async () => {
  const { container } = render(<JobProgress id="a" label="Film" />, { wrapper });
  await waitFor(() => expect(Peer.sent).not.toHaveLength(0));
  post({ type: "progress", seq: 1, percentage: 40, message: "Step 2 of 5" });
  const bar = screen.getByRole("progressbar", { name: "Film" });
  expect((bar as HTMLProgressElement).value).toBe(40);
  expect((await axe.run(container)).violations).toEqual([]);
});

test.each([completed, failed, cancelled, { ...bare, ok: "ASSEMBLY_CANCELED" } as AssemblyDocument])(
  "polling ends with the assembly: %#",
  async (end) => {
    const answers = [null, running, end];
    const read = vi.fn(async () => (answers.length ? (answers.shift() ?? null) : end));
    const { result } = renderHook(() => useAssembly("a", { every: 1, read }));
    expect(result.current.loading).toBe(true);
    await waitFor(() => expect(result.current.status).toBe(end));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(read).toHaveBeenCalledTimes(3);
  },
);

test.each([
  [403, 1],
  [500, 2],
])("an answer of %i is shown, and repeated only if that helps", async (status, least) => {
  const fetch = vi.fn(async () => new Response("{}", { status }));
  vi.stubGlobal("fetch", fetch);
  const { result, unmount } = renderHook(() => useAssembly("a", { every: 1 }));
  await waitFor(() => expect(result.current.error).toContain(String(status)));
  await waitFor(() => expect(fetch.mock.calls.length).toBeGreaterThanOrEqual(least));
  await new Promise((resolve) => setTimeout(resolve, 20));
  if (least === 1) expect(fetch).toHaveBeenCalledTimes(1);
  unmount();
});
