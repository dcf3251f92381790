import { tokenOf, unauthorized, userOf } from "../../../../lib/jobplane";

/** A token for the page's socket and uploads. */
export function GET(request: Request): Response {
  const user = userOf(request);
  if (!user) return unauthorized();
  return new Response(tokenOf(user), { headers: { "cache-control": "no-store" } });
}
