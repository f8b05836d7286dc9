// The buttons: each asks once more, triggers a DAG by Airflow's own API, and says what came of it. Airflow shows the
// page in a frame that allows neither dialogs nor navigation: a button asks by its own words, a link leads the outer page.
"use strict";

async function trigger(dag, body) {
  const answer = await fetch(`/api/v2/dags/${dag}/dagRuns`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ logical_date: null, ...body }),
  });
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(typeof said.detail === "string" ? said.detail : `refused (${answer.status})`);
  return said.dag_run_id;
}

// What a form says, as Airflow's own would: an empty field is null, a number a number.
function body(form) {
  const { partition_key, ...said } = Object.fromEntries(new FormData(form));
  const conf = {};
  for (const [name, text] of Object.entries(said)) {
    const value = text.trim();
    if (value === "") conf[name] = null;
    else if (form.elements[name].type === "number") conf[name] = Number(value);
    else conf[name] = value;
  }
  if (partition_key) return { partition_key, conf };
  return { conf: { project: form.dataset.project, ...conf } };
}

async function press(event) {
  const form = event.target;
  event.preventDefault();
  const status = form.querySelector("output");
  const button = form.querySelector("button");
  if (button.dataset.words === undefined) {
    button.dataset.words = button.textContent;
    button.textContent = form.dataset.question;
    return;
  }
  button.disabled = true;
  try {
    const { dag } = form.dataset;
    const run = await trigger(dag, body(form));
    const link = document.createElement("a");
    link.href = `/dags/${dag}/runs/${encodeURIComponent(run)}`;
    link.textContent = "begun: see the run";
    status.replaceChildren(link);
  } catch (error) {
    status.textContent = error.message;
  } finally {
    button.textContent = button.dataset.words;
    delete button.dataset.words;
    button.disabled = false;
  }
}

for (const button of document.querySelectorAll("button[data-form]")) {
  button.addEventListener("click", () => {
    const details = document.getElementById(button.dataset.form);
    details.open = true;
    const form = details.querySelector("form");
    form.elements.partition_key.value = button.dataset.snapshot;
    form.elements.reason.focus();
  });
}

// A snapshot that nothing was trained on yet has no contact sheet.
for (const image of document.querySelectorAll("img")) image.addEventListener("error", () => image.remove());

for (const form of document.querySelectorAll("form")) form.addEventListener("submit", press);

document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || window.parent === window) return;
  event.preventDefault();
  const outer = window.parent.document.createElement("a");
  outer.href = link.href;
  outer.click();
});
