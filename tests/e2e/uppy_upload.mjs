// Uploads a file by the unchanged @uppy/aws-s3, in a page as far as it needs one: cross-origin
// requests, with their preflights, and XMLHttpRequest.
// Argument: JSON {api, token, file, name, type, way, md5?, chunk?, reload?, resume?}. With `way`
// "sign" the plugin signs by the option `signRequest`; with "companion" it takes the API for a
// companion. `reload` ends the page halfway through that part, and `resume` is what it had stored.
// Output: JSON lines {stored}, {sent} and at last {done} or {error}.
import { createHash } from 'node:crypto';
import { openAsBlob } from 'node:fs';
import AwsS3 from '@uppy/aws-s3';
import Uppy from '@uppy/core';

const page = JSON.parse(process.argv[2]);
const origin = 'https://app.example';
const wire = globalThis.fetch;
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const listed = (text) => (text || '').toLowerCase().split(',').map((word) => word.trim());
const allows = (text, word) => listed(text).some((each) => each === '*' || each === word.toLowerCase());

/** As a browser's fetch from another origin. */
async function crossOrigin(url, options = {}) {
  const method = options.method || 'GET';
  const headers = new Headers(options.headers);
  const names = [...headers.keys()];
  const asked = { origin, 'access-control-request-method': method };
  if (names.length) asked['access-control-request-headers'] = names.join(',');
  const preflight = await wire(url, { method: 'OPTIONS', headers: asked });
  const granted = (name) => preflight.headers.get(`access-control-allow-${name}`);
  const missing = names.filter((name) => !allows(granted('headers'), name));
  if (!preflight.ok || !allows(granted('methods'), method) || missing.length) {
    throw new TypeError(`the preflight of ${method} ${new URL(url).pathname} refused ${missing}`);
  }
  headers.set('origin', origin);
  const answer = await wire(url, { ...options, headers, duplex: 'half' });
  if (!allows(answer.headers.get('access-control-allow-origin'), origin)) {
    throw new TypeError(`${method} ${new URL(url).pathname} may not be read`);
  }
  return answer;
}

async function* halfOf(blob) {
  yield new Uint8Array(await blob.slice(0, blob.size / 2).arrayBuffer());
  process.exit(0);
}

globalThis.XMLHttpRequest = class {
  upload = {};
  status = 0;
  #headers = {};
  #answer;
  open(method, url) {
    this.#answer = { method, url };
  }
  setRequestHeader(name, value) {
    this.#headers[name] = value;
  }
  getResponseHeader(name) {
    const headers = this.#answer.headers;
    return allows(headers.get('access-control-expose-headers'), name) ? headers.get(name) : null;
  }
  abort() {}
  async send(body) {
    const { method, url } = this.#answer;
    const number = Number(new URL(url).searchParams.get('partNumber'));
    try {
      const sent = page.reload && number === page.reload ? halfOf(body) : body;
      this.#answer = await crossOrigin(url, { method, headers: this.#headers, body: sent });
      this.status = this.#answer.status;
      this.statusText = this.#answer.statusText;
      this.responseText = await this.#answer.text();
      const size = body?.size || 0;
      this.upload.onprogress?.({ lengthComputable: true, loaded: size, total: size });
    } catch (error) {
      this.statusText = String(error.cause || error);
      return this.onerror();
    }
    return this.onload();
  }
};

const file = await openAsBlob(page.file, { type: page.type });
const chunk = page.chunk || 8 * 1024 ** 2;
const authorization = `Bearer ${page.token}`;

/** Signs for the option `signRequest`, with the MD5 of each part. */
async function signRequest(request) {
  const signed = { ...request };
  if (request.partNumber && page.md5) {
    const start = (request.partNumber - 1) * chunk;
    const part = await file.slice(start, start + chunk).arrayBuffer();
    signed.md5 = createHash('md5').update(new Uint8Array(part)).digest('hex');
  }
  const headers = { authorization, 'content-type': 'application/json' };
  const options = { method: 'POST', headers, body: JSON.stringify(signed) };
  const answer = await crossOrigin(`${page.api}/s3/sign`, options);
  return answer.json();
}

// The plugin adds no header to what it asks of a companion: the page's fetch does.
globalThis.fetch = (url, options = {}) =>
  crossOrigin(url, { ...options, headers: { ...options.headers, authorization } });

const uppy = new Uppy({ logger: { debug() {}, warn() {}, error: console.error } });
uppy.use(AwsS3, {
  ...(page.way === 'sign' ? { signRequest } : { companionEndpoint: page.api }),
  shouldUseMultipart: !page.whole,
  getChunkSize: () => chunk,
});
const id = uppy.addFile({ name: page.name, type: page.type, data: file });
if (page.resume) uppy.setFileState(id, { s3Multipart: page.resume });
uppy.on('state-update', (before, now) => {
  const stored = now.files[id]?.s3Multipart;
  if (stored && stored !== before.files[id]?.s3Multipart) say({ stored });
});
uppy.on('s3-multipart:part-uploaded', (_, part) => say({ sent: part.PartNumber }));
const { successful, failed } = await uppy.upload();
if (failed.length) say({ error: String(failed[0].error) });
else say({ done: successful[0].response.body });
process.exit(0);
