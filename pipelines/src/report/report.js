"use strict";

// The slider over the steps: it shows one frame of each picture.
for (const viewer of document.querySelectorAll("[data-viewer]")) {
  const steps = viewer.dataset.viewer.split(" ");
  const slider = viewer.querySelector("input");
  const label = viewer.querySelector("output");
  const show = () => {
    const step = steps[slider.value];
    label.textContent = step;
    slider.setAttribute("aria-valuetext", `step ${step}`);
    for (const frame of viewer.querySelectorAll("[data-frame]")) {
      frame.hidden = frame.dataset.frame !== step;
    }
  };
  slider.addEventListener("input", show);
  show(); // a reloaded page keeps the slider where it was
}
