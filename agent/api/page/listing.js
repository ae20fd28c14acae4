/* The list of actions as it is put together from pages, newest first. */

import { hasEnded } from "./words.js";

/**
 * The list with `page` in the place of what was there: from behind the action `cursor`, or from the
 * top, down to the page's last one. `isLast` says that nothing comes after the page.
 */
export function spliced(list, cursor, page, isLast) {
  const start = cursor === null ? 0 : list.findIndex((action) => action.action_id === cursor) + 1;
  if (cursor !== null && start === 0) {
    return list; // the cursor is gone, and the page belongs nowhere
  }
  const head = list.slice(0, start);
  if (isLast) {
    return [...head, ...page];
  }
  const renewed = new Set(page.map((action) => action.action_id));
  const oldest = page.at(-1)?.action_timestamp;
  // What is newer than the page's last one and not in it is not in the list any more: it has come
  // into a state that the filters leave out.
  const isBelow = (action) =>
    !renewed.has(action.action_id) && Date.parse(action.action_timestamp) <= Date.parse(oldest);
  return [...head, ...page, ...list.slice(start).filter(isBelow)];
}

/**
 * Behind which action to ask again for those below the first page that can still change; null where
 * there are none. `after` is what this has returned the last time, so that all get their turn.
 */
export function staleCursor(list, first, after) {
  const changing = [];
  for (let index = first; index < list.length; index += 1) {
    if (!hasEnded(list[index])) {
      changing.push(index);
    }
  }
  const last = list.findIndex((action) => action.action_id === after);
  // A page reaches `first` actions further.
  const next = changing.find((index) => index > last + first) ?? changing[0];
  return next === undefined ? null : list[next - 1].action_id;
}
