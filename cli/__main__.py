"""`python -m gatehub.cli`, which launchers of several processes can start."""

from __future__ import annotations

from gatehub.cli import main

if __name__ == "__main__":
    main()
