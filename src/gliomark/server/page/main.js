/** The page: connect its elements with the session, and draw it after every change. */

import { collectChosen, collectDropped } from "./files.js";
import { find, renderPatient, renderResult, renderSegments, renderStudies, renderTask, setText } from "./panels.js";
import { Session } from "./session.js";
import { getFindingAccuracy, getLanguage, loadTexts, message, render, setLanguage, text } from "./texts.js";
import { drawStrip } from "./strip.js";
import { Viewer } from "./viewer.js";

const FINDING_RULE = "Your finding decides IDH: yes means wild type, no means mutant. Not stated: the model decides.";
const STEPS = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -5, PageDown: 5 };
const NEUTRAL_INPUTS = { age: "", sex: null, enhancing: null, isUnknown: false };
let inputs = NEUTRAL_INPUTS;
let shown = {}; // what the panels were last drawn from
const openPathology = new Set();
const viewer = new Viewer(find("image-canvas"), renderViewer);
const session = new Session(viewer, renderAll);
const actions = {
  goToSlice: (index) => viewer.goToSlice(index),
  toggleHeatmap: (marker) => session.toggleHeatmap(marker),
  recordPathology: (marker, value, note) => session.recordPathology(marker, value, note),
  openPathology,
};

// ---- drawing ------------------------------------------------------------------------------------------

function renderAll() {
  const { state } = session;
  if (state.study?.id !== shown.study?.id || (state.job && state.job !== shown.job)) restoreInputs(state);
  find("waiting").hidden = state.status !== "starting";
  find("sign-in").hidden = state.status !== "signed-out";
  find("workspace").hidden = state.status !== "ready";
  find("sign-out-button").hidden = !state.needsToken;
  renderError(state.error);
  renderTask("opening-task", state.task, ["uploading", "preparing"]);
  renderTask("predicting-task", state.task, ["predicting"]);
  if (state.studies !== shown.studies || state.study !== shown.study) renderStudies(state, openStudy);
  renderPatient(state);
  const chooser = find("chooser");
  chooser.hidden = !find("opening-task").hidden;
  chooser.classList.toggle("is-only", state.study === null);
  if (state.study?.id !== shown.study?.id) chooser.open = state.study === null;
  find("side").classList.toggle("has-result", state.job !== null);
  renderInputs();
  const { job, pathology, heatmapMarker, isHeatmapPending, task } = state;
  const isStale = isInputChanged(job);
  const answer = [job, pathology, heatmapMarker, isHeatmapPending, task?.kind, isStale];
  if (!shown.answer?.every((part, index) => part === answer[index])) renderResult(state, isStale, actions);
  shown = { ...state, answer };
  renderViewer();
}

function renderError(error) {
  find("error-banner").hidden = error === null;
  if (error === null) return;
  find("error-text").textContent = error.record ? render(error.record) : text(error.source, ...error.values);
  find("retry-button").hidden = session.retry === null;
}

function renderInputs() {
  const { study, task } = session.state;
  const isReady = study?.state === "ready" && !viewer.isEmpty;
  find("prediction-form").hidden = !isReady;
  const sexes = [
    [0, text("male")],
    [1, text("female")],
    [null, text("unknown")],
  ];
  renderSegments(find("sex-segments"), sexes, inputs.sex, (sex) => changeInputs({ sex }));
  const findings = [
    ["yes", text("yes")],
    ["no", text("no")],
    [null, text("not stated")],
  ];
  renderSegments(find("focus-segments"), findings, inputs.enhancing, (enhancing) => changeInputs({ enhancing }));
  const missing = explainMissingInput();
  find("unknown-row").hidden = inputs.age !== "" && inputs.sex !== null;
  find("unknown-box").checked = inputs.isUnknown;
  setText("missing-note", task ? "" : missing);
  find("predict-button").hidden = task?.kind === "predicting";
  find("predict-button").disabled = missing !== "" || task !== null;
}

