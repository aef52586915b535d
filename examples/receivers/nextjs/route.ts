// app/hooks/route.ts: a receiver of memhook's webhooks as a route handler of Next.js. `npm install standardwebhooks`, and
// set MEMHOOK_SECRET.
import { Webhook } from "standardwebhooks";

const seen = new Set<string>(); // keep it in your database, together with what you do

export async function POST(request: Request): Promise<Response> {
  const body = await request.text(); // the signature is of the body as it came
  let event: unknown;
  try {
    event = new Webhook(process.env.MEMHOOK_SECRET!).verify(body, Object.fromEntries(request.headers));
  } catch {
    return new Response(null, { status: 401 });
  }
  const id = request.headers.get("webhook-id")!;
  if (!seen.has(id)) {
    seen.add(id);
    console.log("working on", JSON.stringify(event)); // long work belongs into a queue: answer within seconds
  }
  return new Response(null, { status: 204 });
}
