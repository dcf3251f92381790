import { UploadError } from "./errors.js";

/** Pauses and cancels the uploads of one call of `assemble`. */
export class UploadControl {
  private isPaused = false;
  private isCancelled = false;
  private failure: { error: unknown } | null = null;
  private requests = new AbortController();
  private readonly waiting: (() => void)[] = [];

  /** What a cancellation does when the files are stored. For `assemble`. */
  onCancel: () => void = () => {};

  get paused(): boolean {
    return this.isPaused;
  }

  get cancelled(): boolean {
    return this.isCancelled;
  }

  /** Ends the requests under way: the parts that they sent are sent again. */
  pause(): void {
    this.isPaused = true;
    this.requests.abort();
  }

  resume(): void {
    this.isPaused = false;
    this.requests = new AbortController();
    this.wake();
  }

  /** Ends the call, deletes the parts that were sent, and cancels the job if it has begun. */
  cancel(): void {
    this.isCancelled = true;
    this.end(new UploadError("cancelled", undefined, "the upload was cancelled"));
    this.onCancel();
  }

  /** Ends the requests of the call. For `assemble`. */
  end(error: unknown): void {
    this.failure ??= { error };
    this.requests.abort();
    this.wake();
  }

  /** The signal of the next request, when there is no pause. For `assemble`. */
  async ready(): Promise<AbortSignal> {
    while (this.isPaused && !this.failure) {
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    }
    if (this.failure) throw this.failure.error;
    return this.requests.signal;
  }

  private wake(): void {
    for (const wake of this.waiting.splice(0)) wake();
  }
}
