// Keeps [data-live] as the server has it, every so many seconds while somebody looks. Without scripts there is a link.

const regions = [...document.querySelectorAll("[data-live]")];

// Nothing moves under somebody's fingers: not while the focus or a selection is inside.
function busy(region) {
  return region.contains(document.activeElement) || region.contains(getSelection().anchorNode);
}

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
  const fresh = [...page.querySelectorAll("[data-live]")];
  // What was waited for is there: the whole page is another one.
  if (fresh.length !== regions.length) {
    if (!document.activeElement.matches("input, select, textarea")) location.reload();
    return;
  }
  regions.forEach((region, place) => {
    // Left alone where it says the same: a screen reader would read it once more.
    if (region.innerHTML !== fresh[place].innerHTML && !busy(region)) {
      region.replaceChildren(...fresh[place].childNodes);
    }
  });
}

if (regions.length) setInterval(refresh, Number(regions[0].dataset.live) * 1000);
