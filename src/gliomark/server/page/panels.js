/** Draw the panels beside the images from the session's state. */

import { describeLevel, formatDate, formatPercent, message, render, text } from "./texts.js";

const UNDETERMINED = "undetermined";
const CANNOT_TELL = "cannot tell";
const SECOND_NETWORK_NOTE = "outline-by-second-network"; // code of the message
const TASK_TEXTS = {
  uploading: "Uploading the images",
  preparing: "The server is reading, registering and preparing the images",
  predicting: "waiting",
};

export const find = (id) => document.getElementById(id);

/** Create an element; `properties` are set on it, `children` are elements or texts. */
export function create(tag, properties = {}, ...children) {
  const { dataset = {}, ...others } = properties;
  const element = Object.assign(document.createElement(tag), others);
  Object.assign(element.dataset, dataset);
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

/** Set the text of an element, which is hidden if there is none. */
export function setText(id, content) {
  const element = find(id);
  element.textContent = content;
  element.hidden = !content;
}

/** Create buttons of which one is selected; `choices` are pairs of value and text. */
export function renderSegments(element, choices, selected, onSelect) {
  const isRadio = element.getAttribute("role") === "radiogroup";
  const buttons = choices.map(([value, label]) => {
    const button = create("button", { type: "button", textContent: label, onclick: () => onSelect(value) });
    if (isRadio) button.setAttribute("role", "radio");
    button.setAttribute(isRadio ? "aria-checked" : "aria-pressed", String(value === selected));
    return button;
  });
  const focused = [...element.children].indexOf(document.activeElement);
  element.replaceChildren(...buttons);
  buttons[focused]?.focus();
}

export function renderTask(id, task, kinds) {
  const element = find(id);
  const isShown = task !== null && kinds.includes(task.kind);
  element.hidden = !isShown;
  if (!isShown) return;
  element.querySelector("p").textContent = task.step ? render(task.step) : text(TASK_TEXTS[task.kind]);
  const bar = element.querySelector("progress");
  if (task.progress === null) bar.removeAttribute("value");
  else bar.value = task.progress;
}

// ---- studies ------------------------------------------------------------------------------------------

export function renderStudies({ studies, study, search }, onOpen) {
  const entries = studies.map((entry) => {
    const state = { preparing: message("page-study-preparing"), failed: message("page-study-failed") }[entry.state];
    const date = create("span", { className: "faint", textContent: formatDate(entry.created) });
    const tag = state ? create("span", { className: "tag", textContent: state }) : "";
    const name = create("span", { className: "patient-id", textContent: entry.patient_id });
    const button = create("button", { type: "button", onclick: () => onOpen(entry.id) }, name, date, tag);
    if (entry.id === study?.id) button.setAttribute("aria-current", "true");
    return create("li", {}, button);
  });
  find("study-list").replaceChildren(...entries);
  find("no-studies").hidden = entries.length > 0 || search !== "";
}

export function renderPatient({ study, task }) {
  find("patient").hidden = study === null;
  find("patient-heading").textContent = study?.patient_id ?? "";
  const isReady = study?.state === "ready" && task?.kind !== "preparing";
  setText("study-note", isReady ? text("{} · {} slices", study.sequences.join(", "), study.shape[0]) : "");
  const substitutes = Object.entries(study?.stand_ins ?? {}).map((pair) =>
    text("{} is missing; {} is used in its place. No marker is predicted.", ...pair),
  );
  const notes = (study?.notes ?? []).filter((note) => note.code === SECOND_NETWORK_NOTE).map(render);
  setText("substitute-note", [...substitutes, ...notes].join("\n"));
}

// ---- the prediction -----------------------------------------------------------------------------------

export function renderResult(state, isStale, actions) {
  const { job, task } = state;
  const prediction = job?.result ?? null;
  const running = "The prediction is being computed. You can view the images meanwhile.";
  const placeholder = task?.kind === "predicting" ? running : "The predicted markers appear here.";
  setText("result-placeholder", prediction ? "" : text(placeholder));
  find("result").hidden = prediction === null;
  if (prediction === null) return;
  setText("result-inputs", describeInputs(job.request));
  find("stale-note").hidden = !isStale;
  const location = prediction.location ? [render(prediction.location.summary)] : [];
  setText("result-lesion", [describeLesion(prediction), ...location].join("\n"));
  setText("result-warnings", prediction.warnings.map(render).join("\n"));
  const cards = prediction.markers.map((marker) => createMarkerCard(marker, state, actions));
  const listControls = () => [...find("marker-cards").querySelectorAll("button, input, select, summary")];
  const focused = listControls().indexOf(document.activeElement);
  find("marker-cards").replaceChildren(...cards);
  listControls()[focused]?.focus({ preventScroll: true });
  const { name, sha256 } = prediction.model;
  const notes = [...prediction.notes.map(render), text("Model: {} ({}…)", name, sha256.slice(0, 12))];
  setText("result-notes", notes.join("\n"));
  const isDicom = prediction.input.kind !== "pictures" && state.study?.has_dicom_images !== false;
  for (const id of ["dicom-button", "structure-set-button"]) find(id).hidden = !isDicom;
}

function describeInputs({ age, sex, enhancing, outline }) {
  const findings = { yes: "enhancing focus: yes", no: "enhancing focus: no" };
  const isAgeKnown = age !== null && age !== undefined;
  const parts = [
    isAgeKnown ? text("{} years", age) : text("age unknown"),
    text(["male", "female"][sex] ?? "sex unknown"),
    text(findings[enhancing] ?? "enhancing focus: not stated"),
    text(outline === "corrected" ? "your outline" : "the model's outline"),
  ];
  return text("Based on: {}", parts.join(" · "));
}

function describeLesion({ lesion, input }) {
  if (!lesion.found) {
    return text("No lesion was outlined. If a lesion is visible, outline it with the brush and predict again.");
  }
  const { longest, perpendicular } = lesion.diameters ?? {}; // missing in a result of an older version
  const diameters = longest ? `, ${longest.mm.toFixed(0)} × ${perpendicular.mm.toFixed(0)} mm` : "";
  const size = `${lesion.volume_ml.toFixed(1)} ml${diameters}`;
  return input.spacing_assumed
    ? text("Lesion: about {} (the pixel size of image files is unknown)", size)
    : text("Lesion: {}", size);
}

/** Create the card of one marker: level, probability, what it rests on, and what pathology found. */
function createMarkerCard(marker, state, actions) {
  const isByReader = marker.decided_by !== "model";
  const isUnknown = [UNDETERMINED, CANNOT_TELL].includes(marker.level);
  const isMuted = isByReader || isUnknown;
  const levels = findLevels(marker.marker, state);
  const positive = describeLevel(levels[0] ?? marker.positive ?? "+");
  const level = create("p", { className: "level", textContent: describeLevel(marker.level, marker.borderline) });
  level.classList.toggle("muted", isUnknown);
  const tag = isByReader ? create("span", { className: "tag", textContent: text("from the reader's finding") }) : "";
  const performance = render(marker.performance);
  const accuracy = isByReader ? "Accuracy of the reader's finding: {}" : "Validation: {}";
  return create(
    "article",
    { className: "card marker", dataset: { marker: marker.marker } },
    create("header", {}, create("h3", { textContent: render(marker.title) }), tag),
    level,
    ...createProbability(marker, isByReader, isMuted, positive),
    createParagraph("warning", marker.warnings.map(render).join("\n")),
    ...createSlices(marker, isByReader, state, actions),
    createParagraph("faint", performance && text(accuracy, performance)),
    createParagraph("faint", marker.threshold_origin && text("Threshold {}", render(marker.threshold_origin))),
    createParagraph("faint", marker.limits_in_words && render(marker.limits_in_words)),
    createParagraph("faint", marker.calibration_in_words && render(marker.calibration_in_words)),
    createParagraph("faint", render(marker.label)),
    createPathology(marker.marker, levels, state.pathology, actions),
  );
}

const createParagraph = (className, content) => (content ? create("p", { className, textContent: content }) : "");

function findLevels(marker, { models, study }) {
  const model = models.find(({ name }) => name === study?.model);
  const found = model?.markers.find(({ name }) => name === marker);
  return found ? [found.positive, found.negative] : [];
}

function createProbability(marker, isByReader, isMuted, positive) {
  if (marker.probability === null) return [];
  const question = isByReader ? "For comparison, the model's probability of “{}”" : "Probability of “{}”";
  const percent = create("strong", { textContent: formatPercent(marker.probability) });
  const line = create(
    "p",
    { className: "probability" },
    create("span", { textContent: text(question, positive) }),
    percent,
  );
  const bar = create("div", { className: "bar-track" }, createBarPart("fill", 0, marker.probability));
  bar.classList.toggle("muted", isMuted);
  const range = marker.probability_range;
  const limits = marker.limits ?? null; // predictions stored before them have none
  const marks = limits ? [limits.negative_below, limits.positive_above] : [marker.threshold ?? 0];
  // before calibration, the range is not on the scale of the bar
  if (!limits && range && range[0] !== range[1]) bar.append(createBarPart("range", range[0], range[1] - range[0]));
  bar.append(...marks.map((mark) => createBarPart("threshold", mark, 0)));
  const marksText = text(limits ? "cannot tell: {} to {}" : "threshold {}", ...marks.map(formatPercent));
  const tip = text("Shows how much the prediction depends on the choice of slices. Not a confidence interval.");
  const rangeText = range ? describeRange(range, Boolean(limits)) : "";
  const notes = create(
    "p",
    { className: "faint", title: range ? tip : "" },
    [marksText, rangeText].filter(Boolean).join(" · "),
  );
  return [line, bar, notes];
}

function createBarPart(className, start, width) {
  const part = create("span", { className });
  part.style.left = `${100 * start}%`; // through the object model: the page's policy forbids style attributes
  if (className !== "threshold") part.style.width = `${100 * width}%`;
  return part;
}

function describeRange(range, isBeforeCalibration) {
  const [low, high] = range.map(formatPercent);
  const described =
    low === high ? text("{} on every lesion slice", low) : text("Range across lesion slices: {} to {}", low, high);
  return isBeforeCalibration ? text("{} (before calibration)", described) : described;
}

function createSlices(marker, isByReader, { study, heatmapMarker, isHeatmapPending }, actions) {
  const names = marker.slices_used.filter((name) => study.slice_names.includes(name));
  if (!names.length) return [];
  const template = text(`Slices used for the ${isByReader ? "probability" : "prediction"}: {}`, "\0").split("\0");
  const links = names.flatMap((name, index) => [
    index ? ", " : "",
    create(
      "button",
      { type: "button", className: "link", onclick: () => actions.goToSlice(study.slice_names.indexOf(name)) },
      name,
    ),
  ]);
  const isShown = heatmapMarker === marker.marker;
  const label = isShown ? (isHeatmapPending ? "Computing Grad-CAM…" : "Hide Grad-CAM") : "Show Grad-CAM";
  const title = text("Pixels of these slices that raise the probability of the positive class");
  const button = create("button", {
    type: "button",
    textContent: text(label),
    title,
    onclick: () => actions.toggleHeatmap(marker.marker),
  });
  button.setAttribute("aria-pressed", String(isShown));
  return [create("p", { className: "soft" }, template[0], ...links, template[1]), button];
}

/** Create the form for what pathology found; its content survives until the prediction or the language changes. */
function createPathology(marker, levels, pathology, actions) {
  const recorded = pathology.filter((entry) => entry.marker === marker);
  const items = recorded.map(({ value, note, created }) =>
    create(
      "li",
      {},
      message("page-pathology-recorded", { level: describeLevel(value), date: formatDate(created) }),
      note ? ` · ${note}` : "",
    ),
  );
  const select = create(
    "select",
    { required: true, ariaLabel: message("page-pathology") },
    create("option", { value: "" }, "–"),
  );
  for (const level of levels) select.append(create("option", { value: level }, describeLevel(level)));
  const note = create("input", {
    type: "text",
    maxLength: 2000,
    placeholder: message("page-pathology-note"),
    ariaLabel: message("page-pathology-note"),
  });
  const form = create("form", {}, select, note, create("button", { type: "submit" }, message("page-pathology-save")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    actions.recordPathology(marker, select.value, note.value);
  });
  const summary = create("summary", {}, message("page-pathology"));
  return create(
    "details",
    {
      className: "pathology",
      open: actions.openPathology.has(marker),
      ontoggle: (event) => actions.openPathology[event.target.open ? "add" : "delete"](marker),
    },
    summary,
    create("ul", {}, ...items),
    levels.length ? form : "",
  );
}
