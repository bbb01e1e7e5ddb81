// What scripts add to pages that work without them: the copy button, and protection from a second click.

for (const line of document.querySelectorAll(".copy-line")) {
  const button = line.querySelector("button");
  const text = line.querySelector("code").textContent;
  const label = button.textContent;
  // Browsers offer the clipboard on HTTPS and localhost only; elsewhere the line is selected by a click.
  button.hidden = !navigator.clipboard;
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = button.dataset.copied;
    setTimeout(() => { button.textContent = label; }, 2000);
  });
}

for (const form of document.querySelectorAll('form[method="post"]')) {
  // The server does a repeated form once anyway; this only saves the person the doubt.
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
    setTimeout(() => { delete form.dataset.sent; }, 4000);
  });
}
// A page that comes back from the browser's memory must be usable again.
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});
