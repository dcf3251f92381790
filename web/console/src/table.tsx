import {
  type CSSProperties,
  type JSX,
  type KeyboardEvent,
  type ReactNode,
  useEffect,
  useLayoutEffect,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";

export type Column<Row> = {
  key: string;
  head: string;
  /** CSS width of the column; columns without one share what is left. */
  width?: string;
  number?: boolean;
  /** The line of a row on a phone; a column without one is left out there. */
  line?: 1 | 2 | 3;
  grow?: boolean;
  cell: (row: Row) => ReactNode;
};

const ROW = { wide: 34, narrow: 62 };
const AROUND = 12;

const narrow = "(max-width: 760px)";

export function useNarrow(): boolean {
  return useSyncExternalStore(
    (changed) => {
      const media = matchMedia(narrow);
      media.addEventListener("change", changed);
      return () => media.removeEventListener("change", changed);
    },
    () => matchMedia(narrow).matches,
  );
}

/** The rows to draw: those in sight, and a few around them. */
export function visible(top: number, height: number, row: number, count: number): [number, number] {
  const first = Math.max(0, Math.floor(top / row) - AROUND);
  const last = Math.min(count, Math.ceil((top + height) / row) + AROUND);
  return [Math.min(first, count), Math.max(last, Math.min(first, count))];
}

/**
 * A table of any length that scrolls with the page and draws only the rows in sight.
 *
 * The first link of each row can be reached with the arrow keys, Home and End. Long texts are cut:
 * the row has a link to where they are whole. A table with `wraps` shows them whole; it draws all
 * its rows, of which there should be hundreds at most.
 */
export function LongTable<Row>(props: {
  label: string;
  rows: readonly Row[];
  columns: readonly Column<Row>[];
  rowKey: (row: Row) => string;
  wraps?: boolean;
}): JSX.Element {
  const { label, rows, columns, rowKey, wraps = false } = props;
  const isNarrow = useNarrow();
  const height = isNarrow ? ROW.narrow : ROW.wide;
  const box = useRef<HTMLDivElement>(null);
  const [[first, last], setRange] = useState<[number, number]>([0, 60]);
  const wanted = useRef<number | undefined>(undefined);

  useLayoutEffect(() => {
    let frame = 0;
    const measure = () => {
      frame = 0;
      const top = -(box.current?.getBoundingClientRect().top ?? 0);
      const next = visible(Math.max(0, top), innerHeight, height, rows.length);
      setRange((range) => (range[0] === next[0] && range[1] === next[1] ? range : next));
    };
    const later = () => {
      frame ||= requestAnimationFrame(measure);
    };
    measure();
    addEventListener("scroll", later, { passive: true });
    addEventListener("resize", later);
    return () => {
      cancelAnimationFrame(frame);
      removeEventListener("scroll", later);
      removeEventListener("resize", later);
    };
  }, [rows.length, height]);

  useEffect(() => {
    if (wanted.current === undefined) return;
    const link = linkOf(box.current, wanted.current);
    if (!link) return;
    wanted.current = undefined;
    link.focus({ preventScroll: true });
  });

  const move = (event: KeyboardEvent) => {
    const from = Number(
      (event.target as HTMLElement).closest<HTMLElement>("[data-row]")?.dataset.row,
    );
    const to = { ArrowDown: from + 1, ArrowUp: from - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to === undefined || Number.isNaN(to) || to < 0 || to >= rows.length) return;
    event.preventDefault();
    if (wraps) {
      linkOf(box.current, to)?.focus();
      return;
    }
    const top = (box.current?.getBoundingClientRect().top ?? 0) + to * height;
    if (top < height * 2 || top > innerHeight - height * 4)
      scrollBy({ top: top - innerHeight / 2 });
    const link = linkOf(box.current, to);
    if (link) link.focus({ preventScroll: true });
    else wanted.current = to;
  };

  const [from, until] = wraps ? [0, rows.length] : [first, last];
  const shown = rows.slice(from, until);
  const before = Math.min(from, rows.length) * height;
  const after = Math.max(0, rows.length - until) * height;
  const lines = ([1, 2, 3] as const).filter((line) => columns.some((one) => one.line === line));
  if (isNarrow)
    return (
      // biome-ignore lint/a11y/noStaticElementInteractions: the keys move between its links
      <div ref={box} onKeyDown={move}>
        <ol className={wraps ? "cards wraps" : "cards"} aria-label={label}>
          {before > 0 && <li aria-hidden style={{ height: before }} />}
          {shown.map((row, index) => (
            <li key={rowKey(row)} data-row={from + index}>
              {lines.map((line) => (
                <div key={line} className="line">
                  {columns
                    .filter((column) => column.line === line)
                    .map((column) => (
                      <span key={column.key} className={column.grow ? "grow" : undefined}>
                        {column.cell(row)}
                      </span>
                    ))}
                </div>
              ))}
            </li>
          ))}
          {after > 0 && <li aria-hidden style={{ height: after }} />}
        </ol>
      </div>
    );
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the keys move between its links
    <div ref={box} className={wraps ? "long wraps" : "long"} onKeyDown={move}>
      <table aria-label={label} aria-rowcount={rows.length + 1}>
        <colgroup>
          {columns.map((column) => (
            <col key={column.key} style={column.width ? { width: column.width } : undefined} />
          ))}
        </colgroup>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.key} scope="col" className={column.number ? "number" : undefined}>
                {column.head || <span className="hidden">Actions</span>}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          <Spacer height={before} span={columns.length} />
          {shown.map((row, index) => (
            <tr key={rowKey(row)} data-row={from + index} aria-rowindex={from + index + 2}>
              {columns.map((column) => (
                <td key={column.key} className={column.number ? "number" : undefined}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
          <Spacer height={after} span={columns.length} />
        </tbody>
      </table>
    </div>
  );
}

function Spacer({ height, span }: { height: number; span: number }): JSX.Element | null {
  if (height <= 0) return null;
  const style: CSSProperties = { height };
  return (
    <tr className="spacer" aria-hidden>
      <td colSpan={span} style={style} />
    </tr>
  );
}

function linkOf(box: HTMLElement | null, row: number): HTMLElement | null {
  return (
    box?.querySelector<HTMLElement>(`[data-row="${row}"] a, [data-row="${row}"] button`) ?? null
  );
}
