// Clicks on a map. The library's own are not used: it takes three pixels for a drag, and a loop that ends where it began
// for a click.

/** Pixels that a pointer may move during a click: hands are not still, on a trackpad least of all. */
const STILL = 4;

/**
 * Call `run` with the place in the canvas of each click of the browser's, however long the button was down, if the
 * pointer stayed where it was. Nobody else hears of clicks on the canvas.
 */
export function onClick(canvas: HTMLCanvasElement, run: (x: number, y: number) => void): void {
  let pressed: [number, number] | null = null;
  let still = false;
  canvas.addEventListener("pointerdown", ({ clientX, clientY }) => {
    pressed = [clientX, clientY];
    still = true;
  });
  canvas.addEventListener("pointermove", ({ clientX, clientY }) => {
    if (pressed && Math.hypot(clientX - pressed[0], clientY - pressed[1]) > STILL) still = false;
  });
  canvas.addEventListener(
    "click",
    (event) => {
      event.stopImmediatePropagation();
      if (!still) return;
      const { left, top } = canvas.getBoundingClientRect();
      run(event.clientX - left, event.clientY - top);
    },
    { capture: true },
  );
}
