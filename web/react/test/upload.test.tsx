import {
  type AssembleOptions,
  type AssemblyDocument,
  JobCancelledError,
  type JobList,
  type Jobplane,
  UploadError,
} from "@jobplane/client";
import {
  act,
  cleanup,
  configure,
  fireEvent,
  render,
  renderHook,
  screen,
  waitFor,
} from "@testing-library/react";
import axe from "axe-core";
import { type ReactNode, StrictMode } from "react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { JobplaneProvider, Uploader, useJobs, useUpload } from "../src/index.js";

const document: AssemblyDocument = {
  assembly_id: "0123456789abcdef",
  ok: "ASSEMBLY_COMPLETED",
  message: "Completed",
  template_id: "tpl",
  created_at: "2026-11-29T08:00:00.000Z",
  updated_at: "2026-11-29T08:00:00.000Z",
  uploads: [],
  results: {},
  bytes_expected: 0,
  bytes_received: 0,
  bytes_usage: 0,
  branch: "main",
  user: { userId: "anna" },
};

/** The call of `assemble` that runs, and its end. */
let call: {
  files: File[];
  options: AssembleOptions;
  resolve: (document: AssemblyDocument) => void;
  reject: (error: Error) => void;
};
const list = vi.fn<(options: object) => Promise<JobList>>();
const client = {
  assemble: (files: File[], _: string, options: AssembleOptions) =>
    new Promise((resolve, reject) => {
      call = { files, options, resolve, reject };
    }),
  jobs: { list },
} as unknown as Jobplane;

const wrapper = ({ children }: { children: ReactNode }) => (
  <StrictMode>
    <JobplaneProvider client={client}>{children}</JobplaneProvider>
  </StrictMode>
);

configure({ asyncUtilTimeout: 60_000 });

beforeEach(() => list.mockReset());
afterEach(cleanup);

const film = new File(["12345"], "film.mp4");
const sent = { index: 0, name: "film.mp4", size: 5, sent: 3, stored: false };

test("an upload goes from its files over the job to the document", async () => {
  const { result } = renderHook(() => useUpload("tpl", { parallel: 2 }), { wrapper });
  expect(result.current.state).toBe("idle");
  act(() => result.current.start([film]));
  expect(call.options.parallel).toBe(2);
  expect(result.current).toMatchObject({
    state: "sending",
    files: [{ name: "film.mp4", sent: 0 }],
  });
  act(() => call.options.onUpload?.(sent));
  expect(result.current.files).toEqual([sent]);
  act(() => result.current.pause());
  expect([result.current.state, call.options.control?.paused]).toEqual(["paused", true]);
  act(() => result.current.resume());
  expect([result.current.state, call.options.control?.paused]).toEqual(["sending", false]);
  act(() => call.options.onStart?.({ id: "a", status: "queued", assemblyId: "0123" }));
  expect(result.current).toMatchObject({ state: "processing", job: { id: "a" } });
  await act(async () => call.resolve(document));
  expect(result.current).toMatchObject({ state: "completed", document });
});

test.each([
  ["cancelled", new UploadError("cancelled", undefined, "the upload was cancelled")],
  ["cancelled", new JobCancelledError("cancelled", { code: "CANCELLED" })],
  ["failed", new UploadError("refused", "film.mp4", "is too large")],
])("an upload ends %s with %s", async (state, error) => {
  const { result } = renderHook(() => useUpload("tpl"), { wrapper });
  act(() => result.current.start([film]));
  act(() => result.current.cancel());
  expect(call.options.control?.cancelled).toBe(true);
  await act(async () => call.reject(error));
  expect(result.current).toMatchObject({ state, error });
});

test("another upload, and the component's end, stop the one before", () => {
  const { result, unmount } = renderHook(() => useUpload("tpl"), { wrapper });
  act(() => result.current.start([film]));
  const first = call;
  act(() => result.current.start([film]));
  expect([first.options.signal?.aborted, call.options.signal?.aborted]).toEqual([true, false]);
  act(() => first.options.onUpload?.(sent));
  expect(result.current.files[0]?.sent).toBe(0);
  unmount();
  expect(call.options.signal?.aborted).toBe(true);
});

