import { createHmac } from "node:crypto";

/** A variable of the environment. Throws if it is not set. */
export function setting(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`set the environment variable ${name}`);
  return value;
}

export interface User {
  id: string;
  tenant: string;
}

/** The user of a request, null without one: replace this with your own sign-in. */
export function userOf(request: Request): User | null {
  const id = /(?:^|; )user=([\w-]+)/.exec(request.headers.get("cookie") ?? "")?.[1];
  return id ? { id, tenant: "acme" } : null;
}

/** A token of a user that the service accepts for ten minutes. */
export function tokenOf({ id, tenant }: User, now: number = Date.now() / 1000): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const iat = Math.floor(now);
  const claims = { user_id: id, tenant_id: tenant, iat, exp: iat + 600 };
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  const signature = createHmac("sha256", setting("JOBPLANE_SECRET")).update(text);
  return `${text}.${signature.digest("base64url")}`;
}

export function unauthorized(): Response {
  return Response.json({ error: "sign in first" }, { status: 401 });
}
