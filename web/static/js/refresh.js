// Keeps [data-live] as the server has it, every so many seconds while somebody looks. Without scripts there is a link.

const region = document.querySelector("[data-live]");

async function refresh() {
  if (document.hidden) return;
  let answer;
  try {
    answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  } catch {
    return; // no network: the next round tries again
  }
  if (!answer.ok || answer.redirected) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector("[data-live]");
  // Nothing moves under somebody's fingers: not while the focus or a selection is inside.
  const busy = region.contains(document.activeElement) || region.contains(getSelection().anchorNode);
  if (fresh && !busy) region.replaceChildren(...fresh.childNodes);
}

if (region) setInterval(refresh, Number(region.dataset.live) * 1000);
