// Drives every operation of a running memhook through the client and exits with 1 if an answer is wrong or an operation
// was left out.
import { readFileSync } from "node:fs";
import { Memhook, ProblemError, type Webhook } from "../src/index.js";

const { BASE, API_KEY, ADMIN_TOKEN, CALLBACK, DOCUMENT } = process.env as Record<string, string>;
const url = BASE!, callback = CALLBACK!;
const document = JSON.parse(readFileSync(DOCUMENT!, "utf8")) as { paths: Record<string, Record<string, unknown>> };

const routes = Object.entries(document.paths).flatMap(([path, operations]) => Object.keys(operations).map((method) => `${method} ${path}`));
const driven = new Set<string>();
// The longest path without parameters that matches is the operation's.
const recording: typeof fetch = (input, init) => {
  const { pathname } = new URL(String(input));
  const matches = (route: string) => {
    const [method, path] = route.split(" ") as [string, string];
    return method === init!.method!.toLowerCase() && new RegExp("^" + path.replace(/\{\w+\}/g, "[^/]+") + "$").test(pathname);
  };
  const found = routes.filter(matches).sort((a, b) => a.split("{").length - b.split("{").length)[0];
  if (found === undefined) throw new Error(`no operation for ${init!.method} ${pathname}`);
  driven.add(found);
  return fetch(input, init);
};
const app = new Memhook({ url, token: API_KEY!, fetch: recording });
const admin = new Memhook({ url: url + "/", token: ADMIN_TOKEN!, fetch: recording });

function must(what: string, ok: boolean): void {
  if (!ok) throw new Error(what);
}

async function refused(code: string, attempt: Promise<unknown>): Promise<ProblemError> {
  const problem = await attempt.then(() => new Error("it was accepted"), (reason: unknown) => reason);
  if (!(problem instanceof ProblemError) || problem.code !== code) throw new Error(`want ${code}, not ${problem}`);
  return problem;
}

async function until<T>(what: string, read: () => Promise<T | undefined>): Promise<T> {
  for (const deadline = Date.now() + 15_000; Date.now() < deadline; await new Promise((resolve) => setTimeout(resolve, 50))) {
    const got = await read();
    if (got !== undefined) return got;
  }
  throw new Error(`no ${what} came`);
}

async function customers(): Promise<void> {
  const body = { task_id: "ts-task", callback_url: callback, metadata: { order: "42" } };
  const task = await app.call("post", "/v1/tasks", { body, idempotencyKey: "ts-1" });
  must("the same key gets the same answer", (await app.call("post", "/v1/tasks", { body, idempotencyKey: "ts-1" })).id === task.id);
  const batch = await app.call("post", "/v1/tasks/batch", { body: { tasks: [body, { ...body, task_id: "" }] } });
  must("a batch's results", batch.results.map((r) => r.status).join() === "200,422" && batch.results[1]?.problem?.code === "invalid-request");
  must("the task", (await app.call("get", "/v1/tasks/{id}", { path: { id: task.id } })).metadata["order"] === "42");
  must("lists take filters", (await app.call("get", "/v1/tasks", { query: { task_id: "ts-task", limit: 10 } })).data.length === 1);
  const event = await until("event", async () => (await app.call("get", "/v1/tasks/{id}/events", { path: { id: task.id } })).data[0]);
  const payload: Webhook = (await app.call("get", "/v1/events/{id}", { path: { id: event.id } })).payload;
  if (payload.type !== "task.ready") throw new Error(`an event of type ${payload.type}`);
  must("the payload is typed by its type", payload.data.video_ids[0] === "PI-1");
  await app.call("get", "/v1/events", { query: { type: "task.ready" } });
  const delivery = await until("delivery", async () => (await app.call("get", "/v1/deliveries", { query: { task: task.id } })).data[0]);
  await app.call("post", "/v1/deliveries/{id}/resend", { path: { id: delivery.id } });
  await until("attempt", async () => (await app.call("get", "/v1/deliveries/{id}", { path: { id: delivery.id } })).attempts?.[0]);

  const endpoint = await app.call("post", "/v1/endpoints", { body: { url: callback + "/second", signatures: ["v1", "v1a"] } });
  const path = { id: endpoint.id };
  const seen: string[] = [];
  for await (const one of app.list("/v1/endpoints", { query: { limit: 1 } })) seen.push(one.url);
  must("all pages of a list", seen.length === 2 && new Set(seen).size === 2);
  await app.call("get", "/v1/endpoints/{id}", { path });
  must("a patch", (await app.call("patch", "/v1/endpoints/{id}", { path, body: { description: "second" } })).description === "second");
  const { secret } = await app.call("get", "/v1/endpoints/{id}/secret", { path });
  must("a secret", secret.startsWith("whsec_"));
  must("another", (await app.call("post", "/v1/endpoints/{id}/secret/rotate", { path, body: { overlap: "1h" } })).secret !== secret);
  must("a key", (await app.call("get", "/v1/endpoints/{id}/public-key", { path })).public_key.startsWith("whpk_"));
  const portal = await app.call("post", "/v1/endpoints/{id}/portal", { path, body: { expires_in: "5m" } });
  must("a portal", portal.url.includes(`/portal/${endpoint.id}?token=`) && new Date(portal.expires_at) > new Date());
  await app.call("post", "/v1/endpoints/{id}/test", { path });
  await app.call("post", "/v1/endpoints/{id}/enable", { path });
  const since = new Date(Date.now() - 3_600_000).toISOString();
  await app.call("post", "/v1/endpoints/{id}/recover", { path, body: { since } });
  must("nothing", (await app.call("delete", "/v1/endpoints/{id}", { path })) === undefined);
  must("a search", (await app.call("get", "/v1/search", { query: { q: "ts-task" } })).tasks.length === 1);
  const resend = await app.call("post", "/v1/deliveries/resend", { body: { status: "failed" } });
  must("its progress", (await app.call("get", "/v1/resends/{id}", { path: { id: resend.id! } })).matched === 0);
  const upload = await app.call("post", "/v1/uploads", { body: { urls: ["https://videos.example/ts"], callback_url: callback } });
  must("an upload", (await app.call("get", "/v1/uploads/{id}", { path: { id: upload.id } })).id === upload.id);
  must("a list of uploads", (await app.call("get", "/v1/uploads")).data[0]!.id === upload.id);
  const hint = await app.call("get", "/v1/hint-url");
  await app.call("post", "/v1/hints/{token}", { path: { token: hint.url.split("/").at(-1)! }, body: { taskId: "ts-task" } });
  const never = await app.call("post", "/v1/tasks", { body: { ...body, task_id: "never" } });
  await app.call("delete", "/v1/tasks/{id}", { path: { id: never.id } });
  await refused("conflict", app.call("delete", "/v1/tasks/{id}", { path: { id: never.id } }));
  const wrong = await refused("invalid-request", app.call("post", "/v1/tasks", { body: { ...body, callback_url: "ftp://x" } }));
  must("a problem names the field", wrong.problem.errors?.[0]?.field === "callback_url" && wrong.status === 422);
}