test("an uploader shows files, buttons, errors and the card, and axe finds nothing", async () => {
  const { container } = render(<Uploader template="tpl" label="Films" />, { wrapper });
  const clean = async () => expect((await axe.run(container)).violations).toEqual([]);
  await clean();
  fireEvent.change(screen.getByLabelText("Films", { selector: "input" }), {
    target: { files: [film] },
  });
  act(() => call.options.onUpload?.(sent));
  const bar = screen.getByRole("progressbar", { name: "film.mp4" }) as HTMLProgressElement;
  expect([bar.value, bar.max]).toEqual([3, 5]);
  fireEvent.click(screen.getByRole("button", { name: "Pause" }));
  expect(screen.getByRole("status").textContent).toBe("Paused");
  fireEvent.click(screen.getByRole("button", { name: "Resume" }));
  await clean();
  await act(async () => call.reject(new UploadError("refused", "film.mp4", "is too large")));
  expect(screen.getByRole("alert").textContent).toBe("film.mp4: is too large");
  const drop = container.querySelector(".jobplane-drop") as Element;
  fireEvent.drop(drop, { dataTransfer: { files: [film] } });
  act(() => call.options.onStart?.({ id: "a", status: "queued", assemblyId: "0123" }));
  const progress = { type: "progress", seq: 1, percentage: 40, message: "Step 1" } as never;
  act(() => call.options.onProgress?.(progress));
  expect(screen.getByText("Step 1")).toBeTruthy();
  await act(async () => call.resolve(document));
  expect(screen.getByRole("heading").textContent).toBe("Assembly 89abcdef");
  await clean();
});

const job = (request_id: string, status: string) =>
  ({ request_id, status }) as unknown as JobList["jobs"][number];

test("a list of jobs is read until all have ended, and by the page", async () => {
  list.mockResolvedValueOnce({ jobs: [job("b", "PENDING")], next: "x" });
  list.mockResolvedValueOnce({ jobs: [job("b", "PROCESSING")], next: "x" });
  list.mockResolvedValue({ jobs: [job("b", "COMPLETED")], next: "x" });
  const { result } = renderHook(() => useJobs({ action: "delay" }, { every: 1 }), { wrapper });
  expect(result.current).toMatchObject({ jobs: [], loading: true });
  await waitFor(() => expect(result.current.jobs[0]?.status).toBe("COMPLETED"));
  const reads = list.mock.calls.length;
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(list).toHaveBeenCalledTimes(reads);
  expect(list).toHaveBeenLastCalledWith({ action: "delay" });
  list.mockResolvedValue({ jobs: [job("a", "FAILED")], next: null } as never);
  expect(result.current.hasMore).toBe(true);
  await act(async () => result.current.more());
  expect(list).toHaveBeenLastCalledWith({ action: "delay", next: "x" });
  expect(result.current.jobs.map(({ request_id }) => request_id)).toEqual(["b", "a"]);
  expect(result.current.hasMore).toBe(false);
  list.mockResolvedValue({ jobs: [job("c", "FAILED")], next: "y" });
  await act(async () => result.current.refresh());
  expect(result.current.jobs.map(({ request_id }) => request_id)).toEqual(["c", "b", "a"]);
});

test("a list that is refused says so, and is not read again", async () => {
  let reads = 0;
  const refused = (): Promise<JobList> => {
    reads += 1;
    return Promise.reject(Object.assign(new Error("refused"), { retryable: false }));
  };
  const other = { jobs: { list: refused } } as unknown as Jobplane;
  const { result } = renderHook(() => useJobs({}, { every: 1 }), {
    wrapper: ({ children }) => <JobplaneProvider client={other}>{children}</JobplaneProvider>,
  });
  await waitFor(() => expect(result.current.error?.message).toBe("refused"));
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(reads).toBe(1);
});
