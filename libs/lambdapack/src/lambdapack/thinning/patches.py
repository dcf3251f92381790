"""Single places in third-party code that cost a cold start dearly and that no rule would find.

Each is a text that must stand in its module exactly once. A module of another version of a library,
which has another text there, ships without its patches, and the build says so.
"""

from pathlib import Path

type Replacement = tuple[str, str]

PATCHES: dict[str, dict[str, tuple[Replacement, ...]]] = {
    "botocore": {
        "botocore/compat.py": (
            # An alias at the top would load ElementTree for services that speak JSON.
            (
                "XMLParseError = ETree.ParseError",
                "from xml.etree.ElementTree import ParseError as XMLParseError",
            ),
            # Asked of every event handler; a plain function's code says it.
            (
                "    return inspect.getfullargspec(func)[2]\n",
                "    code = getattr(getattr(func, '__func__', func), '__code__', None)\n"
                "    if code is not None:\n"
                "        return bool(code.co_flags & 8)  # inspect.CO_VARKEYWORDS\n"
                "    return inspect.getfullargspec(func)[2]\n",
            ),
        ),
        "botocore/credentials.py": (
            # Default arguments load modules that only a provider on a developer's computer uses.
            (
                "def __init__(self, profile_name, load_config, popen=subprocess.Popen):",
                "def __init__(self, profile_name, load_config, popen=None):",
            ),
            ("p = self._popen(\n", "p = (self._popen or subprocess.Popen)(\n"),
            # Who is given no prompter takes the same.
            ("prompter=getpass.getpass,", "prompter=None,"),
        ),
        # Of a service's rules a request looks at a few; those below them are made when it does.
        "botocore/endpoint_provider.py": (
            (
                "from enum import Enum\n",
                "from enum import Enum\nfrom functools import cached_property\n",
            ),
            (
                "        super().__init__(**kwargs)\n"
                "        self.rules = [RuleCreator.create(**rule) for rule in rules]\n",
                "        super().__init__(**kwargs)\n"
                "        self._rules = rules\n\n"
                "    @cached_property\n"
                "    def rules(self):\n"
                "        return [RuleCreator.create(**rule) for rule in self._rules]\n",
            ),
        ),
        "botocore/httpsession.py": (
            # Looked up by an error that got so far, and not by every request.
            ("        except CancelledError:\n", "        except _cancelled_error():\n"),
            (
                "logger = logging.getLogger(__name__)\n",
                "logger = logging.getLogger(__name__)\n\n"
                "def _cancelled_error():\n"
                "    return CancelledError\n",
            ),
        ),
        # Dictionaries keep their order, and are read in less than half the time.
        "botocore/loaders.py": (
            ("json.loads(payload, object_pairs_hook=OrderedDict)", "json.loads(payload)"),
        ),
        # For the user agent, five words that need no parsing.
        "botocore/session.py": (("import platform\n", "from cold_start import platform\n"),),
        "botocore/useragent.py": (("import platform\n", "from cold_start import platform\n"),),
        "botocore/utils.py": (
            # Without proxies in the environment there is nothing to load urllib.request for.
            (
                "def get_environ_proxies(url):\n",
                "def get_environ_proxies(url):\n"
                "    if not any(name.lower().endswith('_proxy') for name in os.environ):\n"
                "        return {}\n",
            ),
        ),
        "botocore/validate.py": (
            # A value can't be a Decimal until the module is loaded.
            ("import decimal\n", "from cold_start import LoadedDecimal\n"),
            ("'float': (float, decimal.Decimal, int),", "'float': (float, LoadedDecimal, int),"),
            ("'double': (float, decimal.Decimal, int),", "'double': (float, LoadedDecimal, int),"),
        ),
    },
    "certifi": {
        # An artifact is unpacked, so the file can be opened directly.
        "certifi/core.py": (
            ("    from importlib.resources import as_file, files\n", "    import os.path\n"),
            (
                '            _CACERT_CTX = as_file(files("certifi").joinpath("cacert.pem"))\n'
                "            _CACERT_PATH = str(_CACERT_CTX.__enter__())\n"
                "            atexit.register(exit_cacert_ctx)\n",
                "            folder = os.path.dirname(__file__)\n"
                '            _CACERT_PATH = os.path.join(folder, "cacert.pem")\n',
            ),
            (
                'return files("certifi").joinpath("cacert.pem").read_text(encoding="ascii")\n',
                'with open(where(), encoding="ascii") as file:\n'
                "            return file.read()\n",
            ),
        ),
    },
    "pydantic": {
        # No value can have a class whose module is not loaded. zoneinfo would load sysconfig.
        "pydantic/_internal/_generate_schema.py": (
            ("        Decimal,\n        ZoneInfo,\n    }\n", "        Decimal,\n    }\n"),
            ("        ZoneInfo: lambda self, obj: self._zoneinfo_schema(),\n", ""),
            ("        Fraction: _copy_schema_handler(core_schema.fraction_schema()),\n", ""),
            (
                "                handler = self._handlers.get(obj)\n",
                "                handler = self._handlers.get(obj) or _handler_if_loaded(obj)\n",
            ),
            (
                "class GenerateSchema:\n",
                "def _handler_if_loaded(obj):\n"
                "    if obj is getattr(sys.modules.get('zoneinfo'), 'ZoneInfo', MISSING):\n"
                "        return lambda self, obj: self._zoneinfo_schema()\n"
                "    if obj is getattr(sys.modules.get('fractions'), 'Fraction', MISSING):\n"
                "        return _copy_schema_handler(core_schema.fraction_schema())\n"
                "    return None\n\n\n"
                "class GenerateSchema:\n",
            ),
        ),
        # Looking for plugins reads every distribution's metadata: the build knows whether one has
        # any. With a layer that has one, PYDANTIC_DISABLE_PLUGINS=0 looks for it as before.
        "pydantic/plugin/_loader.py": (
            (
                "os.getenv('PYDANTIC_DISABLE_PLUGINS')",
                "os.getenv('PYDANTIC_DISABLE_PLUGINS', "
                "__import__('cold_start_methods').NO_PLUGINS)",
            ),
        ),
    },
    "pydantic_core": {
        # For annotations alone.
        "pydantic_core/core_schema.py": (
            ("from decimal import Decimal\nfrom fractions import Fraction\n", ""),
        ),
    },
    "urllib3": {
        # For ASCII the codec `idna` looks at lengths alone, and brings Unicode's tables for it.
        "urllib3/util/connection.py": (
            (
                '        host.encode("idna")\n',
                "        if host.isascii():\n"
                '            *labels, last = host.split(".")\n'
                "            if len(last) > 63 or not all(0 < len(part) < 64 for part in labels):\n"
                "                raise UnicodeError\n"
                "        else:\n"
                '            host.encode("idna")\n',
            ),
            (
                "socket.getaddrinfo(host, port, family,",
                "socket.getaddrinfo(host.encode() if host.isascii() else host, port, family,",
            ),
        ),
        "urllib3/util/ssl_.py": (
            (
                "return ssl_context.wrap_socket(sock, server_hostname=server_hostname)",
                "if server_hostname is not None and server_hostname.isascii():\n"
                "        server_hostname = server_hostname.encode()\n"
                "    return ssl_context.wrap_socket(sock, server_hostname=server_hostname)",
            ),
        ),
    },
}  # fmt: skip


class PatchError(Exception):
    """A patch does not fit the library's code; the message names the place."""


def patched(distribution: str, module: Path, source: str) -> str:
    """The module's source with its patches.

    Args:
        module: its path in the distribution.

    Raises:
        PatchError: a text does not occur exactly once.
    """
    for old, new in PATCHES.get(distribution, {}).get(module.as_posix(), ()):
        if source.count(old) != 1:
            raise PatchError(
                f"{module} has {source.count(old)} times what lambdapack's patches.py replaces "
                f"there once: {old.strip()!r}"
            )
        source = source.replace(old, new)
    return source
