/* Asking again and again: one request at a time, and only while somebody looks. */

import { ApiError } from "./api.js";
import { connected, disturbed } from "./status.js";

// Milliseconds. After a failure; doubled each time.
const SHORTEST = 1000;
const LONGEST = 15_000;

/**
 * Call `work(signal)` again and again, `every` milliseconds after its last end.
 * `refused(error)` hears of refusals that have a reason to show, and null of success.
 */
export function polling(work, refused, every = 1000) {
  let wanted = false;
  let running = null;
  let timer = 0;
  let failures = 0;

  /** Milliseconds until the next attempt after a failure. */
  function delay(error) {
    failures += 1;
    const doubled = Math.min(LONGEST, SHORTEST * 2 ** failures);
    return error.retryAfter === null ? doubled : error.retryAfter * 1000;
  }

  async function turn(signal) {
    try {
      await work(signal);
      failures = 0;
      if (!signal.aborted) {
        connected();
        refused(null);
      }
      return every;
    } catch (error) {
      if (signal.aborted || !(error instanceof ApiError)) {
        throw error;
      }
      if (error.isPassing) {
        disturbed(error);
      } else {
        connected();
      }
      // One that is away or busy has nothing to say that the bar does not.
      if (error.isReasoned) {
        refused(error);
      }
      return delay(error);
    }
  }

  /** Begin a turn now; one that is under way is given up first. */
  async function now() {
    pause();
    if (!wanted || document.hidden) {
      return;
    }
    const mine = new AbortController();
    running = mine;
    try {
      const wait = await turn(mine.signal);
      if (running === mine) {
        running = null;
        timer = setTimeout(now, wait);
      }
    } catch (error) {
      if (!mine.signal.aborted) {
        throw error;
      }
    }
  }

  function pause() {
    clearTimeout(timer);
    running?.abort();
    running = null;
  }

  document.addEventListener("visibilitychange", now);
  return {
    now,
    start() {
      wanted = true;
      failures = 0;
      return now();
    },
    stop() {
      wanted = false;
      pause();
    },
  };
}
