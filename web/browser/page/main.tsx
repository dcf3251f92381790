import { connect } from "@jobplane/client";
import { JobplaneProvider } from "@jobplane/react";
import "@jobplane/react/styles.css";
import { type JSX, StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Ends, Job, Upload } from "./views.js";

const { view, user, ttl, ws, api, id, payload, template } = Object.fromEntries(
  new URLSearchParams(location.search),
) as Record<string, string>;

async function token(): Promise<string> {
  const answer = await fetch(`/token?user=${user}&ttl=${ttl}`);
  return answer.text();
}

const client = connect(String(ws), token, { api: String(api) });

const views: Record<string, () => JSX.Element> = {
  job: () => <Job id={String(id)} payload={payload ? JSON.parse(payload) : null} />,
  upload: () => <Upload template={String(template)} />,
  ends: () => <Ends />,
};
const View = views[String(view)] as () => JSX.Element;

createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <JobplaneProvider client={client}>
      <View />
    </JobplaneProvider>
  </StrictMode>,
);
