// A receiver of memhook's webhooks: it verifies with the official Standard Webhooks library, deduplicates by
// webhook-id, answers at once and works afterwards.
//
//   npm install && MEMHOOK_SECRET=whsec_… node receiver.js 9000
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.MEMHOOK_SECRET);
const seen = new Set(); // keep it in your database, together with what you do

createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  let event;
  try {
    event = webhook.verify(Buffer.concat(chunks).toString("utf8"), request.headers);
  } catch {
    response.writeHead(401).end();
    return;
  }
  response.writeHead(204).end();
  const id = request.headers["webhook-id"];
  if (seen.has(id)) return;
  seen.add(id);
  console.log("working on", JSON.stringify(event));
}).listen(Number(process.argv[2]), "127.0.0.1");
