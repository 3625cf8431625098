"""The options that the stdlib's handler classes have, and prefork's: types and meaning.

Any process. Declarations only. A class's own variables can be set as well; what
those are is known when it is imported, not here.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from prefork.config.kinds import MOST, FilePath, SomeBytes, SomeSeconds, about

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 §5.6.2, a token
_FIELD_VALUE: Final = r"[\t\x20-\x7e\x80-\xff]*"  # RFC 9110 §5.5

Token = Annotated[str, Meta(pattern=rf"^{_WORD}\Z", extra={"form": "token"})]
FieldValue = Annotated[str, Meta(pattern=rf"^{_FIELD_VALUE}\Z", extra={"form": "field value"})]
MediaType = Annotated[  # RFC 9110 §8.3.1
    str,
    Meta(pattern=rf"^{_WORD}/{_WORD}[\t ]*(;{_FIELD_VALUE})?\Z", extra={"form": "media type"}),
]
FileName = Annotated[str, Meta(pattern=r"^[^/\0]+\Z", extra={"form": "file name"})]
VariableName = Annotated[str, Meta(pattern=r"^[A-Za-z_]\w*\Z", extra={"form": "variable"})]
UrlPath = Annotated[str, Meta(pattern=r"^/[^?#]*\Z", extra={"form": "URL path"})]
Suffix = Annotated[str, Meta(pattern=r"^(\.[^/]+)?\Z", extra={"form": "suffix"})]
InnerPath = Annotated[str, Meta(pattern=r"^/?[^/\0][^\0]*\Z", extra={"form": "inner path"})]
HostName = Annotated[
    str, Meta(pattern=r"^(\*|\.?[^\s/:@*.][^\s/:@*]*)\Z", extra={"form": "host name"})
]
Origin = Annotated[  # RFC 6454 §6.2
    str, Meta(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^\s/?#@]+)\Z", extra={"form": "origin"})
]

Version = Literal["HTTP/1.0", "HTTP/1.1"]  # RFC 9112 §2.3; those that http.server speaks
Links = Literal["inside", "follow", "never"]


class HandlerOptions(Struct, frozen=True, kw_only=True):
    """`[server.NAME.handler_options]`; left out, each is what the class says."""

    directory: Annotated[
        FilePath | None,
        about("the folder to share", unset="", also=["root", "document_root", "dir"]),
    ] = None
    index_pages: Annotated[
        list[FileName] | None,
        about("files shown in place of a listing", unset="", also=["index", "index_files"]),
    ] = None
    extensions_map: Annotated[
        dict[Suffix, MediaType] | None,
        about("content types by suffix, beside the class's", unset="", also=["mime_types"]),
    ] = None
    default_content_type: Annotated[
        MediaType | None,
        about("for names that tell no type", unset="", also=["content_type", "default_type"]),
    ] = None
    extra_response_headers: Annotated[
        dict[Token, FieldValue | list[FieldValue]]
        | list[Annotated[list[str], Meta(min_length=2, max_length=2)]]
        | None,
        about("added to files and listings", unset="", also=["headers", "add_header"]),
    ] = None
    symlinks: Annotated[
        Links | None,
        about(
            "links that are shown: those that stay inside, all, none",
            unset="",
            also=["follow_symlinks", "followsymlinks", "allow_symlink", "disable_symlinks"],
        ),
    ] = None
    hidden: Annotated[
        bool | None,
        about("show names that begin with a dot", unset="", also=["show_hidden", "dotfiles"]),
    ] = None
    trusted: Annotated[
        bool | None,
        about("the folder is a site: its pages may run scripts", unset="", also=["site"]),
    ] = None
    spa: Annotated[
        bool | None,
        about(
            "a trusted site whose index page answers for what is not there",
            unset="",
            also=["render_spa", "single_page", "try_files"],
        ),
    ] = None
    not_found_page: Annotated[
        InnerPath | None,
        about("file of the folder that is sent with 404", unset="", also=["error_document"]),
    ] = None
    archives: Annotated[
        bool | None,
        about(
            "folders can be had as zip and tar",
            unset="",
            also=["zip", "enable_zip", "enable_tar", "allow_archive"],
        ),
    ] = None
    compression: Annotated[
        bool | None,
        about("text is compressed on its way", unset="", also=["gzip", "compress", "encode"]),
    ] = None
    allowed_hosts: Annotated[
        list[HostName] | None,
        about(
            'names the share may be called by, beside local ones; "*": any',
            unset="",
            also=["server_name", "server_names", "hosts"],
        ),
    ] = None
    cors_origins: Annotated[
        list[Origin] | None,
        about(
            'sites whose scripts may read files; "*": any', unset="", also=["cors", "enable_cors"]
        ),
    ] = None
    cache_directory: Annotated[
        FilePath | None,
        about("for the checksums of archives", unset="", also=["cache_dir", "cache_path"]),
    ] = None
    cache_bytes: Annotated[
        SomeBytes | None, about("that they may take", unset="", also=["cache_size"])
    ] = None
    protocol_version: Annotated[
        Version | None, about("spoken at most", unset="", also=["protocol"])
    ] = None
    default_request_version: Annotated[
        Literal["HTTP/0.9", "HTTP/1.0", "HTTP/1.1"] | None,
        about("of a request that names none", unset=""),
    ] = None
    server_version: Annotated[
        FieldValue | None, about("in the header Server", unset="", also=["server_tokens"])
    ] = None
    sys_version: Annotated[FieldValue | None, about("in the header Server", unset="")] = None
    allowed_methods: Annotated[
        list[Token] | None, about("others are answered by 405", unset="", also=["methods"])
    ] = None
    cgi_directories: Annotated[
        list[UrlPath] | None, about("whose files are run", unset="", also=["cgi_bin"])
    ] = None
    cgi_timeout: Annotated[
        SomeSeconds | None,
        about("a script may neither read nor write, then 504", also=["script_timeout"]),
    ] = None
    cgi_time_limit: Annotated[SomeSeconds | None, about("a script may take in all, then 504")] = (
        None
    )
    cgi_header_bytes: Annotated[
        SomeBytes | None, about("of the headers a script says, then 502", unset="")
    ] = None
    cgi_output_bytes: Annotated[
        SomeBytes | None, about("of all else it says, then its client is cut off")
    ] = None
    cgi_environment: Annotated[
        dict[VariableName, str] | None,
        about("variables of scripts, beside those of CGI", unset="", also=["setenv"]),
    ] = None
    cgi_inherited: Annotated[
        list[VariableName] | None,
        about("variables that scripts have from the server", unset="", also=["passenv"]),
    ] = None
    cgi_authorization: Annotated[
        bool | None,
        about("scripts get Authorization, and whom it names", unset="", also=["cgipassauth"]),
    ] = None
    script_output_follows: Annotated[
        bool | None, about("always 200, whatever a script says, as in http.server", unset="")
    ] = None
    error_message_format: Annotated[
        str | None,
        about("page with %(code)d, %(message)s, %(explain)s", unset="", also=["error_page"]),
    ] = None
    error_content_type: Annotated[MediaType | None, about("of that page", unset="")] = None
    timeout: Annotated[
        SomeSeconds | None, about("in place of all times of limits, for each read and write")
    ] = None
    disable_nagle_algorithm: Annotated[bool | None, about("set TCP_NODELAY", unset="")] = None
    rbufsize: Annotated[
        Annotated[int, Meta(ge=-1, le=MOST)] | None, about("bytes of rfile's buffer", unset="")
    ] = None
    wbufsize: Annotated[
        Annotated[int, Meta(ge=-1, le=MOST)] | None, about("bytes of wfile's buffer", unset="")
    ] = None
