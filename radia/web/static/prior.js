// Shows and hides the film before, beside the film; remembers the choice while the window is open.
"use strict";

{
  const button = document.getElementById("show-prior"), stage = document.querySelector(".stage");
  if (button && stage) {
    const put = (shown) => {
      stage.classList.toggle("with-prior", shown);
      button.setAttribute("aria-pressed", String(shown));
      sessionStorage.setItem("prior", shown ? "shown" : "hidden");
    };
    button.addEventListener("click", () => put(!stage.classList.contains("with-prior")));
    put(sessionStorage.getItem("prior") !== "hidden");
  }
}
