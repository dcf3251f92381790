import type { JSX } from "react";
import type { Finding, Findings } from "../api.js";
import { counted, epoch, relative, stamp } from "../format.js";
import type { Answer } from "../load.js";
import { useNow } from "../parts.js";
import { href } from "../route.js";

/** What is wrong on this stage, since when, and what to do. */
export function FindingsPanel({ answer }: { answer: Answer<Findings> }): JSX.Element | null {
  const now = useNow();
  const { value, error, again } = answer;
  if (!value)
    return error ? (
      <p className="notice small" data-tone="bad" role="alert">
        {`What needs a look could not be read: ${error.message}`}
      </p>
    ) : null;
  const { findings, unchecked } = value;
  const isUrgent = findings.some(({ is_urgent }) => is_urgent);
  const tone = isUrgent ? "bad" : findings.length || unchecked.length ? "wait" : "good";
  return (
    <section className="notice" data-tone={tone} aria-label="What needs a look">
      <div className="head">
        <strong>
          {findings.length
            ? `${counted(findings.length, "thing")} ${findings.length === 1 ? "needs" : "need"} a look`
            : unchecked.length
              ? "Not everything could be checked"
              : "Nothing needs a look"}
        </strong>
        <button type="button" className="link small" onClick={again}>
          Look again
        </button>
      </div>
      {findings.length > 0 && (
        <ul className="problems">
          {findings.map((finding) => (
            <li key={finding.title}>
              <div>
                <strong className={finding.is_urgent ? "bad" : "wait"}>{titleOf(finding)}</strong>
                <p>
                  {sinceOf(finding, now)}
                  {finding.remedy}
                </p>
              </div>
              <a className="button" href={href(finding.place, finding.filter)}>
                Open
                <span className="hidden">{`: ${finding.title}`}</span>
              </a>
            </li>
          ))}
        </ul>
      )}
      {unchecked.map((problem) => (
        <p key={problem} className="small">{`Not checked: ${problem}`}</p>
      ))}
    </section>
  );
}

function sinceOf({ since }: Finding, now: number): string {
  const at = epoch(since);
  return at === undefined ? "" : `Since ${stamp(at).slice(0, 16)} (${relative(at, now)}). `;
}

function titleOf({ title, is_more }: Finding): string {
  return is_more ? `${title}; there are more` : title;
}