/** Draw what depends on the slice or the outline. */
function renderViewer() {
  const { study, job, task } = session.state;
  const isEmpty = viewer.isEmpty;
  for (const id of ["toolbar", "slice-bar", "outline-bar"]) find(id).hidden = isEmpty;
  const note = task ? "The images appear here once they are prepared." : "Drop a patient's folder here to begin.";
  setText("canvas-note", isEmpty ? text(note) : "");
  find("image-canvas").classList.toggle("is-painting", viewer.tool !== null);
  const sequences = isEmpty ? [] : study.sequences.map((name) => [name, name]);
  renderSegments(find("sequence-buttons"), sequences, viewer.sequence, (name) => viewer.showSequence(name));
  setPressed("outline-button", viewer.isOutlineVisible);
  setPressed("brush-button", viewer.tool === "brush");
  setPressed("eraser-button", viewer.tool === "eraser");
  find("size-field").hidden = viewer.tool === null;
  for (const id of ["undo-button", "redo-button"])
    find(id).hidden = !viewer.tool && !viewer.isEdited && !viewer.canRedo;
  find("size-slider").value = viewer.brushSize;
  find("undo-button").disabled = !viewer.isEdited;
  find("redo-button").disabled = !viewer.canRedo;
  renderOutlineBar();
  if (isEmpty) return;
  const index = viewer.sliceIndex;
  const slider = find("slice-slider");
  [slider.max, slider.value] = [viewer.sliceCount - 1, index];
  find("slice-label").textContent = text(
    "Slice {}  ({} of {})",
    study.slice_names[index],
    index + 1,
    viewer.sliceCount,
  );
  const used = new Set(job?.result.markers.flatMap((marker) => marker.slices_used) ?? []);
  const usedIndices = new Set(study.slice_names.flatMap((name, number) => (used.has(name) ? [number] : [])));
  drawStrip(find("strip-canvas"), viewer.areas, usedIndices, index);
}

function renderOutlineBar() {
  const { study, job, task, isReaderOutline } = session.state;
  const isReady = !viewer.isEmpty && task === null;
  const { isEdited } = viewer;
  const hasMask = Boolean(study?.found_outline) && !viewer.isEmpty;
  const hasMouse = window.matchMedia("(pointer: fine)").matches;
  let note = hasMouse ? text("Slice: wheel or arrow keys. Window and level: drag with the right button.") : "";
  if (hasMask && !job && !isEdited) {
    note = text("{} was supplied with the images. Check it before you predict with it.", study.found_outline);
  }
  if (isReaderOutline && job?.request.outline === "corrected") note = text("Your outline is shown.");
  if (isEdited) note = text("You have changed the outline.");
  setText("outline-note", note);
  find("supplied-mask-button").hidden = !isReady || !hasMask || isEdited || isReaderOutline;
  find("revert-button").hidden = !isReady || !(isEdited || isReaderOutline);
  find("predict-outline-button").hidden = !isReady || !isEdited;
  find("predict-outline-button").disabled = explainMissingInput() !== "";
}

function setPressed(id, isPressed) {
  find(id).setAttribute("aria-pressed", String(isPressed));
}

