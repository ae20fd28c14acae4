/* Before the page itself: a script that does not come would leave it at "connecting" for ever, and a
   style sheet without its looks. A browser gives up what it asks for when its network changes. */

// Milliseconds.
const AGAIN = 2000;

addEventListener(
  "error",
  (event) => {
    if (event.target instanceof HTMLScriptElement || event.target.rel === "stylesheet") {
      setTimeout(() => location.reload(), AGAIN);
    }
  },
  // Such an error goes to its element only, and does not bubble.
  true,
);
