"""nginx, Apache and lighttpd: what their configurations say, and their command lines.

None needs root. What is not said here has the server's default.
"""

import os
from pathlib import Path

from start import BenchError, Start, daemon

#: Where Apache's modules are, in Debian and in Fedora.
_MODULES = (Path("/usr/lib/apache2/modules"), Path("/etc/httpd/modules"))
#: More than there are clients: the load would else begin before Apache has made them.
_APACHE_PROCESSES = 10


def nginx(start: Start) -> list[str]:
    """Said with the default's value is what prefork has the same (75 s and 1000 requests)."""
    program, own = _prepared("nginx", start, "nginx")
    temporary = "".join(
        f"  {name}_temp_path {own};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # else nobody, who may not enter the folder
    (own / "conf").write_text(f"""\
{user} daemon off; worker_processes {start.workers};
pid {own}/pid; error_log stderr;
events {{ worker_connections 16384; }}
http {{
{temporary}
  access_log {f"{own}/access.log" if start.log else "off"};
  keepalive_timeout 75s; keepalive_requests 1000;
  sendfile on; tcp_nopush on;
  open_file_cache max=1000 inactive=60s; open_file_cache_valid 1s;
  types {{ text/plain txt; }}
  server {{
    listen 127.0.0.1:{start.port}; root {start.site}; autoindex on;
    location = / {{ default_type text/plain; return 200 "Hello, world!\\n"; }}
    location /json/ {{ alias {start.site}/; autoindex_format json; }}
  }}
}}
""")
    return [program, "-p", str(own), "-c", str(own / "conf"), "-e", "stderr"]


def apache(start: Start) -> list[str]:
    """mod_cgi, so MPM prefork: mod_cgid reaps no script, and nobody could count its time."""
    program, own = _prepared("apache2-bin", start, "apache2", "httpd")
    modules = next((path for path in _MODULES if path.is_dir()), None)
    if modules is None:
        raise BenchError("its modules are not where Debian or Fedora have them")
    names = ["mpm_prefork", "authz_core", "alias", "cgi"]
    # On Fedora it is a module, on Debian a part of the program.
    names += [name for name in ("unixd",) if (modules / f"mod_{name}.so").exists()]
    log = f"LoadModule log_config_module {modules}/mod_log_config.so" if start.log else ""
    log += f'\nCustomLog {own}/access.log "%h %l %u %t \\"%r\\" %>s %b"' if start.log else ""
    user = "User nobody\nGroup #65534" if os.geteuid() == 0 else ""  # it refuses to serve as root
    load = "\n".join(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in names)
    (own / "conf").write_text(f"""\
ServerRoot {own}
DefaultRuntimeDir {own}
PidFile {own}/pid
ErrorLog /dev/stderr
ServerName 127.0.0.1
Listen 127.0.0.1:{start.port}
{load}
{log}
{user}
StartServers {_APACHE_PROCESSES}
MinSpareServers 1
MaxSpareServers {_APACHE_PROCESSES}
DocumentRoot {start.site}
ScriptAlias /cgi-bin/ {start.site}/cgi-bin/
""")
    return [program, "-f", str(own / "conf"), "-DFOREGROUND"]


def lighttpd(start: Start) -> list[str]:
    program, own = _prepared("lighttpd", start, "lighttpd")
    modules = '"mod_cgi"' + ', "mod_accesslog"' * start.log
    log = f'accesslog.filename = "{own}/access.log"' if start.log else ""
    (own / "conf").write_text(f"""\
server.modules = ({modules})
server.bind = "127.0.0.1"
server.port = {start.port}
server.document-root = "{start.site}"
server.upload-dirs = ("{own}")
{log}
$HTTP["url"] =~ "^/cgi-bin/" {{ cgi.assign = ("" => "") }}
""")
    return [program, "-D", "-f", str(own / "conf")]


def _prepared(package: str, start: Start, *names: str) -> tuple[str, Path]:
    """Return the path of the program, and a folder of its own."""
    program = daemon(*names)
    if program is None:
        raise BenchError(f"not installed (apt-get install {package})")
    own = start.folder / f"{names[0]}-{start.port}"
    own.mkdir(exist_ok=True)
    return program, own
