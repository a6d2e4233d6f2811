/** Files that were dropped or chosen, each as `{path, file}` with its path inside the folder. */

export async function collectDropped(transfer) {
  const dropped = [...transfer.items].filter((item) => item.kind === "file");
  // all at once: the items are gone after the first wait
  const entries = dropped.map((item) => [item.webkitGetAsEntry(), item.getAsFile()]);
  return (
    await Promise.all(entries.map(([entry, file]) => (entry ? collectEntry(entry) : [{ path: file.name, file }])))
  ).flat();
}

export const collectChosen = (field) =>
  [...field.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));

async function collectEntry(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ path: entry.fullPath.slice(1), file }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // at most 100 at a time
    if (!part.length) return found;
    found.push(...(await Promise.all(part.map(collectEntry))).flat());
  }
}