async function operators(): Promise<void> {
  const account = await admin.call("post", "/admin/v1/accounts", { body: { name: "ts", api_key: "sk-mavi-ts" } });
  const id = account.id;
  await admin.call("get", "/admin/v1/accounts");
  await admin.call("patch", "/admin/v1/accounts/{id}", { path: { id }, body: { requests_per_second: 2.5 } });
  const made = await admin.call("post", "/admin/v1/apps", { body: { name: "ts", account_id: id } });
  await admin.call("get", "/admin/v1/apps");
  await admin.call("patch", "/admin/v1/apps/{id}", { path: { id: made.id }, body: { name: "renamed" } });
  const key = await admin.call("post", "/admin/v1/apps/{id}/keys", { path: { id: made.id }, body: { name: "laptop" } });
  await admin.call("get", "/admin/v1/apps/{id}/keys", { path: { id: made.id } });
  await admin.call("delete", "/admin/v1/apps/{id}/keys/{key_id}", { path: { id: made.id, key_id: key.id } });
  const task = (await admin.call("get", "/admin/v1/tasks", { query: { task_id: "ts-task" } })).data[0]!;
  await admin.call("get", "/admin/v1/tasks/{id}", { path: { id: task.id } });
  const upload = (await admin.call("get", "/admin/v1/uploads")).data[0]!;
  must("an upload", (await admin.call("get", "/admin/v1/uploads/{id}", { path: { id: upload.id } })).urls[0] === "https://videos.example/ts");
  await admin.call("post", "/admin/v1/tasks/{id}/poll", { path: { id: task.id } }).catch((reason: unknown) => must("polled", reason instanceof ProblemError));
  await admin.call("get", "/admin/v1/events");
  const delivery = (await admin.call("get", "/admin/v1/deliveries", { query: { task: task.id } })).data[0]!;
  await admin.call("get", "/admin/v1/deliveries/{id}", { path: { id: delivery.id } });
  await admin.call("post", "/admin/v1/deliveries/{id}/resend", { path: { id: delivery.id } });
  const endpoint = (await admin.call("get", "/admin/v1/endpoints")).data[0]!;
  const path = { id: endpoint.id };
  await admin.call("get", "/admin/v1/endpoints/{id}", { path });
  await admin.call("post", "/admin/v1/endpoints/{id}/disable", { path });
  await admin.call("post", "/admin/v1/endpoints/{id}/enable", { path });
  await admin.call("post", "/admin/v1/endpoints/{id}/recover", { path, body: { since: new Date().toISOString() } });
  for (const what of ["polling", "deliveries"] as const) {
    await admin.call("post", `/admin/v1/${what}/pause`);
    await admin.call("post", `/admin/v1/${what}/resume`);
  }
  must("a search of all", (await admin.call("get", "/admin/v1/search", { query: { q: "ts-task" } })).tasks.length === 1);
  const resend = await admin.call("post", "/admin/v1/deliveries/resend", { body: { status: "failed" } });
  await admin.call("get", "/admin/v1/resends/{id}", { path: { id: resend.id! } });
  must("an audit log", (await admin.call("get", "/admin/v1/audit")).data.length > 0);
  must("stats", (await admin.call("get", "/admin/v1/stats")).instances.length === 1);
  await admin.call("delete", "/admin/v1/apps/{id}", { path: { id: made.id } });
  await admin.call("delete", "/admin/v1/accounts/{id}", { path: { id } });
  await refused("unauthorized", app.call("get", "/admin/v1/stats"));
}

// What must not compile.
export function mistakes(): void {
  // @ts-expect-error: no such path
  void app.call("get", "/v1/nothing");
  // @ts-expect-error: a task has no such method
  void app.call("patch", "/v1/tasks/{id}", { path: { id: "x" } });
  // @ts-expect-error: the id is missing
  void app.call("get", "/v1/tasks/{id}");
  // @ts-expect-error: no such status
  void app.call("get", "/v1/tasks", { query: { status: "done" } });
  // @ts-expect-error: callback_url is missing
  void app.call("post", "/v1/tasks", { body: { task_id: "x" } });
}

await customers();
await operators();
const missing = routes.filter((route) => !driven.has(route));
must(`not driven: ${missing.join(", ")}`, missing.length === 0);
console.log(`${driven.size} operations driven`);
