/** The three planes of a study, drawn by NiiVue, with the editable outline of the lesion. */

import { transformBytes } from "./png.js";

const { DRAG_MODE, NVImage, Niivue, SLICE_TYPE } = globalThis.niivue ?? {};
const HEADER_BYTES = 352;
const OUTLINE_COLOUR = { R: [0, 255], G: [0, 213], B: [0, 74], A: [0, 255], labels: ["", "lesion"] };
const [FILL_OPACITY, RIM_OPACITY] = [0.22, 0.95];
const PLANE_AXES = [
  [0, 1],
  [0, 2],
  [1, 2],
]; // of the axial, coronal and sagittal plane
const MAXIMUM_UNDO_STEPS = 200;
// fields of an image that differ between the sequences of a study; the grid is the same
const IMAGE_FIELDS = ["img", "hdr", "cal_min", "cal_max", "global_min", "global_max", "robust_min", "robust_max"];
const OPTIONS = {
  backColor: [0.024, 0.031, 0.039, 1],
  crosshairColor: [0.345, 0.722, 0.788, 0.4],
  crosshairWidth: 0.7,
  crosshairWidthUnit: "mm",
  doubleTouchTimeout: 0, // two strokes of the brush in quick succession are no double tap
  dragAndDropEnabled: false,
  fontColor: [0.66, 0.72, 0.76, 1],
  isRadiologicalConvention: true,
  loadingText: "",
  logLevel: "error",
  longTouchTimeout: 1e9,
  maxDrawUndoBitmaps: 1, // the page keeps its own strokes, which can be repeated
  mouseEventConfig: DRAG_MODE && {
    leftButton: { primary: DRAG_MODE.crosshair },
    rightButton: DRAG_MODE.windowing,
    centerButton: DRAG_MODE.windowing,
  },
  showAllOrientationMarkers: true,
  tileMargin: 0,
};

