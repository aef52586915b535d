// A receiver of memhook's webhooks with Express: it verifies with the official Standard Webhooks library, deduplicates by
// webhook-id, answers at once and works afterwards.
//
//   npm install && MEMHOOK_SECRET=whsec_… node receiver.js 9000
import express from "express";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.MEMHOOK_SECRET);
const seen = new Set(); // keep it in your database, together with what you do
const app = express();

// The signature is of the bytes as they came: no express.json() before this route.
app.post("/hooks", express.raw({ type: "application/json", limit: "8mb" }), (request, response) => {
  let event;
  try {
    event = webhook.verify(request.body.toString("utf8"), request.headers);
  } catch {
    response.sendStatus(401);
    return;
  }
  response.sendStatus(204);
  const id = request.headers["webhook-id"];
  if (seen.has(id)) return;
  seen.add(id);
  console.log("working on", JSON.stringify(event));
});

app.listen(Number(process.argv[2]), "127.0.0.1");
