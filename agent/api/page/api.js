/* The server: requests, and what its refusals mean. */

// Milliseconds. A server that is silent for so long is as good as away.
const PATIENCE = 15_000;

/** A refusal, or no answer at all (status 0). `retryAfter` is in seconds, or null. */
export class ApiError extends Error {
  constructor(status, message, { retryAfter = null, details = null } = {}) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
    this.details = details;
  }

  /** Whether it may go away by itself. */
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }

  /** Whether the server said what is wrong. */
  get isReasoned() {
    return this.status !== 0 && this.status !== 429;
  }
}

/** GET; the answer's JSON and whether the list goes on. */
export async function get(path, signal) {
  const answer = await request(path, { signal });
  const more = /rel="?next"?/.test(answer.headers.get("Link") ?? "");
  return { body: await readable(answer.json(), signal), more };
}

/** POST an action; its id. The same key is the same action, however often it is sent. */
export async function ask(path, body, key) {
  const answer = await request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": key },
    body: JSON.stringify(body),
  });
  return (await readable(answer.text())).trim();
}

/** End the session. */
export async function signOut() {
  await request("/session", { method: "DELETE" });
}

/** What makes a request the same when it is sent again. */
export function newKey() {
  // Browsers have randomUUID only where the page came over TLS or from this machine.
  return crypto.randomUUID?.() ?? crypto.getRandomValues(new Uint32Array(4)).join("-");
}

async function request(path, { signal, ...options }) {
  const limit = AbortSignal.timeout(PATIENCE);
  const signals = signal ? AbortSignal.any([signal, limit]) : limit;
  const answer = await readable(fetch(path, { ...options, signal: signals }), signal);
  if (answer.status === 401) {
    // The same address is the sign-in page now, and leads back here.
    location.reload();
  }
  if (!answer.ok) {
    throw await refusal(answer);
  }
  return answer;
}

/** What was read, or that the server is away; what the caller gave up stays given up. */
async function readable(reading, signal) {
  try {
    return await reading;
  } catch (error) {
    if (signal?.aborted) {
      throw error;
    }
    throw new ApiError(0, "the server does not answer");
  }
}

async function refusal(answer) {
  const said = await answer.json().catch(() => ({}));
  const retryAfter = Number(answer.headers.get("Retry-After")) || null;
  const message = said.message ?? `the server answered ${answer.status}`;
  return new ApiError(answer.status, message, { retryAfter, details: said.details ?? null });
}
