"use client";

import { connect, type Jobplane } from "@jobplane/client";
import { JobplaneProvider, StatusCard, Uploader, useAssembly } from "@jobplane/react";
import { type JSX, useEffect, useState } from "react";

async function token(): Promise<string> {
  const answer = await fetch("/api/jobplane/token");
  if (!answer.ok) throw new Error(`no token: the server answered ${answer.status}`);
  return answer.text();
}

/** The connection begins in the browser, and ends with the component. */
export function Jobs({ socket, api }: { socket: string; api: string }): JSX.Element | null {
  const [client, setClient] = useState<Jobplane | null>(null);
  useEffect(() => {
    const made = connect(socket, token, { api });
    setClient(made);
    return () => made.close();
  }, [socket, api]);
  if (!client) return null;
  return (
    <JobplaneProvider client={client}>
      <main>
        <Uploader template="tpl_fingerprint" />
        <Look />
      </main>
    </JobplaneProvider>
  );
}

/** The card of an assembly, read by way of this application's own route. */
function Look(): JSX.Element {
  const [id, setId] = useState("");
  const { status, error } = useAssembly(id || null, { url: "/api/jobplane" });
  return (
    <>
      <label>
        Assembly <input value={id} onChange={({ target }) => setId(target.value.trim())} />
      </label>
      {error && <p role="alert">{error}</p>}
      {status && <StatusCard assembly={status} />}
    </>
  );
}
