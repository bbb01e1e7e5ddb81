// While an application is filled in: what the nodes and GPUs can give between the dates, before the server says it.

const form = document.querySelector("#application-form");
const sum = document.querySelector("#application-sum");
const whole = (name) => Number(form.elements[name].value.replace(/\s/g, ""));
const day = (name) => Date.parse(form.elements[name].value + "T00:00:00Z") / 86400000;

function show() {
  const nodes = whole("nodes");
  const gpus = whole("gpus_per_node");
  const days = day("latest") - day("earliest") + 1;
  const most = nodes * gpus * days * 24;
  const known = Number.isSafeInteger(most) && nodes > 0 && gpus > 0 && days > 0;
  sum.hidden = !known;
  if (!known) return;
  // The same notation as the server's: no-break spaces between thousands, in every language.
  const text = String(most).replace(/\B(?=(\d{3})+$)/g, "\u00a0");
  sum.textContent = sum.dataset.template.replace("{shape}", `${nodes} × ${gpus}`).replace("{most}", text);
}

form.addEventListener("input", show);
show();
