"""How docs/ becomes a site: `make docs` builds it into build/docs, from what is in this checkout and nothing else.

The reference comes from the docstrings. A name in backticks there becomes a link where it is public.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.util.nodes import make_refnode

import runc_async

sys.path.insert(0, str(Path(__file__).parent))
import plain_pages
import signatures

if TYPE_CHECKING:
    from docutils.nodes import Element
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "runc_async"
author = "The runc_async developers"
release = version = runc_async.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx"]
intersphinx_mapping = {  # kept in this repository, since a build has no network: tools/inventories.py
    name: (site, f"inventories/{name}.inv")
    for name, site in {
        "python": "https://docs.python.org/3/",
        "anyio": "https://anyio.readthedocs.io/en/stable/",
        "msgspec": "https://jcristharif.com/msgspec/",
    }.items()
}
intersphinx_disabled_reftypes = ["std:*"]
nitpicky = True
nitpick_ignore = [  # of libraries whose sites aren't asked
    ("py:class", "distributed.client.Client"),
    ("py:class", "prometheus_client.metrics_core.Metric"),
    ("py:class", "opentelemetry.trace.TracerProvider"),
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_theme_options = {
    name: {"code-font-size": "75%"} for name in ("light_css_variables", "dark_css_variables")
}  # a line of 97 characters is seen whole
html_static_path = ["_static"]
html_js_files = ["copy.js"]
html_css_files = ["copy.css"]
html_title = f"runc_async {release}"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "monokai"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
add_module_names = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_preprocess_types = True
maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"

# --- names

SPACES = (
    "runc_async",
    *(
        f"runc_async.{name}"
        for name in ("spec", "rootfs", "figures", "testing", "stats", "features", "stdio", "merge", "dask")
    ),
)
"""The modules that the reference names; whatever is public has its place in one of them."""

MODULES = [
    importlib.import_module(info.name)
    for info in pkgutil.walk_packages(runc_async.__path__, "runc_async.")
    if not info.name.endswith("__main__")
]

UNLISTED = {
    *(
        "CheckpointOptions",
        "ClientOptions",
        "CreateOptions",
        "ExecOptions",
        "ProcessOptions",
        "RestoreOptions",
    ),  # "those of `create`"
    *("RunningProcess", "StartedProcess", "ProcessIdentity"),  # of the seam, known by their protocol
}
"""Names in annotations that have no entry of their own."""

MADE_BY_US = {
    *("Box", "Bundle", "Completed", "Container", "ContainerProcess", "EventStream", "FakeProcess", "MergedEvents"),
    *("Keeper", "PipeReader", "PipeWriter", "Process", "Pty", "Runner"),
}
"""Classes whose constructors aren't for callers; their descriptions say where they come from."""

ANNOTATED = re.compile(r"~?(?:\w+\.)*Annotated\[")
QUALIFIED = re.compile(r"(?<=[ |\[])(?=runc_async\.)")
BACKTICKS = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def find(name: str, owner: str) -> str | None:
    """Return the public place of what a docstring names, seen from the class that the docstring belongs to.

    None if it is no name, or not ours.
    """
    if not re.fullmatch(r"[A-Za-z][\w.]*(\(\))?", name):
        return None
    words = name.removesuffix("()").removeprefix("runc_async.").split(".")
    for place in (owner, *SPACES):
        value: object = runc_async
        for word in (*place.split(".")[1:], *words):
            if word.startswith("_") or not hasattr(value, word):
                break
            value = getattr(value, word)
        else:
            if is_ours(value) and not inspect.ismodule(value):
                return ".".join((place, *words))
    return None


def is_ours(value: object) -> bool:
    """Whether this package has made a class, a function or a property."""
    value = value.fget if isinstance(value, property) else value
    return (getattr(value, "__module__", None) or "").startswith("runc_async")


