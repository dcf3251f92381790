"""`jobplane console`: serve the operators' page of a stage on loopback."""

import webbrowser
from pathlib import Path

import click

from jobplane.stage.stages import Stage
from jobplane.tree.repository import Repository


@click.command(
    epilog="""\b
Examples:
  jobplane console
  jobplane console --stage staging --read-only
  jobplane console --stage prod --write

\b
The URL is good for one browser, and once: it gives that browser a cookie. The page is built with
npm the first time, and when its sources have changed. docs/console.md describes the pages."""
)
@click.option("--stage", default="local", show_default=True)
@click.option(
    "--read-only/--write",
    "read_only",
    default=None,
    help="Whether the page may change something. Default: --write, but --read-only if the stage's"
    " name has 'prod' in it.",
)
@click.option("--port", type=click.IntRange(1024, 65535), help="Default: a free port.")
@click.option("--open", "opens", is_flag=True, help="Also open the URL in a browser.")
@click.option(
    "--page",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="A built page. Default: web/console/dist.",
)
def command(
    stage: str, read_only: bool | None, port: int | None, opens: bool, page: Path | None
) -> None:
    """Show a stage's jobs, files and alarms in a browser.

    Serves a page on this machine only, until interrupted. It asks AWS with your own credentials,
    and changes nothing but by the stage's functions.
    """
    from jobplane.console.backend import Backend
    from jobplane.console.page import built_page
    from jobplane.console.server import ConsoleServer
    from jobplane.stage import emulator
    from jobplane.stage.stages import StageNotUpError
    from jobplane.terminal import interrupts

    there = Stage(Repository.here(), stage).require()
    state = there.read_state()
    if state is not None and not emulator.is_running(state):
        raise StageNotUpError(stage)
    backend = Backend(there, _why_read_only(stage, read_only))
    backend.check()
    folder = built_page(there.repository, page)
    try:
        server = ConsoleServer(backend, folder, port or 0)
    except OSError as error:
        raise click.ClickException(f"port {port} can't be used ({error.strerror})") from error
    with server, interrupts.as_keyboard_interrupt():
        click.echo(f"console of {stage}: {server.url}")
        mode = "read-only" if backend.read_only_because else "may change the stage"
        click.echo(f"{mode}; serving on this machine only, until interrupted (Ctrl-C)", err=True)
        if opens:
            webbrowser.open(server.url)
        try:
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            click.echo("console stopped", err=True)


def _why_read_only(stage: str, read_only: bool | None) -> str | None:
    if read_only:
        return "the console was started with --read-only; start it with --write to change the stage"
    if read_only is None and "prod" in stage:
        return (
            f"stage {stage!r} has 'prod' in its name, so the console only reads; start it with"
            " --write to change the stage"
        )
    return None