export class Viewer {
  /** onChange is called after every change of slice or outline. */
  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.isOutlineVisible = true;
    this.tool = null; // "brush" or "eraser"
    this.brushSize = 9; // diameter in mm
    this.onChange = onChange;
    this.clear();
  }

  /** Prepare the canvas. Returns false if the browser has no WebGL 2. */
  async start() {
    if (!Niivue || !document.createElement("canvas").getContext("webgl2")) return false;
    for (const kind of ["keydown", "keyup"]) {
      // before NiiVue's: the page has its own keys, which it handles before they reach the canvas
      this.canvas.addEventListener(kind, (event) => event.stopImmediatePropagation());
    }
    this.nv = new Niivue(OPTIONS);
    await this.nv.attachToCanvas(this.canvas);
    this.nv.onLocationChange = () => this.onChange();
    this.nv.onDrawingChanged = (action) => action === "draw" && this.#finishStroke();
    // NiiVue's own pen is square
    this.nv.drawPt = (x, y, z, value) => this.#paint([x, y, z], [x, y, z], value);
    this.nv.drawPenLine = (from, to, value) => this.#paint(from, to, value);
    this.nv.drawRimOpacity = RIM_OPACITY;
    this.nv.setDrawOpacity(FILL_OPACITY);
    this.nv.setDrawColormap(OUTLINE_COLOUR);
    new ResizeObserver(() => this.#arrangePlanes()).observe(this.canvas.parentElement);
    return true;
  }

  clear() {
    this.images = new Map();
    this.sequence = "";
    this.committed = null; // the outline after the last finished stroke, in NiiVue's order
    this.areas = []; // its area on every slice, in voxels, in the server's order
    this.undoStack = [];
    this.redoStack = [];
    this.heatmap = null;
    if (this.nv) for (const image of [...this.nv.volumes]) this.nv.removeVolume(image);
    this.nv?.closeDrawing();
  }

  /** Show the images of a study: the content of a compressed NIfTI file for every sequence. */
  async show(contents) {
    this.clear();
    const { images } = this;
    for (const [sequence, content] of Object.entries(contents)) {
      const buffer = await transformBytes([content], new DecompressionStream("gzip"));
      const image = await NVImage.loadFromUrl({ url: buffer, name: `${sequence}.nii` });
      setBrainWindow(image);
      images.set(sequence, { image, header: buffer.slice(0, HEADER_BYTES), ...pick(image, IMAGE_FIELDS) });
    }
    if (images !== this.images) return; // another study was opened meanwhile
    const [[sequence, { image }]] = images;
    this.sequence = sequence;
    this.nv.addVolume(image);
    this.nv.createEmptyDrawing();
    this.#commit(this.nv.drawBitmap);
    this.nv.scene.crosshairPos = [0.5, 0.5, 0.5];
    this.#arrangePlanes();
    this.#applyTool();
  }

  get isEmpty() {
    return !this.nv?.volumes.length;
  }

  // ---- what is shown ------------------------------------------------------------------------------------

  showSequence(sequence) {
    if (this.isEmpty || sequence === this.sequence) return;
    const shown = this.nv.volumes[0];
    Object.assign(this.images.get(this.sequence), pick(shown, ["cal_min", "cal_max"]));
    Object.assign(shown, pick(this.images.get(sequence), IMAGE_FIELDS));
    this.sequence = sequence;
    this.nv.updateGLVolume();
    this.onChange();
  }

  resetContrast() {
    if (this.isEmpty) return;
    setBrainWindow(this.nv.volumes[0]);
    this.nv.updateGLVolume();
  }

  showOutline(isVisible) {
    this.isOutlineVisible = isVisible;
    this.nv.drawRimOpacity = isVisible ? RIM_OPACITY : 0;
    this.nv.setDrawOpacity(isVisible ? FILL_OPACITY : 0);
    this.onChange();
  }

  /** Show a map over the images, one byte per voxel in the server's order; null removes it. */
  async showHeatmap(values) {
    if (this.heatmap) this.nv.removeVolume(this.heatmap);
    this.heatmap = null;
    if (values === null) return;
    const buffer = createByteImage(this.images.get(this.sequence).header, values);
    const options = { url: buffer, name: "map.nii", colormap: "inferno", opacity: 0.6, cal_min: 20, cal_max: 255 };
    this.heatmap = await NVImage.loadFromUrl(options);
    this.nv.addVolume(this.heatmap);
  }

  get sliceCount() {
    return this.isEmpty ? 0 : this.nv.volumes[0].dimsRAS[3];
  }

  /** Index of the axial slice, in the server's order. */
  get sliceIndex() {
    const index = this.nv.frac2vox(this.nv.scene.crosshairPos)[2];
    return this.#flips[2] ? this.sliceCount - 1 - index : index;
  }

  goToSlice(index) {
    const bounded = Math.min(Math.max(index, 0), this.sliceCount - 1);
    const position = this.#flips[2] ? this.sliceCount - 1 - bounded : bounded;
    this.nv.scene.crosshairPos[2] = (position + 0.5) / this.sliceCount;
    this.nv.drawScene();
    this.onChange();
  }

  /** Move all planes to the middle of the lesion on the slice where it is largest. */
  goToLesion() {
    const area = Math.max(...this.areas);
    if (!area) return;
    const [, columns, rows] = this.nv.volumes[0].dimsRAS;
    const index = this.areas.indexOf(area);
    const start = (this.#flips[2] ? this.sliceCount - 1 - index : index) * rows * columns;
    let [sumColumns, sumRows] = [0, 0];
    for (let offset = 0; offset < rows * columns; offset++) {
      if (!this.committed[start + offset]) continue;
      sumColumns += offset % columns;
      sumRows += Math.floor(offset / columns);
    }
    const [column, row] = [sumColumns / area, sumRows / area];
    this.nv.scene.crosshairPos = [(column + 0.5) / columns, (row + 0.5) / rows, 0];
    this.goToSlice(index);
  }

  // ---- the outline --------------------------------------------------------------------------------------

  /** Replace the outline, one byte per voxel in the server's order, and forget the strokes. */
  loadMask(mask) {
    this.undoStack = [];
    this.redoStack = [];
    this.#setBitmap(this.#reorder(mask.map((value) => (value > 127 ? 1 : 0))));
  }

  /** Replace the outline in a way that can be undone. */
  applyMask(mask) {
    this.#setBitmap(this.#reorder(mask.map((value) => (value > 127 ? 1 : 0))), true);
  }

  /** Return the outline, 0 or 255 per voxel in the server's order. */
  getMask() {
    return this.#reorder(this.nv.drawBitmap).map((value) => (value ? 255 : 0));
  }

  get isEdited() {
    return this.undoStack.length > 0;
  }

  get canRedo() {
    return this.redoStack.length > 0;
  }

  undo() {
    this.#toggle(this.undoStack, this.redoStack);
  }

  redo() {
    this.#toggle(this.redoStack, this.undoStack);
  }

  selectTool(tool) {
    this.tool = this.tool === tool ? null : tool;
    if (this.tool && !this.isOutlineVisible) this.showOutline(true);
    this.#applyTool();
    this.onChange();
  }

  setBrushSize(millimetres) {
    this.brushSize = Math.min(Math.max(millimetres, 1), 40);
    this.onChange();
  }

  /** Diameter of the brush on the screen, in CSS pixels, over the plane at a position of the canvas; 0 beside it. */
  getBrushDiameter(x, y) {
    const ratio = this.nv.uiData.dpr;
    const index = this.nv.tileIndex(x * ratio, y * ratio);
    const plane = this.nv.screenSlices[index];
    return plane ? (this.brushSize * plane.leftTopWidthHeight[2]) / Math.abs(plane.fovMM[0]) / ratio : 0;
  }

  // ---- internals ----------------------------------------------------------------------------------------

  #applyTool() {
    if (this.isEmpty) return;
    this.nv.setDrawingEnabled(this.tool !== null);
    this.nv.setPenValue(this.tool === "eraser" ? 0 : 1);
  }

  /** Give the axial plane most of the canvas, the others the rest at its longer side. */
  #arrangePlanes() {
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    const [axial, coronal, sagittal] = [SLICE_TYPE.AXIAL, SLICE_TYPE.CORONAL, SLICE_TYPE.SAGITTAL];
    const [main, gap] = [0.66, 0.004];
    const rest = 1 - main - gap;
    this.nv.setCustomLayout(
      clientWidth > clientHeight
        ? [
            { sliceType: axial, position: [0, 0, main, 1] },
            { sliceType: coronal, position: [main + gap, 0, rest, 0.498] },
            { sliceType: sagittal, position: [main + gap, 0.502, rest, 0.498] },
          ]
        : [
            { sliceType: axial, position: [0, 0, 1, main] },
            { sliceType: coronal, position: [0, main + gap, 0.498, rest] },
            { sliceType: sagittal, position: [0.502, main + gap, 0.498, rest] },
          ],
    );
  }

  /** Paint a stroke of the round brush between two voxels of the plane in which the stroke began. */
  #paint(from, to, value) {
    const [, ...dimensions] = this.nv.back.dims;
    const spacing = this.nv.back.pixDims.slice(1, 4);
    const axes = PLANE_AXES[this.nv.drawPenAxCorSag];
    const radius = Math.max(this.brushSize / 2, 0.5 * Math.min(...axes.map((axis) => spacing[axis])));
    const [low, high] = [[...from], [...from]];
    for (const axis of axes) {
      const reach = Math.ceil(radius / spacing[axis]);
      low[axis] = Math.max(Math.min(from[axis], to[axis]) - reach, 0);
      high[axis] = Math.min(Math.max(from[axis], to[axis]) + reach, dimensions[axis] - 1);
    }
    const [first, second] = axes;
    const voxel = [...from];
    for (voxel[second] = low[second]; voxel[second] <= high[second]; voxel[second]++) {
      for (voxel[first] = low[first]; voxel[first] <= high[first]; voxel[first]++) {
        const [point, start, end] = [voxel, from, to].map((one) => axes.map((axis) => one[axis] * spacing[axis]));
        if (computeDistance(point, start, end) > radius) continue;
        this.nv.drawBitmap[voxel[0] + dimensions[0] * (voxel[1] + dimensions[1] * voxel[2])] = value;
      }
    }
  }

  #finishStroke() {
    const [before, after] = [this.committed, this.nv.drawBitmap];
    const changed = [];
    for (let index = 0; index < after.length; index++) if (before[index] !== after[index]) changed.push(index);
    if (changed.length) {
      this.undoStack = [...this.undoStack, Uint32Array.from(changed)].slice(-MAXIMUM_UNDO_STEPS);
      this.redoStack = [];
      this.#commit(after);
    }
    this.onChange();
  }

  /** Undo or redo a stroke: the outline is binary, so both toggle the voxels that it changed. */
  #toggle(source, target) {
    const changed = source.pop();
    if (changed === undefined) return;
    target.push(changed);
    const bitmap = this.committed.slice();
    for (const index of changed) bitmap[index] = 1 - bitmap[index];
    this.#setBitmap(bitmap);
  }

  #setBitmap(bitmap, isStroke = false) {
    this.nv.drawBitmap = bitmap;
    this.nv.refreshDrawing(true);
    if (isStroke) {
      this.#finishStroke();
    } else {
      this.#commit(bitmap);
      this.onChange();
    }
  }

  #commit(bitmap) {
    this.committed = bitmap.slice();
    const [, columns, rows, slices] = this.nv.volumes[0].dimsRAS;
    const areas = Array.from({ length: slices }, (_, slice) => {
      const voxels = bitmap.subarray(slice * rows * columns, (slice + 1) * rows * columns);
      return voxels.reduce((sum, value) => sum + value, 0);
    });
    this.areas = this.#flips[2] ? areas.reverse() : areas;
  }

  /** Which axes NiiVue reverses, because it orders voxels from left, back and below. */
  get #flips() {
    return this.nv.volumes[0].permRAS.map((axis) => axis < 0);
  }

  /** Convert voxels from the server's order to NiiVue's, or back. */
  #reorder(values) {
    const [, columns, rows, slices] = this.nv.volumes[0].dimsRAS;
    const [flipsColumns, flipsRows, flipsSlices] = this.#flips;
    const result = new Uint8Array(values.length);
    for (let slice = 0, target = 0; slice < slices; slice++) {
      const sourceSlice = (flipsSlices ? slices - 1 - slice : slice) * rows;
      for (let row = 0; row < rows; row++, target += columns) {
        const start = (sourceSlice + (flipsRows ? rows - 1 - row : row)) * columns;
        const line = values.subarray(start, start + columns);
        result.set(flipsColumns ? line.slice().reverse() : line, target);
      }
    }
    return result;
  }
}

