/**
 * Makes a function that returns the MD5 of a blob, as hex digits.
 *
 * A worker gets the text of this function: it uses nothing that is outside of it.
 */
function makeMd5(): (blob: Blob) => Promise<string> {
  const sines = Int32Array.from({ length: 64 }, (_, n) => Math.abs(Math.sin(n + 1)) * 2 ** 32);
  const blockBytes = 2 ** 20;

  function step(
    from: number,
    to: number,
    mixed: number,
    word: number | undefined,
    sine: number | undefined,
    shift: number,
  ): number {
    const sum = (from + mixed + (word as number) + (sine as number)) | 0;
    return (to + ((sum << shift) | (sum >>> (32 - shift)))) | 0;
  }

  function add(state: Int32Array, words: Int32Array): void {
    let [a0 = 0, b0 = 0, c0 = 0, d0 = 0] = state;
    for (let at = 0; at < words.length; at += 16) {
      let a = a0;
      let b = b0;
      let c = c0;
      let d = d0;
      for (let n = 0; n < 16; n += 4) {
        a = step(a, b, d ^ (b & (c ^ d)), words[at + n], sines[n], 7);
        d = step(d, a, c ^ (a & (b ^ c)), words[at + n + 1], sines[n + 1], 12);
        c = step(c, d, b ^ (d & (a ^ b)), words[at + n + 2], sines[n + 2], 17);
        b = step(b, c, a ^ (c & (d ^ a)), words[at + n + 3], sines[n + 3], 22);
      }
      for (let n = 16; n < 32; n += 4) {
        a = step(a, b, c ^ (d & (b ^ c)), words[at + ((5 * n + 1) & 15)], sines[n], 5);
        d = step(d, a, b ^ (c & (a ^ b)), words[at + ((5 * n + 6) & 15)], sines[n + 1], 9);
        c = step(c, d, a ^ (b & (d ^ a)), words[at + ((5 * n + 11) & 15)], sines[n + 2], 14);
        b = step(b, c, d ^ (a & (c ^ d)), words[at + ((5 * n + 16) & 15)], sines[n + 3], 20);
      }
      for (let n = 32; n < 48; n += 4) {
        a = step(a, b, b ^ c ^ d, words[at + ((3 * n + 5) & 15)], sines[n], 4);
        d = step(d, a, a ^ b ^ c, words[at + ((3 * n + 8) & 15)], sines[n + 1], 11);
        c = step(c, d, d ^ a ^ b, words[at + ((3 * n + 11) & 15)], sines[n + 2], 16);
        b = step(b, c, c ^ d ^ a, words[at + ((3 * n + 14) & 15)], sines[n + 3], 23);
      }
      for (let n = 48; n < 64; n += 4) {
        a = step(a, b, c ^ (b | ~d), words[at + ((7 * n) & 15)], sines[n], 6);
        d = step(d, a, b ^ (a | ~c), words[at + ((7 * n + 7) & 15)], sines[n + 1], 10);
        c = step(c, d, a ^ (d | ~b), words[at + ((7 * n + 14) & 15)], sines[n + 2], 15);
        b = step(b, c, d ^ (c | ~a), words[at + ((7 * n + 21) & 15)], sines[n + 3], 21);
      }
      a0 = (a0 + a) | 0;
      b0 = (b0 + b) | 0;
      c0 = (c0 + c) | 0;
      d0 = (d0 + d) | 0;
    }
    state.set([a0, b0, c0, d0]);
  }

  return async (blob) => {
    const state = Int32Array.of(0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476);
    let start = 0;
    for (; start + blockBytes <= blob.size; start += blockBytes) {
      const block = await blob.slice(start, start + blockBytes).arrayBuffer();
      add(state, new Int32Array(block));
    }
    const rest = new Uint8Array(await blob.slice(start).arrayBuffer());
    const last = new Uint8Array((((rest.length + 8) >> 6) + 1) * 64);
    last.set(rest);
    last[rest.length] = 0x80;
    const view = new DataView(last.buffer);
    view.setUint32(last.length - 8, blob.size * 8, true);
    view.setUint32(last.length - 4, blob.size / 2 ** 29, true);
    add(state, new Int32Array(last.buffer));
    const bytes = new Uint8Array(state.buffer);
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  };
}

interface Answer {
  number: number;
  md5?: string;
  error?: string;
}

interface Asked {
  blob: Blob;
  resolve: (md5: string | Promise<string>) => void;
  reject: (error: Error) => void;
}

/** Computes MD5s in a worker, or on this thread where a page may not start one. */
export class Md5 {
  private readonly here = makeMd5();
  private readonly asked = new Map<number, Asked>();
  private worker: Worker | null;
  private count = 0;

  constructor() {
    this.worker = started();
    if (!this.worker) return;
    this.worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const asked = this.asked.get(data.number);
      this.asked.delete(data.number);
      if (data.md5 !== undefined) asked?.resolve(data.md5);
      else asked?.reject(new Error(data.error));
    };
    this.worker.onerror = () => this.withoutWorker();
  }

  /** The MD5 of a blob as hex digits. Rejects when it can't be read. */
  of(blob: Blob): Promise<string> {
    const { worker } = this;
    if (!worker) return this.here(blob);
    return new Promise((resolve, reject) => {
      this.count += 1;
      this.asked.set(this.count, { blob, resolve, reject });
      worker.postMessage({ number: this.count, blob });
    });
  }

  close(): void {
    this.worker?.terminate();
  }

  private withoutWorker(): void {
    this.close();
    this.worker = null;
    for (const { blob, resolve } of this.asked.values()) resolve(this.here(blob));
    this.asked.clear();
  }
}

/** A worker of a blob needs no file beside this one, which bundlers would have to find. */
function started(): Worker | null {
  const text = `const md5 = (${makeMd5})();
onmessage = ({data: {number, blob}}) => md5(blob).then(
  (md5) => postMessage({number, md5}),
  (error) => postMessage({number, error: String(error)}));`;
  try {
    const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    const worker = new Worker(url);
    worker.addEventListener("message", () => URL.revokeObjectURL(url), { once: true });
    return worker;
  } catch {
    return null;
  }
}
