// Counts [data-until] down to the second; the server's own words stand there without scripts. At zero the page asks anew.

const places = [...document.querySelectorAll("[data-until]")];
const two = (number) => String(number).padStart(2, "0");

function show() {
  for (const place of places) {
    const left = Math.max(0, Math.floor((Date.parse(place.dataset.until) - Date.now()) / 1000));
    const hours = Math.floor(left / 3600);
    place.textContent = `${hours ? `${hours}:` : ""}${two(Math.floor(left / 60) % 60)}:${two(left % 60)}`;
    if (left === 0) {
      clearInterval(timer);
      // Clocks differ: a little later the server will say the same.
      setTimeout(() => location.reload(), 3000);
    }
  }
}

const timer = setInterval(show, 1000);
show();
