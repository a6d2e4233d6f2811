/**
 * Texts in English and Chinese, from the server: messages by their code, and the desktop client's texts by their
 * English wording. No sentence is written in the page itself.
 */

const LANGUAGE_KEY = "gliomark-language";
let catalogue = { messages: {}, interface: {}, finding_accuracy: { text: "" } };
let language = localStorage.getItem(LANGUAGE_KEY) ?? (navigator.language.startsWith("zh") ? "zh" : "en");

export async function loadTexts() {
  catalogue = await (await fetch("page/texts.json")).json();
}

/** Return the sentence on how often the reader's finding was right. */
export const getFindingAccuracy = () => render(catalogue.finding_accuracy);

export const getLanguage = () => language;

export function setLanguage(name) {
  language = name;
  localStorage.setItem(LANGUAGE_KEY, name);
}

/** Return a text of the desktop client, named by its English wording; {} are replaced by the values in turn. */
export function text(source, ...values) {
  const template = language === "zh" ? (catalogue.interface[source] ?? source) : source;
  let next = 0;
  return template.replace(/\{(\d*)\}/g, (_, index) => render(values[index === "" ? next++ : Number(index)]));
}

/** Return the message of a code, as `render_message` does. */
export function message(code, parameters = {}) {
  const template = catalogue.messages[code][language === "zh" ? 1 : 0];
  return template.replace(/\{\{|\}\}|\{(\w+)(?::([^}]*))?\}/g, (found, name, format) =>
    name === undefined ? found[0] : formatValue(parameters[name], format),
  );
}

/** Render a plain text or number, or a record `{text, code, parameters}` of a message, in the user's language. */
export function render(value) {
  if (value === null || typeof value !== "object") return formatValue(value);
  const isKnown = value.code in catalogue.messages;
  return isKnown && language !== "en" ? message(value.code, value.parameters) : value.text;
}

/** Return a document of the server with every text that has a record in its `messages` replaced by the record. */
export function restoreMessages(document, records = document.messages ?? []) {
  const recordByText = new Map(records.filter((record) => record.code).map((record) => [record.text, record]));
  const restore = (value) => {
    if (typeof value === "string") return recordByText.get(value) ?? value;
    if (Array.isArray(value)) return value.map(restore);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, restore(part)]));
  };
  const { messages: _, result, ...rest } = document;
  return { ...restore(rest), result: result ? restoreMessages(result) : result };
}

/** Describe a marker level, as `describe_level` does: "mutant", or "borderline, leaning mutant". */
export function describeLevel(level, isBorderline = false) {
  const code = `level-${level.trim().toLowerCase().replaceAll(" ", "-")}`;
  const word = catalogue.messages[code]?.[0] === level ? { code, text: level, parameters: {} } : level;
  return isBorderline ? message("level-borderline", { level: word }) : render(word);
}

/** Format a probability as `format_percent` does, but on one line: never as certain, and none as a dash. */
export function formatPercent(probability) {
  if (probability === null || probability === undefined) return "–";
  const value = Number(formatFixed(100 * probability, 0));
  return (value < 1 ? "< 1 %" : value > 99 ? "> 99 %" : `${value} %`).replaceAll(" ", "\u00a0");
}

export function formatDate(date) {
  const options = { dateStyle: "medium", timeStyle: "short" };
  return new Intl.DateTimeFormat(language === "zh" ? "zh-CN" : "en-GB", options).format(new Date(date));
}

// ---- Python's format specifications -------------------------------------------------------------------

function formatValue(value, format = "") {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "object") return render(value);
  const [, digits, kind] = /^(?:\.(\d+))?([fg%])?$/.exec(format) ?? [];
  if (typeof value !== "number" || kind === undefined) return String(value);
  if (kind === "%") return `${formatFixed(100 * value, Number(digits ?? 6))}%`;
  return kind === "f" ? formatFixed(value, Number(digits ?? 6)) : formatGeneral(value, Number(digits ?? 6));
}

/** Format with a number of decimals; a tie goes to the even digit, as in Python. */
function formatFixed(value, decimals) {
  const scaled = Math.abs(value) * 10 ** decimals;
  const isTie = Number.isInteger(value * 2 ** (decimals + 1)) && scaled % 1 === 0.5;
  const isDown = isTie && Math.floor(scaled) % 2 === 0;
  return isDown
    ? ((Math.sign(value) * Math.floor(scaled)) / 10 ** decimals).toFixed(decimals)
    : value.toFixed(decimals);
}

/** Format with a number of significant digits, without trailing zeros, as Python's "g". */
function formatGeneral(value, precision) {
  const digits = Math.max(precision, 1);
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
  const power = Number(exponent);
  if (value === 0 || (power >= -4 && power < digits))
    return stripZeros(formatFixed(value, Math.max(digits - 1 - power, 0)));
  return `${stripZeros(mantissa)}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}

const stripZeros = (number) => (number.includes(".") ? number.replace(/\.?0+$/, "") : number);
