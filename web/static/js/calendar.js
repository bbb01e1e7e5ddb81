// Brings the chosen start into sight where the drawing is wider than the screen.

const chosen = document.querySelector(".cal-chosen");

if (chosen) document.querySelector("#cal-scroll").scrollLeft = chosen.x.baseVal.value - 4;
