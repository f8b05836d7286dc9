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

async function press(event) {
  const form = event.target;
  event.preventDefault();
  const { project, snapshot } = form.dataset;
  const status = form.querySelector("output");
  const reason = form.elements.reason.value.trim() || null;
  const button = form.querySelector("button");
  if (button.dataset.words === undefined) {
    button.dataset.words = button.textContent;
    button.textContent = form.dataset.question;
    return;
  }
  button.disabled = true;
  try {
    const dag = snapshot ? `${project}__retrain` : "airlock__rollback";
    const body = snapshot
      ? { partition_key: snapshot, conf: { reason } }
      : { conf: { project, release: form.elements.release.value || null, reason } };
    const run = await trigger(dag, body);
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

for (const form of document.querySelectorAll("form")) form.addEventListener("submit", press);

document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || window.parent === window) return;
  event.preventDefault();
  const outer = window.parent.document.createElement("a");
  outer.href = link.href;
  outer.click();
});