const pick = (object, names) => Object.fromEntries(names.map((name) => [name, object[name]]));

/** Set the window as the desktop client does: from the 1st to the 99.9th percentile of the brain. */
function setBrainWindow(image) {
  const { scl_slope: slope, scl_inter: intercept } = image.hdr;
  const brain = image.img.filter((value) => value > 1).sort();
  if (!brain.length) return;
  const [low, high] = [0.01, 0.999].map((share) => brain[Math.round(share * (brain.length - 1))]);
  Object.assign(image, { cal_min: low * slope + intercept, cal_max: Math.max(high, low + 1) * slope + intercept });
}

/** Create a NIfTI image of bytes with the geometry of a header. */
function createByteImage(header, values) {
  const buffer = new ArrayBuffer(HEADER_BYTES + values.length);
  new Uint8Array(buffer).set(new Uint8Array(header));
  new Uint8Array(buffer).set(values, HEADER_BYTES);
  const view = new DataView(buffer);
  view.setInt16(70, 2, true); // datatype: unsigned bytes
  view.setInt16(72, 8, true); // bits per voxel
  view.setFloat32(112, 1, true); // slope
  view.setFloat32(116, 0, true); // intercept
  return buffer;
}

function computeDistance([x, y], [startX, startY], [endX, endY]) {
  const [stepX, stepY] = [endX - startX, endY - startY];
  const squared = stepX ** 2 + stepY ** 2;
  const share = squared ? ((x - startX) * stepX + (y - startY) * stepY) / squared : 0;
  const bounded = Math.min(Math.max(share, 0), 1);
  return Math.hypot(x - startX - bounded * stepX, y - startY - bounded * stepY);
}
