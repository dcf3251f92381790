import { Component, type JSX, type ReactNode, useEffect, useRef, useState } from "react";
import type { Part, StageInfo } from "./api.js";
import { attention, useFindings } from "./attention.js";
import { get, NO_SESSION } from "./client.js";
import { useLoad } from "./load.js";
import { AuditPage } from "./pages/audit.js";
import { BulkList, BulkPage } from "./pages/bulk.js";
import { ExecutionPage } from "./pages/execution.js";
import { FilePage, FilesPage } from "./pages/files.js";
import { FindingsPanel } from "./pages/findings.js";
import { HealthPage } from "./pages/health.js";
import { JobPage } from "./pages/job.js";
import { JobsPage } from "./pages/jobs.js";
import { WebhooksPage } from "./pages/webhooks.js";
import { WorkspacesPage } from "./pages/workspaces.js";
import { Bones, Empty, Failure } from "./parts.js";
import { href, type Route, useRoute } from "./route.js";
import { StageProvider } from "./stage.js";

const names: Record<Part, string> = {
  jobs: "Jobs",
  workspaces: "Workspaces",
  files: "Files",
  webhooks: "Webhooks",
  health: "Health",
};

export function App(): JSX.Element {
  const stage = useLoad("stage", (signal) => get("stage", {}, signal));
  const [over, setOver] = useState<Error>();
  useEffect(() => {
    const end = (event: Event) => setOver((event as CustomEvent<Error>).detail);
    addEventListener(NO_SESSION, end);
    return () => removeEventListener(NO_SESSION, end);
  }, []);
  if (over)
    return (
      <main>
        <h1 className="quiet">Jobplane</h1>
        <Failure error={over} retry={() => location.reload()} />
      </main>
    );
  if (stage.value)
    return (
      <StageProvider value={stage.value}>
        <Frame stage={stage.value} />
      </StageProvider>
    );
  return (
    <main>
      <h1 className="quiet">Jobplane</h1>
      {stage.error ? <Failure error={stage.error} retry={stage.again} /> : <Bones />}
    </main>
  );
}

function Frame({ stage }: { stage: StageInfo }): JSX.Element {
  const route = useRoute();
  const part = partOf(route, stage);
  const main = useRef<HTMLElement>(null);
  const place = route.path.join("/");
  const findings = useFindings(place);
  const looks = attention(findings.value);
  const isFirstPage = (place === "" || place === stage.parts[0]) && route.query.size === 0;
  useEffect(() => {
    document.title = `${[names[part], route.path.at(-1)].filter(Boolean).join(" · ")} · ${stage.stage}`;
  }, [part, route, stage.stage]);
  const isFirst = useRef(true);
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new page starts at its top
  useEffect(() => {
    if (isFirst.current) {
      isFirst.current = false;
      return;
    }
    scrollTo(0, 0);
    main.current?.focus({ preventScroll: true });
  }, [place]);
  return (
    <div className="frame">
      <button type="button" className="skip" onClick={() => main.current?.focus()}>
        Skip to the page
      </button>
      <header className="side">
        <div className="brand">
          <strong>Jobplane</strong>
          <span className="quiet small">
            {stage.stage}
            {stage.is_local ? "" : `, ${stage.region}`}
          </span>
        </div>
        <nav aria-label="Pages">
          {stage.parts.map((name) => {
            const look = looks[name];
            return (
              <a key={name} href={href([name])} aria-current={name === part ? "page" : undefined}>
                {names[name]}
                {look ? (
                  <span className="count">
                    {look.more ? `${look.count}+` : look.count}
                    <span className="hidden"> need a look</span>
                  </span>
                ) : null}
              </a>
            );
          })}
        </nav>
        <div className="foot">
          <ThemeButton />
          <span className="wide break" title={stage.operator}>
            {stage.operator.split(/[/:]/).at(-1)}
          </span>
          <span className="wide">{`Version ${stage.version}`}</span>
        </div>
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        {stage.read_only && (
          <p className="notice small" role="note">
            <span>
              <strong>Read-only:</strong> {stage.read_only_because}
            </span>
          </p>
        )}
        {isFirstPage && <FindingsPanel answer={findings} />}
        <Guard key={place}>
          <Page route={route} part={part} />
        </Guard>
      </main>
    </div>
  );
}

/** A page that can't be drawn says so, and the others can still be opened. */
class Guard extends Component<{ children: ReactNode }, { error: Error | undefined }> {
  override state: { error: Error | undefined } = { error: undefined };

  static getDerivedStateFromError(error: Error): { error: Error } {
    return { error };
  }

  override render(): ReactNode {
    const { error } = this.state;
    if (!error) return this.props.children;
    const message = `The page could not show what was read: ${error.message}`;
    return <Failure error={new Error(message)} retry={() => this.setState({ error: undefined })} />;
  }
}

function partOf(route: Route, stage: StageInfo): Part {
  const first = route.path[0] ?? stage.parts[0] ?? "health";
  const part = ["job", "bulk", "audit"].includes(first)
    ? "jobs"
    : first === "execution"
      ? "workspaces"
      : first;
  return part in names ? (part as Part) : "jobs";
}

function Page({ route, part }: { route: Route; part: Part }): JSX.Element {
  const [first = part, a, b, c] = route.path;
  if (first === "jobs") return <JobsPage query={route.query} />;
  if (first === "job" && a && b && c) return <JobPage job={{ tenant: a, user: b, id: c }} />;
  if (first === "bulk") return a ? <BulkPage id={a} /> : <BulkList />;
  if (first === "audit") return <AuditPage />;
  if (first === "workspaces") return <WorkspacesPage />;
  if (first === "execution" && a) return <ExecutionPage name={a} />;
  if (first === "files" && a && b) return <FilePage date={a} file={b} />;
  if (first === "files") return <FilesPage query={route.query} />;
  if (first === "webhooks") return <WebhooksPage query={route.query} />;
  if (first === "health") return <HealthPage />;
  return (
    <>
      <h1>Page not found</h1>
      <Empty title="Nothing is at this address" actions={<a href="#/">Open the first page</a>}>
        The address is wrong, or from another version of the console.
      </Empty>
    </>
  );
}

type Theme = "system" | "light" | "dark";
const themes: readonly Theme[] = ["system", "light", "dark"];
const themeNames: Record<Theme, string> = { system: "System", light: "Light", dark: "Dark" };

function ThemeButton(): JSX.Element {
  const [theme, setTheme] = useState<Theme>(() => {
    const stored = localStorage.getItem("theme");
    return themes.find((known) => known === stored) ?? "system";
  });
  useEffect(() => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    localStorage.setItem("theme", theme);
  }, [theme]);
  const next = themes[(themes.indexOf(theme) + 1) % themes.length] ?? "system";
  return (
    <button
      type="button"
      className="plain small"
      aria-label={`Theme: ${themeNames[theme]}. Change to ${themeNames[next]}`}
      onClick={() => setTheme(next)}
    >
      <span className="wide">Theme: </span>
      {themeNames[theme]}
    </button>
  );
}
