// A client that sends one job and follows it to its end.

import type { AssemblyDocument, ClientRequest, DelayRequest, ServerMessage } from "./jobplane.js";

export interface Ended {
  succeeded: boolean;
  text: string;
}

/** What a message says, for people; null while the job goes on. */
export function follow(message: ServerMessage, show: (text: string) => void): Ended | null {
  switch (message.type) {
    case "acknowledgment":
      show(`${message.status}: ${message.message}`);
      return null;
    case "progress":
      show(`${message.percentage.toFixed(0)} % ${message.message}`);
      return null;
    case "event":
      for (const event of message.events) show(JSON.stringify(event));
      return null;
    case "complete":
      return { succeeded: message.success, text: JSON.stringify(message.result) };
    case "error":
      // Without `seq` the message was refused; with it, the job has ended.
      return { succeeded: false, text: `${message.error.code}: ${message.error.message}` };
    case "response":
      return { succeeded: message.success, text: JSON.stringify(message.data) };
    case "pong":
    case "ping":
      return null;
    default:
      return unknown(message);
  }
}

/** Every type is dealt with above: a new one does not compile. */
function unknown(message: never): null {
  void message;
  return null;
}

export function run(url: string, token: string, show: (text: string) => void): Promise<Ended> {
  const request: DelayRequest = { id: "my-1", action: "delay", payload: { seconds: 2, steps: 10 } };
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`${url}?Authorization=${encodeURIComponent(token)}`);
    const send = (message: ClientRequest): void => socket.send(JSON.stringify(message));
    socket.onopen = () => send(request);
    socket.onerror = () => reject(new Error("the connection failed"));
    socket.onmessage = ({ data }: MessageEvent<string>) => {
      const message = JSON.parse(data) as ServerMessage;
      const ended = message.request_id === request.id ? follow(message, show) : null;
      if (ended) {
        socket.close();
        resolve(ended);
      }
    };
  });
}

/** Neither `ok` nor `error`: the job is on its way. */
export function hasEnded(document: AssemblyDocument): boolean {
  return (
    document.error !== undefined ||
    document.ok === "ASSEMBLY_COMPLETED" ||
    document.ok === "ASSEMBLY_CANCELED"
  );
}
