"""A hook of MkDocs: what docs/ links to elsewhere in the repository is shown as a page of the site, and the links lead there.

So a relative link such as ../examples/models.py works on the site as it does in the repository.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()(\.\./[^)#\s]+)")
FOLDER = "repository"


def on_files(files, config):
    pages = [file for file in files if file.is_documentation_page()]
    linked = {path for page in pages for _, link in LINK.findall(page.content_string) if (path := _outside(page, link))}
    for path in sorted(linked):
        text = (ROOT / path).read_text()
        kind = Path(path).suffix.lstrip(".") or "text"
        content = f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n````{kind}\n{text}````\n"
        files.append(File.generated(config, _place(path), content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    def there(match):
        path = _outside(page.file, match[2])
        return match[1] + (posixpath.relpath(_place(path), posixpath.dirname(page.file.src_uri)) if path else match[2])

    return LINK.sub(there, markdown)


def _outside(file, link):
    """The path in the repository of what a page links to, where that is no part of docs/."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(file.src_uri), link))
    return path if not path.startswith(("docs/", "..")) and (ROOT / path).is_file() else None


def _place(path):
    return f"{FOLDER}/{path}.md"
