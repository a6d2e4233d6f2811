/** Turn the user's actions into calls, and responses into the next state, from which the page is drawn. */

import { decodePng, encodePng } from "./png.js";
import * as server from "./server.js";
import { restoreMessages } from "./texts.js";

const FINAL_STATES = ["done", "failed", "cancelled"];
const RETRY_INTERVAL_MS = 1000;
const UNREADABLE_IMAGE = "The server sent an unreadable image. Try again.";
const INITIAL_STATE = {
  status: "starting", // or "signed-out", "ready"
  needsToken: false,
  models: [],
  studies: [],
  search: "",
  task: null, // {kind: "uploading", "preparing" or "predicting", progress: 0 to 1 or null, step}
  error: null, // {record} or {source, values}
  study: null,
  job: null, // the prediction that is shown
  pathology: [], // what pathology found, of this prediction, newest first
  heatmapMarker: "",
  isHeatmapPending: false,
  isReaderOutline: false, // whether the outline shown is the reader's
  runningJob: null, // id of the prediction that is being computed
};

export class Session {
  constructor(viewer, onChange) {
    this.viewer = viewer;
    this.onChange = onChange;
    this.state = INITIAL_STATE;
    this.retry = null;
    this.uncorrectedJob = null;
    this.uploadedId = ""; // of the study that was uploaded here last
    this.abort = new AbortController();
  }

  // ---- signing in ---------------------------------------------------------------------------------------

