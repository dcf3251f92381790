import { setting, tokenOf, unauthorized, userOf } from "../../../../../lib/jobplane";

const passed = ["content-type", "cache-control", "etag", "retry-after", "vary"];

/**
 * The document of an assembly. The service looks it up and checks that it belongs to the user: 404
 * if it does not exist (yet), 403 if it is another user's.
 */
export async function GET(
  request: Request,
  { params }: { params: Promise<{ assemblyId: string }> },
): Promise<Response> {
  const user = userOf(request);
  if (!user) return unauthorized();
  const { assemblyId } = await params;
  const headers = new Headers({ authorization: `Bearer ${tokenOf(user)}` });
  const known = request.headers.get("if-none-match");
  if (known) headers.set("if-none-match", known);
  const url = `${setting("JOBPLANE_API")}/status/${encodeURIComponent(assemblyId)}`;
  const answer = await fetch(url, { headers, cache: "no-store" });
  const own = new Headers();
  for (const name of passed) {
    const value = answer.headers.get(name);
    if (value !== null) own.set(name, value);
  }
  return new Response(answer.body, { status: answer.status, headers: own });
}
