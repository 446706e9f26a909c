"""Write docs/session.schema.json: the JSON Schema of a click-session file."""

from __future__ import annotations

import json
from pathlib import Path

from napari_cfrseg.session.format import json_schema

TARGET = Path(__file__).with_name("session.schema.json")


def main() -> None:
    """Write the file."""
    TARGET.write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {TARGET.name}")


if __name__ == "__main__":
    main()
