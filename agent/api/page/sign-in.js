/* The only script that needs no token: gives one for a cookie. It imports nothing, for the same reason. */

const form = document.getElementById("sign-in");
const field = document.getElementById("token");
const problem = document.getElementById("problem");
const button = form.querySelector("button");

/** What went wrong, for a person. */
function words(answer) {
  if (answer.status === 401) {
    return "This token is not known here, or it was revoked.";
  }
  if (answer.status === 429) {
    const seconds = Number(answer.headers.get("Retry-After")) || 1;
    return `Too many attempts. Try again in ${seconds} s.`;
  }
  return `The server cannot sign you in (${answer.status}). Its log says why.`;
}

/** Say what went wrong, or nothing. */
function show(text) {
  problem.textContent = text;
  problem.hidden = text === "";
  field.setAttribute("aria-invalid", String(text !== ""));
}

/** Send the token; the same address then is the page itself. */
async function signIn() {
  const answer = await fetch("/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token: field.value.trim() }),
  });
  if (answer.ok) {
    // Keeps query and fragment: a shared link leads where it was meant to.
    location.reload();
    return;
  }
  show(words(answer));
  field.select();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (button.disabled) {
    return;
  }
  button.disabled = true;
  show("");
  try {
    await signIn();
  } catch {
    show("The server does not answer. Try again in a moment.");
  } finally {
    button.disabled = false;
  }
});
