// Calls memhook's API. types.gen.ts is made from the OpenAPI document; this is all that is written by hand.
import type { components, paths } from "./types.gen.js";

export type { components, operations, paths } from "./types.gen.js";
type Schemas = components["schemas"];
export type Delivery = Schemas["Delivery"];
export type Endpoint = Schemas["Endpoint"];
export type Event = Schemas["Event"];
export type Problem = Schemas["Problem"];
export type Task = Schemas["Task"];
/** The body of a webhook, told apart by its `type`. */
export type Webhook = Schemas["Webhook"];

type Method = "get" | "post" | "patch" | "delete";
/** The paths that have an operation with a method. */
export type PathsOf<M extends Method> = { [P in keyof paths]: paths[P][M] extends { responses: unknown } ? P : never }[keyof paths];

type JSONOf<R> = R extends { content: { "application/json": infer T } } ? T : undefined;
type Success = 200 | 201 | 202 | 204;
/** What an operation answers with. */
export type Answer<O> = O extends { responses: infer R } ? { [S in keyof R & Success]: JSONOf<R[S]> }[keyof R & Success] : never;

type PathOf<O> = O extends { parameters: { path: infer T } } ? { path: T } : { path?: never };
type QueryOf<O> = O extends { parameters: { query?: infer T } } ? { query?: NonNullable<T> } : { query?: never };
type BodyOf<O> = O extends { requestBody: { content: { "application/json": infer T } } }
  ? { body: T }
  : O extends { requestBody?: { content: { "application/json": infer T } } }
    ? { body?: T }
    : { body?: never };
/** What an operation takes. */
export type Options<O> = PathOf<O> & QueryOf<O> & BodyOf<O> & { idempotencyKey?: string; signal?: AbortSignal };
type Arguments<O> = {} extends Options<O> ? [options?: Options<O>] : [options: Options<O>];

/** Thrown where the answer is a problem. Its message names the fields that are wrong. */
export class ProblemError extends Error {
  override readonly name = "ProblemError";
  constructor(readonly problem: Problem) {
    super(`${problem.code} (${problem.status}): ${problem.detail}`);
  }
  get code(): string {
    return this.problem.code;
  }
  get status(): number {
    return this.problem.status;
  }
}

export interface Config {
  /** Where memhook is, such as https://memhook.example. */
  url: string;
  /** The app's API key, or the admin token for the paths under /admin. */
  token: string;
  /** Replaces the global fetch. */
  fetch?: typeof fetch;
}

interface Call {
  path?: Record<string, string>;
  query?: Record<string, unknown>;
  body?: unknown;
  idempotencyKey?: string;
  signal?: AbortSignal;
}

// The compiler cannot see through the options of all operations at once.
function callOf(options: unknown[]): Call {
  return (options[0] ?? {}) as Call;
}

export class Memhook {
  readonly #url: string;
  readonly #token: string;
  readonly #fetch: typeof fetch;

  constructor(config: Config) {
    this.#url = config.url.replace(/\/+$/, "");
    this.#token = config.token;
    this.#fetch = config.fetch ?? fetch;
  }

  /** Calls an operation, which its method and path name, and returns what it answers with. */
  async call<M extends Method, P extends PathsOf<M>>(method: M, path: P, ...options: Arguments<paths[P][M]>): Promise<Answer<paths[P][M]>> {
    return (await this.#send(method, path, callOf(options))) as Answer<paths[P][M]>;
  }

  /** Iterates over all entries of a list, page by page. */
  async *list<P extends PathsOf<"get">>(
    path: P,
    ...options: Arguments<paths[P]["get"]>
  ): AsyncGenerator<Answer<paths[P]["get"]> extends { data: (infer T)[] } ? T : never> {
    const call = { ...callOf(options) };
    for (;;) {
      const page = (await this.#send("get", path, call)) as { data: never[]; next_cursor: string | null };
      yield* page.data;
      if (page.next_cursor === null) return;
      call.query = { ...call.query, cursor: page.next_cursor };
    }
  }

  async #send(method: Method, path: string, call: Call): Promise<unknown> {
    const url = new URL(this.#url + path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(call.path?.[name] ?? "")));
    for (const [name, value] of Object.entries(call.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    const headers: Record<string, string> = { authorization: `Bearer ${this.#token}` };
    if (call.body !== undefined) headers["content-type"] = "application/json";
    if (call.idempotencyKey !== undefined) headers["idempotency-key"] = call.idempotencyKey;
    const response = await this.#fetch(url, {
      method: method.toUpperCase(),
      headers,
      ...(call.body !== undefined && { body: JSON.stringify(call.body) }),
      ...(call.signal && { signal: call.signal }),
    });
    const text = await response.text();
    if (!response.ok) throw problemOf(response, text);
    return text === "" ? undefined : JSON.parse(text);
  }
}

/** The problem in an answer. Something between the client and memhook may have answered. */
function problemOf(response: Response, text: string): Error {
  if (response.headers.get("content-type")?.startsWith("application/problem+json")) return new ProblemError(JSON.parse(text) as Problem);
  return new Error(`the answer has status ${response.status} and is not one of memhook`);
}
