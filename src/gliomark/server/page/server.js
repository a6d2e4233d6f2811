/** Calls of the server's HTTP interface. The token is kept in the tab's session storage and sent in a header only. */

const TOKEN_KEY = "gliomark-token";
export const UNREACHABLE =
  "The server at {} does not respond. Check that it is running and reachable over the network.";
const CONNECTION_LOST = "The connection to the server at {} was lost before the request finished.";
const FAILED = "The server reported an internal error (status {}). Try again.";

/** An error to show: either `source` and `values`, a text of the desktop client, or `record`, a message. */
export class CallError extends Error {
  constructor({ source, values = [], record, status = 0 }) {
    super(source ?? record.text);
    Object.assign(this, { source, values, record, status });
  }

  /** Whether the same call may succeed later. */
  get isTemporary() {
    return this.status === 0 || this.status >= 500;
  }
}

export const getToken = () => sessionStorage.getItem(TOKEN_KEY) ?? "";

export function setToken(token) {
  if (token) sessionStorage.setItem(TOKEN_KEY, token);
  else sessionStorage.removeItem(TOKEN_KEY);
}

/** Call the server and return the response. Throws CallError for every failure. */
export async function call(path, { method = "GET", body, contentType, signal } = {}) {
  const headers = createHeaders();
  if (contentType) headers["Content-Type"] = contentType;
  let response;
  try {
    response = await fetch(path, { method, body, headers, signal });
  } catch (error) {
    throw signal?.aborted ? error : new CallError({ source: UNREACHABLE, values: [location.host] });
  }
  if (!response.ok) throw await createError(response.status, response);
  return response;
}

export const getJson = async (path, options) => readBody(await call(path, options), "json");
export const getBytes = async (path, options) => readBody(await call(path, options), "arrayBuffer");

export function sendJson(method, path, document) {
  return getJson(path, { method, body: JSON.stringify(document), contentType: "application/json" });
}

/** Upload files as a new study; each file is `{path, file}` with its path in the patient's folder. */
export function uploadStudy(files, fields, signal, onProgress) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  for (const { path, file } of files) form.append("files", file, path);
  const request = new XMLHttpRequest(); // fetch reports no progress of an upload
  request.open("POST", "api/studies");
  for (const [name, value] of Object.entries(createHeaders())) request.setRequestHeader(name, value);
  request.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total);
  signal.addEventListener("abort", () => request.abort());
  return new Promise((resolve, reject) => {
    request.onload = async () => {
      if (request.status < 400) resolve(JSON.parse(request.responseText));
      else reject(await createError(request.status, new Response(request.responseText)));
    };
    request.onerror = () => reject(new CallError({ source: CONNECTION_LOST, values: [location.host] }));
    request.onabort = () => reject(new DOMException("aborted", "AbortError"));
    request.send(form);
  });
}

/** Follow the events of a document until it is final, and return it. `onEvent` receives every state. */
export async function followEvents(path, isFinal, signal, onEvent) {
  for (;;) {
    let document;
    for await (const event of readEvents(await call(`${path}/events`, { signal }))) {
      document = event;
      onEvent(document);
    }
    if (document === undefined || !isFinal(document)) {
      document = await getJson(path, { signal }); // a proxy may have closed the stream
      onEvent(document);
    }
    if (isFinal(document)) return document;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

/** Save a file of the server under a name. */
export async function saveFile(path, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([await getBytes(path)]));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const createHeaders = () => (getToken() ? { Authorization: `Bearer ${getToken()}` } : {});

async function readBody(response, kind) {
  try {
    return await response[kind]();
  } catch {
    throw new CallError({ source: CONNECTION_LOST, values: [location.host] });
  }
}

async function createError(status, response) {
  try {
    const { detail, ...record } = await response.json();
    if (typeof detail === "string") return new CallError({ record: { text: detail, ...record }, status });
  } catch {
    // a proxy's page
  }
  return new CallError({ source: FAILED, values: [status], status });
}

async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    let chunk;
    try {
      chunk = await reader.read();
    } catch {
      return; // interrupted: the document is requested next, which reports a server that is gone
    }
    if (chunk.done) return;
    const blocks = (buffer + chunk.value).split("\n\n");
    buffer = blocks.pop();
    for (const block of blocks) if (block.startsWith("data:")) yield JSON.parse(block.slice(5));
  }
}