  /** Connect with the token of this tab, if there is one; without, ask for it if the server wants one. */
  async connect() {
    this.#update({ status: "starting" });
    await this.#attempt(
      () => this.connect(),
      async () => {
        const models = await this.#loadModels();
        this.#update({ status: "ready", models, needsToken: server.getToken() !== "" });
        await this.listStudies();
      },
    );
  }

  async signIn(token) {
    server.setToken(token.trim());
    await this.connect();
  }

  signOut(error = null) {
    this.#stopCalls();
    this.viewer.clear();
    server.setToken("");
    this.retry = null;
    this.state = { ...INITIAL_STATE, status: "signed-out", error };
    this.onChange();
  }

  async #loadModels() {
    for (;;) {
      try {
        return await server.getJson("api/models");
      } catch (error) {
        if (error.status !== 503) throw error; // 503: the server is loading them
        await new Promise((resolve) => setTimeout(resolve, RETRY_INTERVAL_MS));
      }
    }
  }

  // ---- studies ------------------------------------------------------------------------------------------

  async listStudies(search = this.state.search) {
    this.#update({ search });
    const query = search ? `?${new URLSearchParams({ patient_id: search })}` : "";
    await this.#attempt(
      () => this.listStudies(),
      async () => {
        const studies = await server.getJson(`api/studies${query}`);
        if (search === this.state.search) this.#update({ studies });
      },
    );
  }

  /** Upload files as a new study and show it; each is `{path, file}`. */
  async upload(files) {
    this.#closeStudy({ task: { kind: "uploading", progress: 0, step: "" } });
    const { signal } = this.abort;
    await this.#attempt(
      () => this.upload(files),
      async (resumeWith) => {
        const study = await server.uploadStudy(files, {}, signal, (progress) =>
          this.#update({ task: { kind: "uploading", progress, step: "" } }),
        );
        this.uploadedId = study.id;
        resumeWith(() => this.openStudy(study.id));
        await this.#followStudy(study.id);
      },
    );
  }

  async openStudy(id) {
    this.#closeStudy({ task: { kind: "preparing", progress: null, step: "" } });
    await this.#attempt(
      () => this.openStudy(id),
      () => this.#followStudy(id),
    );
  }

  async #followStudy(id) {
    const { signal } = this.abort;
    this.#update({ task: { kind: "preparing", progress: null, step: "" } });
    const final = await server.followEvents(`api/studies/${id}`, isPrepared, signal, (received) => {
      const study = restoreMessages(received);
      this.#update({ study, task: { kind: "preparing", progress: study.progress || null, step: study.step } });
    });
    this.listStudies();
    const study = restoreMessages(final);
    if (study.state === "failed") {
      this.#update({ study: null });
      throw new server.CallError({ record: asRecord(study.error), status: 409 });
    }
    await this.#showStudy(study, signal);
  }

  async #showStudy(study, signal) {
    const url = `api/studies/${study.id}`;
    const loads = study.sequences.map(async (name) => [
      name,
      await server.getBytes(`${url}/volumes/${name}.nii.gz`, { signal }),
    ]);
    const contents = Object.fromEntries(await Promise.all(loads));
    const jobs = await server.getJson(`api/predictions?${new URLSearchParams({ patient_id: study.patient_id })}`, {
      signal,
    });
    await this.viewer.show(contents);
    this.#update({ study, task: null });
    const finished = jobs
      .filter((job) => job.study_id === study.id && job.state === "done")
      .map((job) => restoreMessages(job));
    this.uncorrectedJob = finished.find((job) => job.request.outline !== "corrected") ?? null;
    const job = (study.corrected ? null : this.uncorrectedJob) ?? finished[0];
    if (!job) return;
    await this.#showJob(job);
    this.viewer.goToLesion();
  }

  /** Cancel what is running. The study is closed unless it is ready; one that was just uploaded is also removed. */
  async cancel() {
    const { task, study, runningJob } = this.state;
    this.#stopCalls();
    if (task?.kind === "predicting") {
      this.#update({ task: null, runningJob: null });
      if (runningJob) await server.call(`api/predictions/${runningJob}`, { method: "DELETE" }).catch(() => null);
      return;
    }
    this.#closeStudy({ task: null });
    if (study?.state === "preparing" && study.id === this.uploadedId) {
      await server.call(`api/studies/${study.id}`, { method: "DELETE" }).catch(() => null);
      await this.listStudies();
    }
  }

  #closeStudy(changes) {
    this.#stopCalls();
    this.viewer.clear();
    this.uncorrectedJob = null;
    const { status, needsToken, models, studies, search } = this.state;
    this.state = { ...INITIAL_STATE, status, needsToken, models, studies, search };
    this.#update(changes);
  }

  // ---- the prediction -----------------------------------------------------------------------------------

  /** Predict with the model's outline or, if the reader drew one, with that. */
  async predict(request) {
    const isCorrected = this.state.isReaderOutline || this.viewer.isEdited;
    this.#stopCalls();
    this.#hideHeatmap();
    this.#update({ task: { kind: "predicting", progress: 0, step: "" }, error: null });
    await this.#attempt(
      () => this.predict(request),
      async (resumeWith) => {
        const url = `api/studies/${this.state.study.id}`;
        if (isCorrected) await this.#saveOutline(url);
        const outline = isCorrected ? "corrected" : "model";
        const job = await server.sendJson("POST", `${url}/predictions`, { ...request, outline });
        resumeWith(() => this.#resumeJob(job.id));
        await this.#followJob(job.id);
      },
    );
  }

  async #resumeJob(id) {
    await this.#attempt(
      () => this.#resumeJob(id),
      () => this.#followJob(id),
    );
  }

  async #saveOutline(url) {
    const [slices, rows, columns] = this.state.study.shape;
    const body = await encodePng(this.viewer.getMask(), columns, slices * rows);
    await server.call(`${url}/mask.png`, { method: "PUT", body, contentType: "image/png" });
  }

  async #followJob(id) {
    this.#update({ task: { kind: "predicting", progress: 0, step: "" }, runningJob: id });
    const path = `api/predictions/${id}`;
    const isFinal = ({ state }) => FINAL_STATES.includes(state);
    const final = await server.followEvents(path, isFinal, this.abort.signal, (received) => {
      const { progress, step } = restoreMessages(received);
      this.#update({ task: { kind: "predicting", progress, step } });
    });
    const job = restoreMessages(final);
    this.#update({ task: null, runningJob: null });
    if (job.state === "failed") throw new server.CallError({ record: asRecord(job.error), status: 500 });
    if (job.state === "cancelled") return;
    if (job.request.outline !== "corrected") this.uncorrectedJob = job;
    await this.#showJob(job);
  }

  async #showJob(job) {
    const { signal } = this.abort;
    const mask = await decodePng(await server.getBytes(`api/predictions/${job.id}/mask.png`, { signal }));
    const pathology = await server.getJson(`api/predictions/${job.id}/truth`, { signal });
    const isReaderOutline = job.request.outline === "corrected";
    this.viewer.loadMask(mask);
    if (!isReaderOutline) this.viewer.goToLesion();
    this.#update({ job, pathology, isReaderOutline });
  }

  // ---- the outline --------------------------------------------------------------------------------------

  /** Discard the reader's outline; the model's, and the prediction with it, are shown again. */
  async revertOutline() {
    await this.#attempt(
      () => this.revertOutline(),
      async () => {
        await server.call(`api/studies/${this.state.study.id}/mask.png`, { method: "DELETE" });
        this.#hideHeatmap();
        if (this.uncorrectedJob) {
          await this.#showJob(this.uncorrectedJob);
          return;
        }
        this.viewer.loadMask(new Uint8Array(this.state.study.shape.reduce((product, size) => product * size)));
        this.#update({ job: null, isReaderOutline: false });
      },
    );
  }

  /** Show the mask that came with the images; a prediction uses it once the reader asks for one. */
  async useSuppliedMask() {
    await this.#attempt(
      () => this.useSuppliedMask(),
      async () => {
        const content = await server.getBytes(`api/studies/${this.state.study.id}/found.png`, {
          signal: this.abort.signal,
        });
        this.viewer.applyMask(await decodePng(content));
        this.#update({ isReaderOutline: true });
      },
    );
  }

  // ---- reasons, reports, pathology ----------------------------------------------------------------------

  /** Show the Grad-CAM map of a marker over the images, or hide it if it is shown. */
  async toggleHeatmap(marker) {
    if (this.state.heatmapMarker === marker) {
      this.#hideHeatmap();
      return;
    }
    this.#hideHeatmap();
    this.#update({ heatmapMarker: marker, isHeatmapPending: true });
    const isShown = await this.#attempt(
      () => this.toggleHeatmap(marker),
      async () => {
        const path = `api/predictions/${this.state.job.id}/heat/${encodeURIComponent(marker)}.png`;
        const map = await decodePng(await server.getBytes(path, { signal: this.abort.signal }));
        if (this.state.heatmapMarker !== marker) return;
        await this.viewer.showHeatmap(map);
        this.#update({ isHeatmapPending: false });
      },
    );
    if (!isShown && this.state.heatmapMarker === marker) this.#hideHeatmap();
  }

  #hideHeatmap() {
    this.viewer.showHeatmap(null);
    this.#update({ heatmapMarker: "", isHeatmapPending: false });
  }

  /** Save one of the prediction's files, such as "report.pdf". */
  async saveReport(name, query = "") {
    const { id } = this.state.job;
    const file = `${this.state.study.patient_id}-${name}`;
    await this.#attempt(
      () => this.saveReport(name, query),
      () => server.saveFile(`api/predictions/${id}/${name}${query}`, file),
    );
  }

  async recordPathology(marker, value, note) {
    const path = `api/predictions/${this.state.job.id}/truth`;
    return this.#attempt(
      () => this.recordPathology(marker, value, note),
      async () => {
        const recorded = await server.sendJson("POST", path, { marker, value, note });
        this.#update({ pathology: [recorded, ...this.state.pathology] });
      },
    );
  }

  // ---- internals ----------------------------------------------------------------------------------------

  dismissError() {
    this.#update({ error: null });
  }

  async retryFailed() {
    const { retry } = this;
    this.#update({ error: null });
    await retry?.();
  }

  /**
   * Run an action; if it fails, show why, and offer to try again if that may succeed later.
   *
   * retry: repeats the action; the action may replace it by what is left to do. Returns whether it succeeded.
   */
  async #attempt(retry, action) {
    const { signal } = this.abort;
    let remaining = retry;
    try {
      await action((resume) => (remaining = resume));
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      if (error.status === 401) {
        // without a token, the form says what is wanted
        this.signOut(server.getToken() || error.record?.code !== "token-wanted" ? error : null);
        return false;
      }
      const shown = error instanceof server.CallError ? error : new server.CallError({ source: UNREADABLE_IMAGE });
      if (shown !== error) console.error(error);
      this.retry = shown.isTemporary ? remaining : null;
      this.#update({ task: null, runningJob: null, error: shown });
      return false;
    }
  }

  #stopCalls() {
    this.abort.abort();
    this.abort = new AbortController();
  }

  #update(changes) {
    this.state = { ...this.state, ...changes };
    this.onChange();
  }
}

const isPrepared = ({ state }) => state !== "preparing";
const asRecord = (error) => (typeof error === "object" && error ? error : { text: error ?? "" });
