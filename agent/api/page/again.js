/* Before the page itself: a part of it that does not come would leave it at "connecting" for ever. */

// Milliseconds.
const AGAIN = 2000;

addEventListener(
  "error",
  (event) => {
    if (event.target instanceof HTMLScriptElement) {
      setTimeout(() => location.reload(), AGAIN);
    }
  },
  // Such an error goes to its element only, and does not bubble.
  true,
);
