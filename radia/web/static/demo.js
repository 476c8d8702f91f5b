// Shows one finding's heat map over the film; a second press hides it.
const heat = document.getElementById("heat");
const caption = document.getElementById("caption");
const buttons = [...document.querySelectorAll(".finding")];

function show(chosen) {
  const on = chosen.getAttribute("aria-pressed") !== "true";
  for (const button of buttons) button.setAttribute("aria-pressed", String(on && button === chosen));
  heat.hidden = !on;
  if (on) heat.src = chosen.dataset.map;
  const told = `${caption.dataset.mapOf} ${chosen.textContent}`;
  heat.alt = on ? told : "";
  caption.textContent = on ? told : caption.dataset.choose;
}

for (const button of buttons) button.addEventListener("click", () => show(button));
const opacity = document.getElementById("opacity");
if (opacity) {
  const apply = () => heat.style.setProperty("opacity", opacity.value / 100);
  opacity.addEventListener("input", apply);
  apply();
}
