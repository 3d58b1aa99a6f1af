"""Files below a folder, as of a system that the tests do not run on."""


def plant(root, files):
    """Write `files` (a path below the root -> a text); returns the root."""
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root