function applyTexts() {
  const language = getLanguage();
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  const setters = {
    text: (element, source) => (element.textContent = text(source)),
    message: (element, code) => (element.textContent = message(code)),
    title: (element, source) => (element.title = text(source)),
    label: (element, source) => (element.ariaLabel = element.title = text(source)),
    placeholderMessage: (element, code) => (element.placeholder = element.ariaLabel = message(code)),
  };
  for (const [name, set] of Object.entries(setters)) {
    const attribute = `data-${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    for (const element of document.querySelectorAll(`[${attribute}]`)) set(element, element.dataset[name]);
  }
  find("language-button").textContent = language === "zh" ? "English" : "中文";
  find("language-button").lang = language === "zh" ? "en" : "zh-CN";
  find("waiting-text").textContent = text("Waiting for the server to start");
  find("finding-note").textContent = `${text(FINDING_RULE)} ${getFindingAccuracy()}`;
  shown = { study: shown.study, job: shown.job };
}

// ---- the user's input ---------------------------------------------------------------------------------

function restoreInputs({ job, study }) {
  if (job && study) {
    const { age, sex, enhancing, without_clinical: isUnknown } = job.request;
    inputs = { age: age ?? "", sex: sex ?? null, enhancing: enhancing ?? null, isUnknown: Boolean(isUnknown) };
  } else {
    inputs = NEUTRAL_INPUTS;
  }
  find("age-field").value = inputs.age;
}

function changeInputs(changes) {
  inputs = { ...inputs, ...changes };
  renderAll();
}

function createRequest() {
  const age = inputs.age === "" ? null : Number(inputs.age);
  const isComplete = age !== null && inputs.sex !== null;
  return { age, sex: inputs.sex, enhancing: inputs.enhancing, without_clinical: inputs.isUnknown && !isComplete };
}

function explainMissingInput() {
  const request = createRequest();
  if (!find("age-field").checkValidity()) return message("page-age-range");
  const isIncomplete = request.age === null || request.sex === null;
  return isIncomplete && !request.without_clinical
    ? text("Enter age and sex in step 2, or tick “Age or sex unknown”.")
    : "";
}

function isInputChanged(job) {
  if (!job) return false;
  const { age, sex, enhancing } = createRequest();
  const { request } = job;
  return age !== (request.age ?? null) || sex !== (request.sex ?? null) || enhancing !== (request.enhancing ?? null);
}

function isUploadPossible() {
  return session.state.status === "ready" && session.state.task === null;
}

function confirmLosingOutline() {
  return (
    !viewer.isEdited ||
    window.confirm(text("You have changed the outline but not predicted with it. Discard your changes?"))
  );
}

// ---- actions ------------------------------------------------------------------------------------------

function openStudy(id) {
  if (confirmLosingOutline()) session.openStudy(id);
}

function upload(files) {
  if (files.length && isUploadPossible() && confirmLosingOutline()) session.upload(files);
}

function predict() {
  if (explainMissingInput() === "" && session.state.task === null) session.predict(createRequest());
}

function switchLanguage() {
  setLanguage(getLanguage() === "zh" ? "en" : "zh");
  applyTexts();
  renderAll();
}

/** Handle a key, unless the user is typing. Returns whether it was used. */
function handleKey(event) {
  const target = event.target;
  const isTyping = target.matches("input:not([type=range], [type=checkbox]), select, textarea");
  if (isTyping || viewer.isEmpty || event.altKey) return false;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    if (key !== "z" && key !== "y") return false;
    if (key === "y" || event.shiftKey) viewer.redo();
    else viewer.undo();
    return true;
  }
  const isOnImage = target === find("image-canvas") || target === document.body;
  if (isOnImage && key in STEPS) viewer.goToSlice(viewer.sliceIndex + STEPS[key]);
  else if (isOnImage && key === "Home") viewer.goToSlice(0);
  else if (isOnImage && key === "End") viewer.goToSlice(viewer.sliceCount - 1);
  else if (key === "b") viewer.selectTool("brush");
  else if (key === "e") viewer.selectTool("eraser");
  else if (key === "o") viewer.showOutline(!viewer.isOutlineVisible);
  else if (key === "[") viewer.setBrushSize(viewer.brushSize - 1);
  else if (key === "]") viewer.setBrushSize(viewer.brushSize + 1);
  else if (/^[1-4]$/.test(key)) viewer.showSequence(session.state.study.sequences[key - 1] ?? viewer.sequence);
  else return false;
  return true;
}

/** Show the size of the brush at the pointer. */
function moveRing({ offsetX, offsetY, type }) {
  const ring = find("brush-ring");
  const isShown = viewer.tool !== null && type !== "pointerleave" && !viewer.isEmpty;
  const diameter = isShown ? viewer.getBrushDiameter(offsetX, offsetY) : 0;
  ring.hidden = diameter === 0;
  Object.assign(ring.style, {
    left: `${offsetX}px`,
    top: `${offsetY}px`,
    width: `${diameter}px`,
    height: `${diameter}px`,
  });
}

// ---- elements -----------------------------------------------------------------------------------------

function connectForms() {
  find("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    session.signIn(find("token-field").value);
    find("token-field").value = "";
  });
  find("prediction-form").addEventListener("submit", (event) => {
    event.preventDefault();
    predict();
  });
  find("age-field").addEventListener("input", (event) => changeInputs({ age: event.target.value }));
  find("unknown-box").addEventListener("change", (event) => changeInputs({ isUnknown: event.target.checked }));
  find("search-field").addEventListener("input", (event) => session.listStudies(event.target.value.trim()));
  find("slice-slider").addEventListener("input", (event) => viewer.goToSlice(Number(event.target.value)));
  find("size-slider").addEventListener("input", (event) => viewer.setBrushSize(Number(event.target.value)));
  for (const name of ["folder", "files"]) {
    const field = find(`${name}-field`);
    find(`${name}-button`).addEventListener("click", () => field.click());
    field.addEventListener("change", () => {
      upload(collectChosen(field));
      field.value = "";
    });
  }
}

function connectButtons() {
  const saveReport = (name) => session.saveReport(name, `?language=${getLanguage()}`);
  const handlers = {
    "language-button": switchLanguage,
    "sign-out-button": () => confirmLosingOutline() && session.signOut(),
    "retry-button": () => session.retryFailed(),
    "dismiss-button": () => session.dismissError(),
    "outline-button": () => viewer.showOutline(!viewer.isOutlineVisible),
    "brush-button": () => viewer.selectTool("brush"),
    "eraser-button": () => viewer.selectTool("eraser"),
    "undo-button": () => viewer.undo(),
    "redo-button": () => viewer.redo(),
    "contrast-button": () => viewer.resetContrast(),
    "previous-button": () => viewer.goToSlice(viewer.sliceIndex - 1),
    "next-button": () => viewer.goToSlice(viewer.sliceIndex + 1),
    "supplied-mask-button": () => session.useSuppliedMask(),
    "revert-button": () => session.revertOutline(),
    "predict-outline-button": predict,
    "pdf-button": () => saveReport("report.pdf"),
    "html-button": () => saveReport("report.html"),
    "dicom-button": () => saveReport("dicom.zip"),
    "structure-set-button": () => saveReport("structure_set.dcm"),
  };
  for (const [id, handler] of Object.entries(handlers)) find(id).addEventListener("click", handler);
  for (const id of ["opening-task", "predicting-task"]) {
    find(id)
      .querySelector("button")
      .addEventListener("click", () => session.cancel());
  }
}

function connectWindow() {
  const veil = find("drop-veil");
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // otherwise the browser opens the files
    veil.hidden = !(isUploadPossible() && event.dataTransfer.types.includes("Files"));
  });
  document.addEventListener("dragleave", (event) => (veil.hidden = event.relatedTarget === null || veil.hidden));
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    veil.hidden = true;
    if (isUploadPossible()) upload(await collectDropped(event.dataTransfer));
  });
  document.addEventListener("keydown", (event) => handleKey(event) && event.preventDefault(), { capture: true });
  window.addEventListener("beforeunload", (event) => viewer.isEdited && event.preventDefault());
  window.addEventListener("resize", renderViewer);
  for (const kind of ["pointermove", "pointerleave"]) find("image-canvas").addEventListener(kind, moveRing);
}

connectForms();
connectButtons();
connectWindow();
await loadTexts();
applyTexts();
find("folder-button").hidden = !("webkitdirectory" in find("folder-field"));
if (await viewer.start()) {
  await session.connect();
} else {
  find("waiting-text").textContent = message("page-no-webgl");
}
