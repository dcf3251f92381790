import "@jobplane/react/styles.css";
import type { JSX, ReactNode } from "react";

export const metadata = { title: "Jobs" };

export default function Layout({ children }: { children: ReactNode }): JSX.Element {
  return (
    <html lang="en">
      <body>{children}</body>
    </html>
  );
}
