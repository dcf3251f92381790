import type { AssemblyDocument } from "@jobplane/client";
import { verifyWebhook, WebhookError } from "@jobplane/client/webhooks";
import { setting } from "../../../../lib/jobplane";

/** The notifications that were dealt with: use a table of your database. */
const seen = new Set<string>();

/** An answer of 2xx is success; the service repeats a delivery after 5xx, and not after 400. */
export async function POST(request: Request): Promise<Response> {
  let document: AssemblyDocument;
  try {
    // The text as it arrived: the signature is of these bytes.
    const body = await request.text();
    document = await verifyWebhook(request.headers, body, setting("JOBPLANE_WEBHOOK_SECRET"));
  } catch (error) {
    if (!(error instanceof WebhookError)) throw error;
    return Response.json({ error: error.message }, { status: 400 });
  }
  // All attempts of a delivery have the same id.
  const id = String(request.headers.get("webhook-id"));
  if (!seen.has(id)) {
    await notify(document);
    seen.add(id);
  }
  return Response.json({ received: true });
}

async function notify({ assembly_id, ok, message, user }: AssemblyDocument): Promise<void> {
  const outcome = ok === "ASSEMBLY_COMPLETED" ? "completed" : `failed: ${message}`;
  console.log(`tell ${user?.userId} that ${assembly_id} has ${outcome}`);
}
