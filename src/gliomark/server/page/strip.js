/** The bars behind the slice slider: the lesion's area on each slice, and the slices used for the prediction. */

const [CELL, LESION, USED, CURRENT] = ["#222b31", "#96803a", "#f08c5a", "#e8eef1"];
const DOT_HEIGHT = 11;

/** areas: one per slice; usedIndices: slices used for the prediction; current: index of the slice shown. */
export function drawStrip(canvas, areas, usedIndices, current) {
  const { clientWidth: width, clientHeight: height } = canvas;
  [canvas.width, canvas.height] = [width * devicePixelRatio, height * devicePixelRatio];
  const context = canvas.getContext("2d");
  context.scale(devicePixelRatio, devicePixelRatio);
  const cell = width / areas.length;
  const gap = cell > 4 ? 1 : 0;
  const largest = Math.max(...areas, 1);
  areas.forEach((area, index) => {
    const [left, inner] = [index * cell + gap, cell - 2 * gap];
    const isUsed = usedIndices.has(index);
    context.fillStyle = CELL;
    context.fillRect(left, DOT_HEIGHT, inner, height - DOT_HEIGHT);
    const barHeight = ((height - DOT_HEIGHT) * area) / largest;
    context.fillStyle = isUsed ? USED : LESION;
    context.fillRect(left, height - barHeight, inner, barHeight);
    if (isUsed) {
      context.beginPath();
      context.arc(left + inner / 2, DOT_HEIGHT / 2, Math.min(3.2, Math.max(inner / 2, 1.5)), 0, 2 * Math.PI);
      context.fill();
    }
    if (index === current) {
      context.strokeStyle = CURRENT;
      context.lineWidth = 2;
      context.strokeRect(left + 1, DOT_HEIGHT + 1, Math.max(inner - 2, 1), height - DOT_HEIGHT - 2);
    }
  });
}
