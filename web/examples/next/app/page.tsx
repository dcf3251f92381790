import type { JSX } from "react";
import { setting } from "../lib/jobplane";
import { Jobs } from "./jobs";

export const dynamic = "force-dynamic";

export default function Page(): JSX.Element {
  return <Jobs socket={setting("JOBPLANE_SOCKET")} api={setting("JOBPLANE_API")} />;
}