def link_names(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Make links of the names in a docstring's backticks, and literal text of all else in them."""
    del app, obj, options
    owner = name if what in {"class", "exception"} else name.rpartition(".")[0]

    def link(match: re.Match[str]) -> str:
        target = find(match[1], owner)
        return f"``{match[1]}``" if target in {None, name} else f":py:obj:`{match[1]} <{target}>`"

    lines[:] = BACKTICKS.sub(link, "\n".join(lines)).split("\n")


def tidy_types(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Show types without their modules, and give properties back what napoleon has taken for a type.

    It takes all that precedes a colon in the first line.
    """
    del app, name, options
    lines[:] = [QUALIFIED.sub("~", line) if line.startswith(":vartype ") else line for line in lines]
    if isinstance(obj, type):
        for attribute, kind in signatures.attribute_types(obj).items():
            if any(line.startswith(f":ivar {attribute}:") for line in lines) and not any(
                line.startswith(f":vartype {attribute}:") for line in lines
            ):
                lines += [f":vartype {attribute}: {kind}"]
    if what in {"method", "function"} and signatures.is_block(obj):
        lines[1:1] = ["", "Use with ``async with``."]
    taken = [line for line in lines if line.startswith(":type: ")]
    if what == "property" and taken:
        lines.remove(taken[0])
        lines[0] = f"{taken[0].removeprefix(':type: ')}: {lines[0]}"


def find_elsewhere(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element) -> Element | None:
    """Find the entry of a name in an annotation, which has the module that defines it. Leave other projects' names."""
    if node["refdomain"] != "py":
        return None
    target: str = node["reftarget"]
    short = target.rpartition(".")[2]
    if target.startswith("runc_async.") or node.get("py:module") == target:
        for space in SPACES:
            if home := env.domains.python_domain.objects.get(f"{space}.{short}"):
                shown = nodes.Text(short) if text.astext() == target else text
                return make_refnode(app.builder, node["refdoc"], home.docname, home.node_id, shown)
        return text if short in UNLISTED else None
    return text if is_foreign(target) else None


def is_foreign(name: str) -> bool:
    """Whether a name that no inventory has is one of Python's own, or belongs to another project's module."""
    first = name.partition(".")[0]
    return first in dir(builtins) or first in sys.stdlib_module_names or first in {"anyio", "msgspec"}


def plain_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Show a signature as a caller needs it: see `signatures`. A class without a public constructor has none."""
    del app, options
    if what == "class" and name.rpartition(".")[2] in MADE_BY_US:
        return "", None
    if signature:
        signature = without_metadata(signature).replace("<factory>", "...")
        signature = signatures.without_sentinel(signatures.with_options(signatures.with_numbers(signature, obj)))
    return signature, signatures.returned_block(obj, returned)


def without_metadata(signature: str) -> str:
    """Leave of each `Annotated[type, metadata ...]` the type."""
    while match := ANNOTATED.search(signature):
        depth, comma, end = 0, 0, match.end()
        while depth or signature[end] != "]":
            depth += {"[": 1, "(": 1, "]": -1, ")": -1}.get(signature[end], 0)
            comma = comma or end * (depth == 0 and signature[end] == ",")
            end += 1
        signature = signature[: match.start()] + signature[match.end() : comma] + signature[end + 1 :]
    return signature


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    fill_in_types()
    app.connect("autodoc-process-docstring", link_names, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", tidy_types, priority=600)  # after it
    app.connect("autodoc-process-signature", plain_signature)
    app.connect("missing-reference", find_elsewhere)
    app.connect("build-finished", write_plain_pages)


def write_plain_pages(app: Sphinx, exception: Exception | None) -> None:
    """Put Markdown and llms.txt beside the HTML, for readers that are programs."""
    if exception is None and app.builder.name == "html":
        plain_pages.write(Path(app.srcdir), Path(app.outdir))


def fill_in_types() -> None:
    """Do the imports that the modules make for type checkers only, so that every annotation can be evaluated.

    All modules are loaded by now, so that cycles do no harm.
    """
    for module in MODULES:
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                code = compile(ast.Module(node.body, []), str(module.__file__), "exec")
                exec(code, vars(module))  # noqa: S102 - our own imports
